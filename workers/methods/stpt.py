"""Short-term pre-training (STPT, Yamada et al., Algorithm 1): each epoch train every candidate for a few iterations,
select one, and train on with it.

`Stpt.stpt_epoch` is the epoch from top to bottom. Where branches run is in workers.methods.branches, what saves a
training from a bad choice in workers.methods.guards, how choices are judged afterwards in workers.methods.audit.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from torch import Tensor

from service.algorithms.candidates import epoch_candidates
from service.algorithms.epoch_plan import samples_per_epoch
from service.algorithms.lr_schedules import scaled_optimizer
from service.algorithms.selectors import MAXIMIZE, Decision, select
from service.errors import Diverged
from service.spec.job import JobSpec
from service.spec.lr_set import RaceLrSet, StagedLrSet
from service.spec.methods.stpt import StptMethod
from service.spec.race import RacePlan
from service.wire.worker import AuditRecord
from workers.build import build_trainer
from workers.datasets.load import Data
from workers.engine.groups import Group, Workers
from workers.engine.state import Average
from workers.engine.trainer import Measurement, Trainer
from workers.methods import audit, guards
from workers.methods.base import TrainedEpoch, Training
from workers.methods.branches import Branch, Branches, End, Placement
from workers.methods.race import Race
from workers.methods.stpt_epoch import Epoch, MainTrained, Start


class Stpt(Training):
    """One training by short-term pre-training (Yamada et al., Algorithm 1), under the job's guards."""

    def __init__(self, settings: StptMethod, trainer: Trainer, trial: int = 1) -> None:
        super().__init__(trainer, trial)
        self.settings, self.label = settings, settings.label
        self.warmup_epochs = settings.warmup_epochs(self.spec.epochs)
        self.branches = Branches(trainer, settings.pretrain)
        self._maximize = MAXIMIZE[settings.metric]
        self._by_accuracy = settings.metric == "val_accuracy"
        self._average = Average(trainer.model) if settings.pretrain.weights == "averaged" else None
        epoch_samples = samples_per_epoch(self.spec, len(trainer.data.train))
        shares = settings.training_shares(self.spec, epoch_samples)
        self.plan = settings.training_plan(self.spec, epoch_samples, shares)
        assert self.plan.iterations == trainer.iterations
        self._race_plan = shares.race

    @property
    def rescales_momentum(self) -> bool:
        return self.settings.guards.rescale_momentum

    def train_epoch(self, epoch: int) -> TrainedEpoch:
        if epoch <= self.warmup_epochs:
            return self.warmup_epoch(epoch)
        if self._race_plan is not None and epoch == self.warmup_epochs + 1:
            return self.raced_epoch(epoch, self._race_plan)
        return self.stpt_epoch(epoch)

    def warmup_epoch(self, epoch: int) -> TrainedEpoch:
        """Train an epoch of the warm-up: as many iterations as any epoch, at the warm-up learning rate, without
        Pre-train."""
        learning_rate = self.settings.warmup.learning_rate
        return self.plain_epoch(epoch, "warmup", learning_rate, [learning_rate] * self.trainer.iterations)

    def stpt_epoch(self, number: int) -> TrainedEpoch:
        """Train an epoch: Pre-train every candidate, select one, go on from its end state, judge what that came to.

        Where the Main-train must be undone, the best of the branches with smaller learning rates is next, and when none
        is left all candidates again at smaller learning rates. Raises Diverged when nothing of that helps.
        """
        epoch = self._begin(number)
        retries = self.settings.pretrain.max_retries
        for retry in range(retries + 1):
            competing = self._pretrain(epoch, epoch.learning_rates(retry))
            while (decision := self._select(competing)).chosen is not None:
                chosen = self.branches.all[decision.chosen - 1]
                main = self._main_train(epoch, chosen, chosen.learning_rate)
                if not self._failed(epoch, main):
                    return self._finish(epoch, chosen, main, decision)
                competing = self._roll_back(epoch, chosen, main, competing)
            self.branches.begin_again()
        raise Diverged(
            f"epoch {number}: every branch diverged, down to learning rate {min(epoch.learning_rates(retries)):g} "
            f"({retries} retries); choose smaller learning rates"
        )

    def raced_epoch(self, number: int, plan: RacePlan) -> TrainedEpoch:
        """Race, then train the epoch from its start at the learning rate that the race came to; where that must be
        undone, at the smaller one of its finalists. Raises Diverged when neither can be trained by."""
        epoch = self._begin(number, begins_anew=True)
        race = Race(
            plan,
            self.trainer,
            self.branches,
            self._average,
            judge=partial(self._judged, epoch),
            select=self._select,
            gain=partial(self._gain, epoch.start),
            largest=self._largest(),
        )
        for chosen, learning_rate in race.run(epoch.candidates):
            main = self._main_train(epoch, chosen, learning_rate)
            if not self._failed(epoch, main):
                return self._finish(epoch, chosen, main, Decision(chosen.number))
            self._undo(epoch, chosen, main)
        tried = [branch.learning_rate for branch in self.branches.all]
        raise Diverged(
            f"epoch {number}: no learning rate of the race can be trained by; it tried {min(tried):g} to "
            f"{max(tried):g}; choose a smaller initial_learning_rate"
        )

    def _begin(self, number: int, *, begins_anew: bool = False) -> Epoch:
        began = time.perf_counter()
        alpha = 0 if begins_anew else self.settings.pretrain_iterations(self.spec, self.plan, number)
        self.trainer.kept = self.trainer.iterations if begins_anew else alpha
        self.branches.begin()
        return Epoch(
            number=number,
            alpha=alpha,
            beta=self.plan.iterations - alpha,
            start=self._start(number, raced=begins_anew),
            candidates=self._candidates(number, raced=begins_anew),
            began=began,
            begins_anew=begins_anew,
        )

    def _candidates(self, number: int, *, raced: bool) -> Sequence[float]:
        current = self.position.learning_rate
        if self.settings.races(self.spec) and not raced:  # behind the race, or without room for one
            return [min(current, self._largest())]
        return epoch_candidates(self.spec, self.settings, epoch=number, current=current)

    # --- Pre-train -----------------------------------------------------------------------------------

    def _pretrain(self, epoch: Epoch, learning_rates: Sequence[float]) -> list[Branch]:
        """Train a branch for each candidate, and further ones that the results call for. Returns all branches that
        compete."""
        train_branch = partial(self.train_branch, epoch)
        competing = self.branches.train(learning_rates, train_branch)
        if not epoch.searches:
            return competing
        for _ in range(self.settings.most_extensions(self.spec)):
            if (beyond := self._beyond_an_end(competing)) is None:
                break
            competing += self.branches.train([beyond], train_branch)
        if self.settings.guards.extend and not self._improves(competing, epoch.start):
            competing += self.branches.train(guards.extended(learning_rates), train_branch)
        return competing

    def train_branch(self, epoch: Epoch, learning_rate: float, placement: Placement, end: Tensor) -> End:
        """Train one branch of alpha iterations from the state at hand, save the state that it ends in to the buffer
        `end`, and return its result."""
        rates = self._rates(epoch, learning_rate)[: epoch.alpha]
        self.ease_momentum(rates[0])
        if self._average is not None:
            self._average.clear()
        training = self.trainer.train(
            epoch.number,
            range(epoch.alpha),
            rates,
            placement.group,
            placement.microbatches,
            self._average,
            epoch.alpha // 2,
        )
        return self._judged(epoch, training, placement, end, epoch.alpha)

    def _judged(self, epoch: Epoch, training: Measurement, placement: Placement, end: Tensor, iterations: int) -> End:
        """Save the state that a branch ends in to the buffer `end`, and judge it."""
        self.trainer.state.save(end)
        if self.settings.metric == "train_accuracy":
            metric = training.accuracy if training.is_finite else math.nan
            return End(training, iterations, metric)
        dead = harmed = False
        if (untrained := epoch.start.untrained_loss) is not None:
            self._estimate_statistics(epoch.number, placement.group, raced=epoch.begins_anew)
            loss = self._judge(placement.group, accuracy=False).loss
            dead, harmed = guards.is_dead(loss, untrained), guards.is_harmed(loss, untrained)
        if self._average is not None:
            self._average.load()
            self.trainer.share_buffers(placement.group)
        self._estimate_statistics(epoch.number, placement.group, raced=epoch.begins_anew)
        validation = self._judge(placement.group, accuracy=self._by_accuracy)
        metric = self._metric(validation) if training.is_finite else math.nan
        early = untrained is not None and guards.is_early(validation.loss, untrained)
        return End(training, iterations, metric, dead, harmed, early)

    def _largest(self) -> float:
        lr_set = self.settings.candidates_of(self.spec)
        assert isinstance(lr_set, RaceLrSet)
        return lr_set.max_learning_rate

    def _beyond_an_end(self, competing: Sequence[Branch]) -> float | None:
        """The next candidate to try, where the best of a stage is its largest or its smallest; None where there is
        none."""
        lr_set, chosen = self.settings.candidates_of(self.spec), self._select(competing).chosen
        if chosen is None or not isinstance(lr_set, StagedLrSet):  # all diverged: that calls for a retry
            return None
        best = self.branches.all[chosen - 1].learning_rate
        return guards.one_beyond(best, [branch.learning_rate for branch in competing], lr_set.max_learning_rate)

    def _improves(self, competing: Sequence[Branch], start: Start) -> bool:
        return guards.improves([branch.result for branch in competing], start.metric, maximize=self._maximize)

    # --- select, Main-train, judge ---------------------------------------------------------------------

    def _select(self, competing: Sequence[Branch]) -> Decision:
        """The decision of the job's selector among the branches that have learned something, or among all where none
        has."""
        living = [branch for branch in competing if not branch.dead] or competing
        return select(
            self.settings.selector,
            [branch.result for branch in living],
            current_learning_rate=self.position.learning_rate,
            maximize=self._maximize,
            state=self.position.selector_state,
        )

    def _gain(self, start: Start, branch: Branch) -> float:
        """How much better than the epoch's start the branch is, in the metric; NaN where it diverged."""
        better = branch.result.metric - (start.metric or 0.0)
        return better if self._maximize else -better

    def _main_train(self, epoch: Epoch, branch: Branch, learning_rate: float) -> MainTrained:
        """Train beta iterations by all workers from the branch's end state, or behind a race from the epoch's start,
        and evaluate the result."""
        if epoch.begins_anew:
            self.branches.restart()
        else:
            self.branches.adopt(branch)
        began = time.perf_counter()
        training = self._train_rest(epoch, learning_rate)
        ended = time.perf_counter()
        return MainTrained(learning_rate, training, self._judge(self.world, accuracy=True), began, ended)

    def _train_rest(self, epoch: Epoch, learning_rate: float) -> Measurement:
        rates = self._rates(epoch, learning_rate)
        return self.main_train(epoch.number, range(epoch.alpha, len(rates)), rates[epoch.alpha :])

    def _failed(self, epoch: Epoch, main: MainTrained) -> bool:
        """Whether the Main-train must be undone. Raises Diverged where it must but the guards do not allow it."""
        trained = main.training.is_finite or not epoch.beta
        if not (trained and main.validation.is_finite):  # the latter: after the last step
            if not self.settings.guards.rollback:
                raise Diverged(
                    f"epoch {epoch.number}: the loss became non-finite at learning rate {main.learning_rate:g} after "
                    f"Pre-train; choose smaller learning rates or a longer Pre-train"
                )
            return True
        return guards.falls_too_far(self.settings.guards, main.validation, self.position.val_accuracies)

    def _roll_back(self, epoch: Epoch, chosen: Branch, main: MainTrained, competing: Sequence[Branch]) -> list[Branch]:
        """Note that a Main-train is undone, and return the branches that compete next: those of smaller learning rates
        than the one that failed."""
        self._undo(epoch, chosen, main)
        return [branch for branch in competing if branch.learning_rate < chosen.learning_rate]

    def _undo(self, epoch: Epoch, chosen: Branch, main: MainTrained) -> None:
        epoch.undone.append(main.training)
        self.branches.mark(chosen, "rolled_back")

    def _finish(self, epoch: Epoch, chosen: Branch, main: MainTrained, decision: Decision) -> TrainedEpoch:
        """The epoch as it is recorded, audited where that is due."""
        self.branches.mark(chosen, "chosen")
        audited = self._audit(epoch, chosen, main)
        branches = self.branches.all
        undone = len(epoch.undone)
        work = [*(branch.training for branch in branches), *epoch.undone, main.training]
        return TrainedEpoch(
            phase="stpt",
            learning_rate=main.learning_rate,
            applied=self._rates(epoch, main.learning_rate),
            training=main.training if epoch.begins_anew else chosen.training + main.training,
            validation=main.validation,
            began=epoch.began,
            pretrained=main.began,
            trained=main.ended,
            iterations=sum(branch.iterations for branch in branches) + (1 + undone) * epoch.beta,
            samples=sum(part.samples for part in work),
            branches=[branch.record() for branch in branches],
            rollbacks=undone,
            audit=audited,
            evaluation_samples=self._evaluated(epoch, audited),
            selector_state=dict(decision.state),
        )

    def _audit(self, epoch: Epoch, chosen: Branch, main: MainTrained) -> AuditRecord | None:
        """Train losers of the last Pre-train to the end of the epoch, from their end states; the model stays as it is.

        None where no audit is due, no branch has lost, or alpha is the whole epoch, whose end the branches have seen.
        """
        settings = self.settings.audit
        if (
            settings is None
            or epoch.begins_anew
            or not epoch.beta
            or not audit.is_due(settings, epoch.number, self.warmup_epochs + 1)
        ):
            return None
        losers = [branch for branch in self.branches.all if branch.state == "lost" and branch.retry == chosen.retry]
        if not losers:
            return None
        audited, samples = [], 0
        with self.branches.aside():
            for loser in audit.draw(losers, settings, seed=self.spec.seed, epoch=epoch.number):
                self.branches.adopt(loser)
                samples += self._train_rest(epoch, loser.learning_rate).samples
                end = self._judge(self.world, accuracy=self._by_accuracy)
                audited.append(replace(loser, end_metric=self._metric(end)))
        chosen = replace(chosen, state="chosen", end_metric=self._metric(main.validation))
        for branch in (chosen, *audited):
            self.branches.put(branch)
        return audit.audit_record(chosen, audited, maximize=self._maximize, samples=samples)

    # --- metrics, and what they cost ---------------------------------------------------------------------

    def _start(self, number: int, *, raced: bool) -> Start:
        """What guards, and a race, need to know of the state at hand when epoch `number` begins: from the record of the
        last one, or evaluated before the first."""
        settings, position = self.settings.guards, self.position
        if not (settings.extend or settings.skip_dead or raced) or self.settings.metric == "train_accuracy":
            return Start()
        if position.val_accuracies:
            metric = position.val_loss if self.settings.metric == "val_loss" else position.val_accuracies[-1]
            return Start(metric, untrained_loss=position.val_loss if raced else None)
        self._estimate_statistics(number, self.world, raced=raced)
        validation = self._judge(self.world, accuracy=self._by_accuracy)
        return Start(
            metric=self._metric(validation),
            untrained_loss=validation.loss if settings.skip_dead or raced else None,
            samples=self._judging_samples(accuracy=self._by_accuracy) + self._estimating_samples(raced=raced),
        )

    def _estimate_statistics(self, epoch: int, group: Group, *, raced: bool) -> None:
        """Estimate running statistics anew for the weights at hand where they are judged in a race: its looks have too
        few iterations for those of training."""
        if raced:
            self.trainer.estimate_statistics(epoch, group)

    def _judge(self, group: Group, *, accuracy: bool) -> Measurement:
        return self.trainer.evaluate(self.trainer.data.validation, group, accuracy=accuracy)

    def _judging_samples(self, *, accuracy: bool) -> int:
        return self.trainer.evaluation_samples(self.trainer.data.validation, accuracy=accuracy)

    def _estimating_samples(self, *, raced: bool) -> int:
        return self.trainer.estimating_samples if raced else 0

    def _metric(self, validation: Measurement) -> float:
        """The metric that branches are judged by, from a validation; NaN when its loss is not finite."""
        if not validation.is_finite:
            return math.nan
        return validation.loss if self.settings.metric == "val_loss" else validation.accuracy

    def _evaluated(self, epoch: Epoch, audited: AuditRecord | None) -> int:
        """How many samples the evaluations of the start, the branches, the undone Main-trains and the audit took, and
        the estimates of running statistics that a race makes before them."""
        judged = 0 if self.settings.metric == "train_accuracy" else len(self.branches.all)
        looked_at = judged if epoch.start.untrained_loss is not None else 0  # whether they are dead
        by_metric = judged + (audited.branches if audited else 0)
        return (
            epoch.start.samples
            + by_metric * self._judging_samples(accuracy=self._by_accuracy)
            + looked_at * self._judging_samples(accuracy=False)
            + (judged + looked_at) * self._estimating_samples(raced=epoch.begins_anew)
            + len(epoch.undone) * self._judging_samples(accuracy=True)
        )

    def _rates(self, epoch: Epoch, learning_rate: float) -> list[float]:
        """The learning rate of each iteration of the epoch, which is `learning_rate` under the job's lr_schedule."""
        factors = self.lr_factors(epoch.number, self.settings.warmup_share(self.spec))
        return [learning_rate * factor for factor in factors]


def build(method: StptMethod, trial: int, spec: JobSpec, data: Data, workers: Workers) -> Training:
    """Trial number `trial` (from 1) of the method: one training by short-term pre-training, its model as the seed of
    `spec` makes it, before its first step."""
    changes = {
        "optimizer": scaled_optimizer(method.scaling, spec),
        "initial_learning_rate": method.first_learning_rate(spec),
    }
    spec, method = spec.model_copy(update=changes), method.model_copy(update={"scaling": None})  # once is enough
    shares = method.training_shares(spec, samples_per_epoch(spec, len(data.train)))
    return Stpt(method, build_trainer(spec, data, workers, iterations=shares.iterations), trial)
