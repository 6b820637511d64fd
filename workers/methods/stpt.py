"""Short-term pre-training (S1, Algorithm 1): each epoch pre-train every candidate, select one, main-train with it."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from service.algorithms.candidates import epoch_candidates
from service.algorithms.epoch_plan import iterations_per_epoch
from service.algorithms.lr_schedules import scaled_optimizer
from service.algorithms.selectors import MAXIMIZE, BranchResult, Decision, select
from service.errors import Diverged
from service.spec.job import JobSpec
from service.spec.lr_set import StagedLrSet
from service.spec.methods.stpt import StptMethod
from service.wire.worker import AuditRecord, BranchRecord, BranchState
from workers.datasets.load import Data
from workers.engine.groups import Group, Workers
from workers.engine.seeds import derived_seed
from workers.engine.state import Average
from workers.engine.trainer import Measurement, Trainer
from workers.methods.base import TrainedEpoch, Training, finite

EXTENSION = (0.1, 0.01)  # of the smallest candidate, when none improves on the epoch's start
DEAD = 0.99  # of the untrained net's loss: a branch above it has learned nothing


@dataclass(frozen=True)
class Placement:
    """Where branches run: branch i in group i mod `groups`; `group` is this worker's."""

    groups: int
    group: Group
    microbatches: int  # that an iteration of a branch takes, of the n in a global batch


@dataclass(frozen=True)
class Branch:
    """One candidate after its alpha iterations, as every worker knows it once results are gathered."""

    result: BranchResult
    retry: int
    training: Measurement
    seconds: float
    place: int  # among the candidates of its Pre-train, from 0
    groups: int  # of its placement; 1: every worker has its end state
    slot: int  # which of the end states of a worker that has it
    dead: bool = False  # its last weights have learned nothing
    state: BranchState = "lost"
    end_metric: float | None = None  # audited

    @property
    def number(self) -> int:
        return self.result.number

    @property
    def learning_rate(self) -> float:
        return self.result.learning_rate

    @property
    def source(self) -> int:
        """World rank of a worker that has its end state: the first of its group."""
        return self.place % self.groups


class Stpt(Training):
    def __init__(self, settings: StptMethod, trainer: Trainer, trial: int = 1) -> None:
        super().__init__(trainer, trial)
        self.settings, self.label = settings, settings.label
        self.warmup_epochs = settings.warmup_epochs(self.spec.epochs)
        self.plan = settings.epoch_plan(iterations_per_epoch(self.spec, len(trainer.data.train)))
        assert self.plan.iterations == trainer.iterations
        self._alpha = self.plan.pretrain_iterations  # of the epoch at hand
        self._maximize = MAXIMIZE[self.settings.metric]
        self._by_accuracy = self.settings.metric == "val_accuracy"
        self._average = Average(trainer.model) if self.settings.pretrain.weights == "averaged" else None
        self._start, self._received = trainer.state.empty(), trainer.state.empty()
        self._start_loss: float | None = None  # that a branch must get below to be alive; None: every one is
        self._ends: list[Tensor] = []  # end states of this worker's branches; buffers are used again every epoch

    def train_epoch(self, epoch: int) -> TrainedEpoch:
        return self.warmup_epoch(epoch) if epoch <= self.warmup_epochs else self.stpt_epoch(epoch)

    def warmup_epoch(self, epoch: int) -> TrainedEpoch:
        """As many iterations as any epoch, at the warm-up learning rate, without Pre-train."""
        learning_rate = self.settings.warmup.learning_rate
        return self.plain_epoch(epoch, "warmup", learning_rate, [learning_rate] * self.trainer.iterations)

    @property
    def rescales_momentum(self) -> bool:
        return self.settings.guards.rescale_momentum

    def stpt_epoch(self, epoch: int) -> TrainedEpoch:
        """Pre-train, select, Main-train; once more with smaller learning rates where that came to nothing."""
        began = time.perf_counter()
        self._alpha = self.trainer.kept = self.settings.pretrain_iterations(self.spec, self.plan, epoch)
        self.trainer.state.save(self._start)
        start_metric, evaluated = self._start_metric()
        lr_set = epoch_candidates(self.spec, self.settings, epoch=epoch, current=self.position.learning_rate)
        searching = len(lr_set) > 1  # a single candidate has been settled
        branches: list[Branch] = []
        undone: list[Measurement] = []  # Main-trains that were rolled back
        for retry in range(self.settings.pretrain.max_retries + 1):
            learning_rates = [candidate / (10 if searching else 2) ** retry for candidate in lr_set]
            competing = self._pretrain(epoch, learning_rates, retry, branches)
            if searching:
                self._extend_ends(epoch, competing, retry, branches)
            if self.settings.guards.extend and searching and not self._improves(competing, start_metric):
                competing += self._pretrain(epoch, [min(learning_rates) * x for x in EXTENSION], retry, branches)
            while (decision := self._select(competing)).chosen is not None:
                chosen = branches[decision.chosen - 1]
                self._adopt(chosen)
                pretrained = time.perf_counter()
                main = self._main_train(epoch, chosen.learning_rate)
                trained = time.perf_counter()
                validation = self._judge(self.world, accuracy=True)
                if not self._failed(epoch, chosen, main, validation):
                    branches[chosen.number - 1] = replace(chosen, state="chosen")
                    branches, audit = self._audit(epoch, branches, validation)
                    return TrainedEpoch(
                        phase="stpt",
                        learning_rate=chosen.learning_rate,
                        applied=self._rates(epoch, chosen.learning_rate),
                        training=chosen.training + main,
                        validation=validation,
                        began=began,
                        pretrained=pretrained,
                        trained=trained,
                        iterations=len(branches) * self._alpha + (1 + len(undone)) * self._beta,
                        samples=sum(work.samples for work in (*(b.training for b in branches), *undone, main)),
                        branches=self._branch_records(branches),
                        rollbacks=len(undone),
                        audit=audit,
                        evaluation_samples=evaluated + self._evaluated(branches, len(undone), audit),
                        selector_state=dict(decision.state),
                    )
                undone.append(main)
                branches[chosen.number - 1] = replace(chosen, state="rolled_back")
                # the runner-up is the best of those that are tamer
                competing = [branch for branch in competing if branch.learning_rate < chosen.learning_rate]
            self.trainer.state.load(self._start)
        raise Diverged(
            f"epoch {epoch}: every branch diverged, down to learning rate {min(learning_rates):g} "
            f"({self.settings.pretrain.max_retries} retries); choose smaller learning rates"
        )

    @property
    def _beta(self) -> int:
        return self.plan.iterations - self._alpha

    # --- Pre-train -----------------------------------------------------------------------------------

    def _pretrain(
        self, epoch: int, learning_rates: Sequence[float], retry: int, branches: list[Branch]
    ) -> list[Branch]:
        """alpha iterations of every candidate from the start state; their results, also put behind `branches`.

        End states of earlier branches of the same retry stay.
        """
        device, state, earlier = self.trainer.workers.device, self.trainer.state, len(branches)
        placement = self._placement(len(learning_rates))
        group = placement.group
        mine = range(group.number, len(learning_rates), placement.groups)
        first_slot = max((branch.slot + 1 for branch in branches if branch.retry == retry), default=0)
        while len(self._ends) < first_slot + len(mine):
            self._ends.append(state.empty())
        del self._ends[first_slot + len(mine) :]
        # [branch, (metric, dead, seconds, loss sum, correct, samples)]: each group's first worker fills in its branches
        table = torch.zeros(len(learning_rates), 6, dtype=torch.float64)
        for slot, place in enumerate(mine, start=first_slot):
            began = time.perf_counter()
            state.load(self._start)
            training, metric, dead = self.train_branch(epoch, learning_rates[place], placement, self._ends[slot])
            if group.position == 0:
                seconds = time.perf_counter() - began
                values = [metric, dead, seconds, training.loss_sum, training.correct, training.samples]
                table[place] = torch.tensor(values, dtype=torch.float64)
        rows = self.world.sum_(table.to(device)).tolist()
        new = [
            Branch(
                result=BranchResult(earlier + place + 1, learning_rates[place], metric),
                retry=retry,
                training=Measurement(loss_sum, correct, int(samples)),
                seconds=seconds,
                place=place,
                groups=placement.groups,
                slot=first_slot + place // placement.groups,
                dead=bool(dead),
                state="lost" if math.isfinite(metric) else "diverged",
            )
            for place, (metric, dead, seconds, loss_sum, correct, samples) in enumerate(rows)
        ]
        branches += new
        return new

    def _placement(self, branches: int) -> Placement:
        workers = self.trainer.workers
        if self.settings.pretrain.placement == "sequential":  # S1, Algorithm 1
            return Placement(1, workers.world, workers.size)
        groups = min(branches, workers.size)  # S1, Fig. 1
        # per_worker: as many shares as the smallest group has workers, so that all branches see the same samples
        shares = workers.size if self.settings.pretrain.batch == "global" else workers.size // groups
        return Placement(groups, workers.split(groups), shares)

    def train_branch(
        self, epoch: int, learning_rate: float, placement: Placement, end: Tensor
    ) -> tuple[Measurement, float, bool]:
        """One branch from the state at hand to `end`: its training, its metric (NaN when not finite), whether dead."""
        rates = self._rates(epoch, learning_rate)[: self._alpha]
        self.ease_momentum(rates[0])
        if self._average is not None:
            self._average.clear()
        training = self.trainer.train(
            epoch, range(self._alpha), rates, placement.group, placement.microbatches, self._average
        )
        self.trainer.state.save(end)
        if self.settings.metric == "train_accuracy":
            return training, training.accuracy if training.is_finite else math.nan, False
        dead = self._start_loss is not None and not (
            self._judge(placement.group, accuracy=False).loss < DEAD * self._start_loss
        )
        if self._average is not None:
            self._average.load()
            self.trainer.share_buffers(placement.group)
        validation = self._judge(placement.group, accuracy=self._by_accuracy)
        return training, self._metric(validation) if training.is_finite else math.nan, dead

    def _judge(self, group: Group, *, accuracy: bool) -> Measurement:
        return self.trainer.evaluate(self.trainer.data.validation, group, accuracy=accuracy)

    def _metric(self, validation: Measurement) -> float:
        if not validation.is_finite:
            return math.nan
        return validation.loss if self.settings.metric == "val_loss" else validation.accuracy

    # --- select, adopt, Main-train -----------------------------------------------------------------------

    def _select(self, competing: Sequence[Branch]) -> Decision:
        living = [branch for branch in competing if not branch.dead] or competing
        return select(
            self.settings.selector,
            [branch.result for branch in living],
            current_learning_rate=self.position.learning_rate,
            maximize=self._maximize,
            state=self.position.selector_state,
        )

    def _adopt(self, branch: Branch) -> None:
        """Its end state becomes everybody's, in one broadcast from the first worker of its group."""
        has_it = branch.groups == 1 or self.trainer.workers.rank == branch.source
        buffer = self._ends[branch.slot] if has_it else self._received
        if branch.groups > 1:
            self.world.broadcast_(buffer, branch.source)
        self.trainer.state.load(buffer)

    def _main_train(self, epoch: int, learning_rate: float) -> Measurement:
        rates = self._rates(epoch, learning_rate)
        return self.main_train(epoch, range(self._alpha, len(rates)), rates[self._alpha :])

    def _rates(self, epoch: int, learning_rate: float) -> list[float]:
        return [learning_rate * factor for factor in self.lr_factors(epoch)]

    # --- guards (service.spec.stpt.Guards) and the audit -------------------------------------------------------

    def _start_metric(self) -> tuple[float | None, int]:
        """What branches are to improve on, None when not known, and the samples that had to be evaluated."""
        guards, self._start_loss = self.settings.guards, None
        if not (guards.extend or guards.skip_dead) or self.settings.metric == "train_accuracy":
            return None, 0
        if self.position.val_accuracies:
            return self.position.val_loss if self.settings.metric == "val_loss" else self.position.val_accuracies[-1], 0
        start = self._judge(self.world, accuracy=self._by_accuracy)
        if guards.skip_dead:
            self._start_loss = start.loss
        return self._metric(start), self._judging_samples(accuracy=self._by_accuracy)

    def _extend_ends(self, epoch: int, competing: list[Branch], retry: int, branches: list[Branch]) -> None:
        """While a stage's largest or smallest candidate is the best, try one beyond it, as far as the last step."""
        lr_set = self.settings.candidates_of(self.spec)
        if not isinstance(lr_set, StagedLrSet):
            return
        for _ in range(lr_set.max_extensions):
            chosen, tried = self._select(competing).chosen, sorted(branch.learning_rate for branch in competing)
            if chosen is None:  # all diverged: that calls for a retry
                return
            best = branches[chosen - 1].learning_rate
            neighbour = {tried[0]: tried[1], tried[-1]: tried[-2]}.get(best)
            if neighbour is None or best**2 / neighbour > lr_set.max_learning_rate:
                return
            competing += self._pretrain(epoch, [best**2 / neighbour], retry, branches)

    def _improves(self, branches: Sequence[Branch], start: float | None) -> bool:
        """Whether any branch does. True also when nothing is to be told, or all diverged: that calls for a retry."""
        metrics = [branch.result.metric for branch in branches if not branch.result.diverged]
        if start is None or not math.isfinite(start) or not metrics:
            return True
        return max(metrics) > start if self._maximize else min(metrics) < start

    def _failed(self, epoch: int, chosen: Branch, main: Measurement, validation: Measurement) -> bool:
        """Whether the Main-train must be undone. Raises Diverged where it must but may not."""
        if not (validation.is_finite and (main.is_finite or not self._beta)):  # the former: after the last step
            if not self.settings.guards.rollback:
                raise Diverged(
                    f"epoch {epoch}: the loss became non-finite at learning rate {chosen.learning_rate:g} after "
                    f"Pre-train; choose smaller learning rates or a longer Pre-train"
                )
            return True
        before = self.position.val_accuracies[-1] if self.position.val_accuracies else 0.0
        return self.settings.guards.rollback and validation.accuracy < before - self.settings.guards.max_accuracy_drop

    def _audit(
        self, epoch: int, branches: list[Branch], validation: Measurement
    ) -> tuple[list[Branch], AuditRecord | None]:
        """Train losers of the last Pre-train to the end of the epoch, from their end states; the model stays."""
        audit, chosen = self.settings.audit, next(branch for branch in branches if branch.state == "chosen")
        losers = [branch for branch in branches if branch.state == "lost" and branch.retry == chosen.retry]
        # when alpha is the whole epoch, its end has been seen
        if audit is None or not self._beta or (epoch - self.warmup_epochs - 1) % audit.every or not losers:
            return branches, None
        self.trainer.state.save(self._start)  # nobody needs the epoch's start any more
        draw = np.random.default_rng(derived_seed(self.spec.seed, epoch))
        drawn = sorted(draw.choice(len(losers), size=min(audit.branches, len(losers)), replace=False).tolist())
        ended, samples = [replace(chosen, end_metric=self._metric(validation))], 0
        for loser in (losers[index] for index in drawn):
            self._adopt(loser)
            main = self._main_train(epoch, loser.learning_rate)
            end = self._judge(self.world, accuracy=self._by_accuracy)
            ended.append(replace(loser, end_metric=self._metric(end)))
            samples += main.samples
        self.trainer.state.load(self._start)
        by_number = {branch.number: branch for branch in ended}
        return [by_number.get(branch.number, branch) for branch in branches], _audit_record(
            [branch.result.metric for branch in ended],
            [branch.end_metric or 0.0 for branch in ended],
            maximize=self.settings.metric != "val_loss",
            samples=samples,
        )

    # --- the record --------------------------------------------------------------------------------------

    def _evaluated(self, branches: Sequence[Branch], undone: int, audit: AuditRecord | None) -> int:
        """Validation samples that branches, undone Main-trains and the audit took."""
        judged = 0 if self.settings.metric == "train_accuracy" else len(branches)
        looked_at = judged if self._start_loss is not None else 0  # whether they are dead
        by_metric = (judged + (audit.branches if audit else 0)) * self._judging_samples(accuracy=self._by_accuracy)
        others = looked_at * self._judging_samples(accuracy=False) + undone * self._judging_samples(accuracy=True)
        return by_metric + others

    def _judging_samples(self, *, accuracy: bool) -> int:
        return self.trainer.evaluation_samples(self.trainer.data.validation, accuracy=accuracy)

    def _branch_records(self, branches: Sequence[Branch]) -> list[BranchRecord]:
        return [
            BranchRecord(
                number=branch.number,
                retry=branch.retry,
                learning_rate=branch.learning_rate,
                metric=finite(branch.result.metric),
                end_metric=finite(branch.end_metric),
                state=branch.state,
                iterations=self._alpha,
                samples=branch.training.samples,
                seconds=branch.seconds,
            )
            for branch in branches
        ]


def build(method: StptMethod, trial: int, spec: JobSpec, data: Data, workers: Workers) -> Training:
    """Trial number `trial`, from 1: the model as the seed of `spec` makes it, before its first step."""
    changes = {
        "optimizer": scaled_optimizer(method.scaling, spec),
        "initial_learning_rate": method.first_learning_rate(spec),
    }
    spec = spec.model_copy(update=changes)
    plan = method.epoch_plan(iterations_per_epoch(spec, len(data.train)))
    return Stpt(method, Trainer(spec, data, workers, iterations=plan.iterations), trial)


def _audit_record(at_alpha: Sequence[float], at_end: Sequence[float], *, maximize: bool, samples: int) -> AuditRecord:
    """Of the chosen branch, which comes first, and the audited ones."""
    from scipy.stats import spearmanr  # type: ignore[import-untyped]  # a second to import, and only used here

    pairs = [(early, late) for early, late in zip(at_alpha, at_end, strict=True) if math.isfinite(late)]
    gains = [late - at_end[0] if maximize else at_end[0] - late for _, late in pairs]
    told = len({early for early, _ in pairs}) > 1 and len({late for _, late in pairs}) > 1
    return AuditRecord(
        branches=len(at_end) - 1,
        samples=samples,
        regret=max(gains),
        rank_correlation=float(spearmanr(*zip(*pairs, strict=True)).statistic) if told else None,
    )
