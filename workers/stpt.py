"""Short-term pre-training (S1, Algorithm 1): each epoch pre-train every candidate, select one, main-train with it."""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from service.errors import Diverged
from service.lr_sets import candidates
from service.records import BranchRecord, EpochRecord
from service.selector import MAXIMIZE, SELECTORS, BranchResult
from workers.checkpoint import Position
from workers.groups import Group
from workers.train import Measurement, Trainer


@dataclass(frozen=True)
class Branch:
    """One candidate after its alpha iterations, as every worker knows it once results are gathered."""

    result: BranchResult
    training: Measurement
    seconds: float


@dataclass(frozen=True)
class Placement:
    """Where branches run: branch i in group i mod `groups`; `group` is this worker's."""

    groups: int
    group: Group
    microbatches: int  # that an iteration of a branch takes, of the n in a global batch


class Stpt:
    """One STPT training. Every worker of the world runs one of these and they stay in step."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer, self.spec, self.world = trainer, trainer.spec, trainer.workers.world
        self.position = Position(learning_rate=trainer.spec.initial_learning_rate)
        self._start = trainer.state.empty()
        self._ends: list[Tensor] = []  # end states of this worker's branches; buffers are used again every epoch

    def epochs(self) -> Iterator[EpochRecord]:
        """Train from the position to the end; each epoch's record, the same on every worker. Raises Diverged."""
        for epoch in range(self.position.epochs + 1, self.spec.epochs + 1):
            if epoch <= self.spec.warmup_epochs:
                record, current = self.warmup_epoch(epoch), self.position.learning_rate
            else:
                record = self.stpt_epoch(epoch)
                current = record.learning_rate
            self.position = Position(epochs=epoch, learning_rate=current)
            yield record

    def warmup_epoch(self, epoch: int) -> EpochRecord:
        """As many iterations as any epoch, at the warm-up learning rate, without Pre-train."""
        began = time.perf_counter()
        plan, learning_rate = self.trainer.plan, self.spec.warmup.learning_rate
        iterations = range(plan.pretrain_iterations + plan.main_train_iterations)
        training = self._main_train(epoch, iterations, learning_rate)
        trained = time.perf_counter()
        return self._record(
            epoch,
            phase="warmup",
            learning_rate=learning_rate,
            training=training,
            main_iterations=len(iterations),
            main_samples=training.samples,
            times=(began, began, trained),
        )

    def stpt_epoch(self, epoch: int) -> EpochRecord:
        began = time.perf_counter()
        plan, state, current = self.trainer.plan, self.trainer.state, self.position.learning_rate
        state.save(self._start)
        lr_set = candidates(self.spec.lr_set, epoch=epoch, epochs=self.spec.epochs, current=current)
        records: list[BranchRecord] = []
        for retry in range(self.spec.pretrain.max_retries + 1):
            learning_rates = [candidate / 10**retry for candidate in lr_set]
            placement = self._placement(len(learning_rates))
            branches = self._pretrain(epoch, learning_rates, placement)
            results = [branch.result for branch in branches]
            chosen = SELECTORS[self.spec.selector](results, current, MAXIMIZE[self.spec.metric])
            records += self._branch_records(branches, chosen, retry, len(records))
            if chosen is not None:
                break
            state.load(self._start)
        else:
            raise Diverged(
                f"epoch {epoch}: every branch diverged, down to learning rate {min(learning_rates):g} "
                f"({self.spec.pretrain.max_retries} retries); choose smaller learning rates"
            )
        self._adopt(chosen, placement)
        learning_rate = learning_rates[chosen]
        pretrained = time.perf_counter()
        main = self._main_train(
            epoch,
            range(plan.pretrain_iterations, plan.pretrain_iterations + plan.main_train_iterations),
            learning_rate,
        )
        trained = time.perf_counter()
        return self._record(
            epoch,
            phase="stpt",
            learning_rate=learning_rate,
            training=branches[chosen].training + main,
            main_iterations=plan.main_train_iterations,
            main_samples=main.samples,
            times=(began, pretrained, trained),
            branches=records,
        )

    # --- Pre-train -----------------------------------------------------------------------------------

    def _placement(self, branches: int) -> Placement:
        workers = self.trainer.workers
        if self.spec.pretrain.placement == "sequential":  # S1, Algorithm 1
            return Placement(1, workers.world, workers.size)
        groups = min(branches, workers.size)  # S1, Fig. 1
        # per_worker: as many shares as the smallest group has workers, so that all branches see the same samples
        shares = workers.size if self.spec.pretrain.batch == "global" else workers.size // groups
        return Placement(groups, workers.split(groups), shares)

    def _pretrain(self, epoch: int, learning_rates: Sequence[float], placement: Placement) -> list[Branch]:
        """alpha iterations of every branch from the start state; the results of all branches."""
        device, state = self.trainer.workers.device, self.trainer.state
        group = placement.group
        mine = range(group.number, len(learning_rates), placement.groups)
        while len(self._ends) < len(mine):
            self._ends.append(state.empty())
        # [branch, (metric, seconds, loss sum, correct, samples)]: each group's first worker fills in its branches
        table = torch.zeros(len(learning_rates), 5, dtype=torch.float64)
        for slot, number in enumerate(mine):
            began = time.perf_counter()
            state.load(self._start)
            training, metric = self.train_branch(epoch, learning_rates[number], placement)
            state.save(self._ends[slot])
            if group.position == 0:
                seconds = time.perf_counter() - began
                values = [metric, seconds, training.loss_sum, training.correct, training.samples]
                table[number] = torch.tensor(values, dtype=torch.float64)
        rows = self.world.sum_(table.to(device)).tolist()
        return [
            Branch(
                BranchResult(number, learning_rates[number], metric),
                Measurement(loss_sum, correct, int(samples)),
                seconds,
            )
            for number, (metric, seconds, loss_sum, correct, samples) in enumerate(rows)
        ]

    def train_branch(self, epoch: int, learning_rate: float, placement: Placement) -> tuple[Measurement, float]:
        """One branch from the state at hand: its training, and its metric (NaN when anything was not finite)."""
        iterations = range(self.trainer.plan.pretrain_iterations)
        training = self.trainer.train(epoch, iterations, learning_rate, placement.group, placement.microbatches)
        if self.spec.metric == "train_accuracy":
            return training, training.accuracy if math.isfinite(training.loss) else math.nan
        validation = self.trainer.evaluate(self.trainer.data.validation, placement.group)
        if not (math.isfinite(training.loss) and math.isfinite(validation.loss)):
            return training, math.nan
        return training, validation.accuracy if self.spec.metric == "val_accuracy" else validation.loss

    def _adopt(self, chosen: int, placement: Placement) -> None:
        """The chosen branch's end state becomes everybody's, in one broadcast from the first worker of its group."""
        slot, source = divmod(chosen, placement.groups)  # the first worker of group k has world rank k
        buffer = self._ends[slot if placement.group.number == source else 0]
        if placement.groups > 1:
            self.world.broadcast_(buffer, source)
        self.trainer.state.load(buffer)

    # --- Main-train and the record -------------------------------------------------------------------

    def _main_train(self, epoch: int, iterations: range, learning_rate: float) -> Measurement:
        return self.trainer.train(epoch, iterations, learning_rate, self.world, self.world.size)

    def _branch_records(
        self, branches: Sequence[Branch], chosen: int | None, retry: int, earlier: int
    ) -> list[BranchRecord]:
        plan = self.trainer.plan
        return [
            BranchRecord(
                number=earlier + branch.result.number + 1,
                retry=retry,
                learning_rate=branch.result.learning_rate,
                metric=None if branch.result.diverged else branch.result.metric,
                state="diverged" if branch.result.diverged else "chosen" if branch.result.number == chosen else "lost",
                iterations=plan.pretrain_iterations,
                samples=branch.training.samples,
                seconds=branch.seconds,
            )
            for branch in branches
        ]

    def _record(
        self,
        epoch: int,
        *,
        phase: Literal["warmup", "stpt"],
        learning_rate: float,
        training: Measurement,
        main_iterations: int,
        main_samples: int,
        times: tuple[float, float, float],  # begun, pre-trained, main-trained
        branches: Sequence[BranchRecord] = (),
    ) -> EpochRecord:
        data = self.trainer.data
        validation = self.trainer.evaluate(data.validation, self.world)
        if not (math.isfinite(training.loss) and math.isfinite(validation.loss)):  # the latter: after the last step
            where, advice = (
                ("in the warm-up", "a smaller warmup.learning_rate")
                if phase == "warmup"
                else ("after Pre-train", "smaller learning rates or a longer Pre-train")
            )
            raise Diverged(
                f"epoch {epoch}: the loss became non-finite at learning rate {learning_rate:g} {where}; choose {advice}"
            )
        test = self.trainer.evaluate(data.test, self.world)
        judged = 0 if self.spec.metric == "train_accuracy" else len(branches) * len(data.validation)
        begun, pretrained, trained = times
        return EpochRecord(
            epoch=epoch,
            phase=phase,
            learning_rate=learning_rate,
            train_loss=training.loss,
            val_loss=validation.loss,
            val_accuracy=validation.accuracy,
            test_accuracy=test.accuracy,
            retries=branches[-1].retry if branches else 0,
            iterations=main_iterations + sum(branch.iterations for branch in branches),
            samples=main_samples + sum(branch.samples for branch in branches),
            evaluation_samples=judged + validation.samples + test.samples,
            seconds=time.perf_counter() - begun,
            pretrain_seconds=pretrained - begun,
            main_train_seconds=trained - pretrained,
            branches=list(branches),
        )
