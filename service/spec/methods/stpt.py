"""Short-term pre-training (STPT, Yamada et al., Algorithm 1): its settings, its iterations, and what must hold between
them."""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from service.errors import FieldError
from service.spec.lr_set import LrSet, PhasedLrSet, Pretrains, RaceLrSet, StagedLrSet
from service.spec.methods.base import MAX_EPOCHS, Facts, MethodSpec, Probe, Schedule, Work
from service.spec.race import Shares, shared_out
from service.spec.scaling import Scaling
from service.spec.stpt import Audit, GreedySelector, Guards, MainTrain, Metric, Pretrain, Selector, Warmup
from service.spec.task import BarlowTwinsTask

if TYPE_CHECKING:
    from service.spec.job import JobSpec

PRETRAIN_SHARE = 200 / 2500  # STPT, Table 1: alpha = 200 of the 2500 iterations of an epoch


@dataclass(frozen=True)
class EpochPlan:
    """The iterations of one epoch of STPT: alpha of Pre-train, then beta of Main-train; no more than an epoch has."""

    pretrain_iterations: int  # alpha
    main_train_iterations: int  # beta

    @property
    def iterations(self) -> int:
        """The iterations that the chosen branch is trained in an epoch, alpha + beta."""
        return self.pretrain_iterations + self.main_train_iterations

    def alpha(self, share: float | None) -> int:
        """The iterations of a Pre-train of that share of the epoch; None: the plan's own."""
        return self.pretrain_iterations if share is None else max(1, round(share * self.iterations))


class StptMethod(MethodSpec):
    """Short-term pre-training (STPT, Yamada et al., Algorithm 1): each epoch tries candidate learning rates for a few
    iterations, chooses one, and goes on with it."""

    sets_budget: ClassVar[bool] = True

    name: Literal["stpt"] = Field("stpt", description="Name of this method.")
    lr_set: LrSet | None = Field(
        None, description="The candidates of each epoch, or the name of a set; null: the job's `lr_set`."
    )
    warmup: Warmup = Field(Warmup(), description="The epochs before the first Pre-train.")
    pretrain: Pretrain = Field(Pretrain(), description="How the candidates of an epoch are tried.")
    main_train: MainTrain = Field(MainTrain(), description="How the chosen one carries on.")
    metric: Metric = Field("val_loss", description="What branches are judged by after alpha iterations.")
    selector: Selector = Field(GreedySelector(), description="How the branch that goes on is chosen.")
    guards: Guards = Field(Guards(), description="What is done about an epoch that went wrong.")
    audit: Audit | None = Field(
        None, description="What is tried beside the training to judge its choices; null: nothing."
    )
    scaling: Scaling | None = Field(
        None,
        description="How `initial_learning_rate`, which the first Pre-train goes by, follows the global batch; null: "
        "it does not.",
    )

    # --- what it comes to in a job ---------------------------------------------------------------------

    def candidates_of(self, spec: "JobSpec") -> LrSet:
        """The learning-rate set that the method's Pre-trains try: its own, or else the job's."""
        return spec.lr_set if self.lr_set is None else self.lr_set

    def warmup_epochs(self, epochs: int) -> int:
        """The number of warm-up epochs in a training of `epochs`."""
        return (epochs + 5) // 10 if self.warmup.epochs is None else self.warmup.epochs

    def first_learning_rate(self, spec: "JobSpec") -> float:
        """The job's initial learning rate, scaled to its batch where that is asked for."""
        start = spec.initial_learning_rate
        return start if self.scaling is None else self.scaling.learning_rate(start, spec.global_batch_size)

    def first_pretrain(self, spec: "JobSpec") -> tuple[int, float]:
        """Return (the epoch behind the warm-up, the initial learning rate, scaled to the batch where that is asked
        for)."""
        return self.warmup_epochs(spec.epochs) + 1, self.first_learning_rate(spec)

    def epoch_plan(self, iterations: int) -> EpochPlan:
        """The plan of an epoch of `iterations`: how many of them are alpha, and how many beta."""
        alpha = self.pretrain.iterations or max(1, round(PRETRAIN_SHARE * iterations))
        beta = self.main_train.iterations
        return EpochPlan(alpha, iterations - alpha if beta is None else beta)

    def races(self, spec: "JobSpec") -> bool:
        """Whether the method's learning-rate set is a race."""
        return isinstance(self.candidates_of(spec), RaceLrSet)

    def holds_budget(self, spec: "JobSpec") -> bool:
        """Whether the job's budget holds for the method: where there is one, unless it is by what this run takes."""
        return spec.budget is not None and self.label != spec.measuring_run

    def most_extensions(self, spec: "JobSpec") -> int:
        """The number of candidates that a stage may try beyond its own: none within a budget, where all is planned."""
        lr_set = self.candidates_of(spec)
        return lr_set.max_extensions if isinstance(lr_set, StagedLrSet) and not self.holds_budget(spec) else 0

    def warmup_share(self, spec: "JobSpec") -> float:
        """The share of the training over which learning rates rise linearly to their full values."""
        lr_set = self.candidates_of(spec)
        return lr_set.warmup_share if isinstance(lr_set, RaceLrSet) else 0.0

    def shares(self, spec: "JobSpec", epoch_samples: int, budget: int | None) -> Shares:
        """How the search and the training share out `budget`, the training samples of one seed: how many epochs there
        are, and how long each is. None: no limit, and the training has the job's epochs. `epoch_samples` are those of
        a pass over the data."""
        batch, lr_set = spec.global_batch_size, self.candidates_of(spec)
        iterations = self.epoch_plan(epoch_samples // batch).iterations
        if isinstance(lr_set, RaceLrSet):
            room = None if budget is None else budget // batch
            looks = len(lr_set.first_looks(self.first_learning_rate(spec)))
            shares = shared_out(lr_set.search_share, looks, epochs=spec.epochs, iterations=iterations, budget=room)
            return replace(shares, epochs=min(MAX_EPOCHS, shares.epochs))
        if budget is None:
            return Shares(None, spec.epochs, iterations)
        return _stretched(budget, iterations, lambda shares: self.training_samples(spec, epoch_samples, shares))

    def training_shares(self, spec: "JobSpec", epoch_samples: int) -> Shares:
        """The shares of a training whose spec has the budget that is its own, in samples, or none."""
        budget = spec.budget if self.holds_budget(spec) else None
        return self.shares(spec, epoch_samples, None if budget is None else budget.samples)

    def training_plan(self, spec: "JobSpec", epoch_samples: int, shares: Shares) -> EpochPlan:
        """The plan of every epoch of a training with these shares."""
        whole = self.epoch_plan(epoch_samples // spec.global_batch_size)
        alpha = min(whole.pretrain_iterations, shares.iterations)
        return EpochPlan(alpha, shares.iterations - alpha)

    def training_samples(self, spec: "JobSpec", epoch_samples: int, shares: Shares) -> int:
        """The training samples of a training with these shares, race or Pre-trains included. Fewer are taken where
        candidates are equal after the cap (more with the batch `per_worker`, if each of fewer branches then has more
        workers), more where results call for branches beyond the plan."""
        plan = self.training_plan(spec, epoch_samples, shares)
        raced = 0 if shares.race is None else shares.race.iterations
        trained = (raced + shares.epochs * shares.iterations) * spec.global_batch_size
        first = self.warmup_epochs(shares.epochs) + 1
        planned = self.candidates_of(spec).pretrains(first, shares.epochs)
        return trained + sum(alike.epochs * self._excess(spec, plan, alike) for alike in planned)

    def _excess(self, spec: "JobSpec", plan: EpochPlan, alike: Pretrains) -> int:
        """The samples of a Pre-train in excess of the branch that goes on, which has trained alpha of the epoch."""
        parts = spec.workers  # of the global batch, that a branch trains
        if self.pretrain.batch == "per_worker":
            parts //= min(alike.candidates, spec.workers)
        batches = alike.candidates * parts * spec.batch_per_worker  # of all branches
        return plan.alpha(alike.share) * (batches - spec.global_batch_size)

    def search_samples(self, spec: "JobSpec", epoch_samples: int) -> int:
        """The training samples that the first Pre-train adds to its epoch; none of a race, which a budget may have no
        room for."""
        first = self.warmup_epochs(1) + 1
        shares = Shares(None, first, self.epoch_plan(epoch_samples // spec.global_batch_size).iterations)
        training = first * shares.iterations * spec.global_batch_size
        return max(0, self.training_samples(spec, epoch_samples, shares) - training)

    def training_epochs(self, spec: "JobSpec", epoch_samples: int, budget: int | None) -> int:
        """The number of epochs of one training; `epoch_samples` are the training samples of an epoch, `budget` those of
        one seed (None: no limit)."""
        return self.shares(spec, epoch_samples, budget).epochs

    def pretrain_iterations(self, spec: "JobSpec", plan: EpochPlan, epoch: int) -> int:
        """alpha, in iterations, of `epoch`, which is behind the warm-up: a stage of the learning-rate set may have its
        own in place of the plan's."""
        lr_set, number = self.candidates_of(spec), epoch - self.warmup_epochs(spec.epochs) - 1
        if isinstance(lr_set, StagedLrSet) and number < len(lr_set.stages):
            return plan.alpha(lr_set.stages[number].pretrain_share)
        return plan.pretrain_iterations

    def settled_epoch(self, spec: "JobSpec") -> int:
        """The epoch from which on a training's learning rates are what its search came to: that of the last stage, or
        the first behind the warm-up where every epoch searches."""
        lr_set, first = self.candidates_of(spec), self.warmup_epochs(spec.epochs) + 1
        return first + len(lr_set.stages) - 1 if isinstance(lr_set, StagedLrSet) else first

    # --- the rules of every method ---------------------------------------------------------------------

    def work(self, spec: "JobSpec", facts: Facts) -> Work:
        """One training, and the training samples that it takes, Pre-trains included."""
        shares = self.shares(spec, facts.epoch_samples, facts.budget if self.holds_budget(spec) else None)
        return Work(1, self.training_samples(spec, facts.epoch_samples, shares))

    def trained_iterations(
        self, spec: "JobSpec", epoch: int, recorded: int, branches: Sequence[int], rollbacks: int
    ) -> int:
        """The iterations that made the model in an epoch, of those that its record counts: none of a race's."""
        if self.races(spec) and epoch == self.warmup_epochs(spec.epochs) + 1 and len(branches) > 1:
            return (recorded - sum(branches)) // (1 + rollbacks)
        return super().trained_iterations(spec, epoch, recorded, branches, rollbacks)

    def schedule_of(self, learning_rates: Sequence[float], spec: "JobSpec", config: Mapping[str, Any]) -> Schedule:
        """The schedule that trains again as a training of stpt did: its learning rates under the job's lr_schedule,
        which leaves the warm-up as it was."""
        return Schedule(
            learning_rates=list(learning_rates),
            lr_schedule=spec.lr_schedule,
            warmup_epochs=self.warmup_epochs(spec.epochs),
            warmup_share=self.warmup_share(spec),
            rescale_momentum=self.guards.rescale_momentum,
        )

    def errors(self, spec: "JobSpec", field: str) -> list[FieldError]:
        """What is wrong with the method's phases, its learning-rate set, its scaling, and with all of it for the job's
        task; `field` is its place in the spec."""
        errors = self._phase_errors(spec, field)
        errors += self._lr_set_errors(spec, "lr_set" if self.lr_set is None else f"{field}.lr_set")
        errors += self._scaling_errors(spec, f"{field}.scaling")
        return errors + (self._barlow_twins_errors(field) if isinstance(spec.task, BarlowTwinsTask) else [])

    def probes(self, spec: "JobSpec", field: str, train_samples: int | None) -> Iterator[FieldError | Probe]:
        """An error where Pre-train and Main-train do not fit into an epoch, if it is known how long that is."""
        iterations = 0 if train_samples is None else train_samples // spec.global_batch_size
        if not iterations:  # not known, or less than a batch, which is told of the batch
            return
        alpha, beta = self.epoch_plan(iterations).pretrain_iterations, self.main_train.iterations
        if alpha + (beta or 0) > iterations:
            key, value = ("pretrain.iterations", alpha) if beta is None else ("main_train.iterations", beta)
            message = (
                f"Pre-train ({alpha}) and Main-train ({beta or 0}) may take one epoch at most, which is {iterations} "
                f"iterations ({train_samples} samples / batch {spec.global_batch_size}); lower one"
            )
            yield FieldError(f"{field}.{key}", value, message)

    def _phase_errors(self, spec: "JobSpec", field: str) -> list[FieldError]:
        errors, warmup_epochs = [], self.warmup_epochs(spec.epochs)
        if warmup_epochs > spec.epochs:
            message = f"longer than the whole training ({spec.epochs} epochs); lower it or raise epochs"
            errors.append(FieldError(f"{field}.warmup.epochs", warmup_epochs, message))
        if self.pretrain.batch == "per_worker" and self.races(spec):
            message = "the looks of a race take the global batch; use 'global', or another lr_set"
            errors.append(FieldError(f"{field}.pretrain.batch", "per_worker", message))
        elif self.pretrain.batch == "per_worker" and self.pretrain.placement == "sequential":
            message = (
                "a sequential branch runs on all workers, its batch is the global one; use 'global', or placement "
                "'split'"
            )
            errors.append(FieldError(f"{field}.pretrain.batch", "per_worker", message))
        return errors

    def _lr_set_errors(self, spec: "JobSpec", field: str) -> list[FieldError]:
        """Every epoch behind the warm-up has candidates, and every phase of a set of its own an epoch."""
        lr_set, warmup_epochs = self.candidates_of(spec), self.warmup_epochs(spec.epochs)
        if not isinstance(lr_set, PhasedLrSet):
            return []
        late = [] if self.lr_set is None else lr_set.late_phases(spec.epochs, field)
        if (first := lr_set.phases[0].first_epoch) <= warmup_epochs + 1:
            return late
        message = f"epochs {warmup_epochs + 1} to {first - 1} have no set; begin at {warmup_epochs + 1}"
        return [FieldError(f"{field}.phases[0].first_epoch", first, message), *late]

    def _barlow_twins_errors(self, field: str) -> list[FieldError]:
        errors = []
        if self.metric == "train_accuracy":
            message = "barlow-twins trains without labels; use val_loss, or val_accuracy, which is the probe's"
            errors.append(FieldError(f"{field}.metric", self.metric, message))
        if self.pretrain.batch == "per_worker":
            message = (
                "the loss of barlow-twins is that of a whole batch, and another one for a smaller batch; use global"
            )
            errors.append(FieldError(f"{field}.pretrain.batch", "per_worker", message))
        return errors

    def _scaling_errors(self, spec: "JobSpec", field: str) -> list[FieldError]:
        """Absolute candidates cannot follow a scaling of the learning rate."""
        if self.scaling is None:
            return []
        errors = self.scaling.errors(spec, field, spec.initial_learning_rate)
        if not self.scaling.momentum and (why := self.candidates_of(spec).why_not_scaled) is not None:
            message = f"the learning rates of lr_set {why}; leave scaling out, or give lr_set factors"
            errors.append(FieldError(f"{field}.rule", self.scaling.rule, message))
        return errors


def _stretched(budget: int, iterations: int, cost: Callable[[Shares], int]) -> Shares:
    """The training without a race that has most iterations within `budget`, in samples: of epochs of `iterations`, or
    of one epoch more, all a little shorter. At least an epoch of one iteration. `cost` is what a training takes, in
    samples, its Pre-trains included."""
    whole = bisect_right(range(1, MAX_EPOCHS), budget, key=lambda epochs: cost(Shares(None, epochs, iterations)))
    shorter = bisect_right(range(1, iterations), budget, key=lambda length: cost(Shares(None, whole + 1, length)))
    if whole and whole * iterations >= (whole + 1) * shorter:
        return Shares(None, whole, iterations)
    return Shares(None, whole + 1, max(1, shorter))
