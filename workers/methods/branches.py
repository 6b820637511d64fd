"""The branches of one Pre-train on the workers of a training: where each one runs, and where its end state is.

There are two placements (STPT, Yamada et al.). `sequential` (Algorithm 1) trains one branch after another, each on all
workers. `split` (Fig. 1) has the workers fall into groups that train different branches side by side. Both train the
same branches on the same samples, and gather the results so that every worker knows them all; they differ in time, and
in which workers have a branch's end state afterwards.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from service.algorithms.selectors import BranchResult
from service.spec.stpt import Pretrain
from service.wire.worker import BranchRecord, BranchState
from workers.engine.groups import Group, Workers
from workers.engine.trainer import Measurement, Trainer
from workers.methods.base import finite

# --- where they run --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Placement:
    """Where the branches of a Pre-train run: branch i, counted from 0, in group i mod `groups`. `group` is this
    worker's."""

    groups: int
    group: Group
    microbatches: int  # that an iteration of a branch takes, of the n in a global batch

    def mine(self, branches: int) -> range:
        """The places of the branches that this worker trains, of `branches` in all, from 0."""
        return range(self.group.number, branches, self.groups)


def sequential(workers: Workers) -> Placement:
    """The placement of every branch on all workers, with the global batch."""
    return Placement(1, workers.world, workers.size)


def split(workers: Workers, branches: int, *, per_worker: bool) -> Placement:
    """The placement of branches on as many groups as there are branches, or workers where they are fewer.

    A branch takes the global batch; with `per_worker` one worker's share of it for each of its workers, of as many as
    the smallest group has, so that all branches see the same samples.
    """
    groups = min(branches, workers.size)
    return Placement(groups, workers.split(groups), workers.size // groups if per_worker else workers.size)


def placed(workers: Workers, branches: int, settings: Pretrain) -> Placement:
    """The placement of so many branches on these workers that the settings of Pre-train ask for."""
    if settings.placement == "sequential":
        return sequential(workers)
    return split(workers, branches, per_worker=settings.batch == "per_worker")


# --- what becomes of them --------------------------------------------------------------------------------


class End(NamedTuple):
    """The result of one branch after its iterations, on the workers that trained it."""

    training: Measurement
    iterations: int
    metric: float  # NaN when it diverged
    dead: bool = False  # its last weights have learned nothing
    harmed: bool = False  # or are worse than those of the start
    early: bool = False  # the weights that it is judged by have not left the initial plateau


TrainBranch = Callable[[float, Placement, Tensor], End]  # at a learning rate, in a placement, its end state to a buffer


class Row(NamedTuple):
    """The result of one branch as the numbers that workers send each other."""

    metric: float
    dead: float
    harmed: float
    early: float
    seconds: float
    iterations: float
    loss_sum: float
    correct: float
    samples: float


@dataclass(frozen=True)
class Branch:
    """One candidate after its alpha iterations, as every worker knows it once results are gathered."""

    result: BranchResult
    retry: int
    iterations: int  # that it has trained
    training: Measurement
    seconds: float
    place: int  # among the candidates of its Pre-train, from 0
    groups: int  # of its placement; 1: every worker has its end state
    slot: int  # which of the end states of a worker that has it
    dead: bool = False
    harmed: bool = False
    early: bool = False
    state: BranchState = "lost"
    end_metric: float | None = None  # at the end of the epoch, where it was trained that far

    @property
    def number(self) -> int:
        """Number of the branch in its epoch, from 1."""
        return self.result.number

    @property
    def learning_rate(self) -> float:
        """The learning rate that the branch has tried, before the job's lr_schedule."""
        return self.result.learning_rate

    @property
    def source(self) -> int:
        """World rank of a worker that has the branch's end state: the first of its group."""
        return self.place % self.groups

    def record(self) -> BranchRecord:
        """The record of the branch."""
        return BranchRecord(
            number=self.number,
            retry=self.retry,
            learning_rate=self.learning_rate,
            metric=finite(self.result.metric),
            end_metric=finite(self.end_metric),
            state=self.state,
            iterations=self.iterations,
            samples=self.training.samples,
            seconds=self.seconds,
        )


# --- running them ----------------------------------------------------------------------------------------


class Branches:
    """All branches of an epoch, retries and extensions included. Every worker calls the same methods in the same order.

    `all` has the branches in the order of their numbers, which count from 1. The buffers of end states are used again
    in every epoch.
    """

    def __init__(self, trainer: Trainer, settings: Pretrain) -> None:
        self.all: list[Branch] = []
        self._trainer, self._workers, self._world = trainer, trainer.workers, trainer.workers.world
        self._settings = settings
        self._start, self._received = trainer.state.empty(), trainer.state.empty()
        self._ends: list[Tensor] = []  # of this worker's branches, by their slots
        self._slots = 0  # in use on the worker that has most
        self._retry = 0

    def begin(self) -> None:
        """Begin a new epoch, whose branches start from the training's state at hand."""
        self._trainer.state.save(self._start)
        self.all, self._slots, self._retry = [], 0, 0

    def forget(self) -> None:
        """Give up the end states so far, for their room."""
        self._slots = 0

    def restart(self) -> None:
        """Make the epoch's start everybody's state again."""
        self._trainer.state.load(self._start)

    def begin_again(self) -> None:
        """Begin a retry from the epoch's start, which is everybody's state again; end states so far are given up."""
        self.restart()
        self.forget()
        self._retry += 1

    def train(
        self, learning_rates: Sequence[float], train_branch: TrainBranch, behind: Sequence[Branch] = ()
    ) -> list[Branch]:
        """Train a branch at each of the learning rates from the epoch's start, or each from where one of `behind`, in
        the same order, has ended. Returns these branches once all results are there."""
        starts = [self._end_of(branch) for branch in behind] or [self._start] * len(learning_rates)
        placement = placed(self._workers, len(learning_rates), self._settings)
        first_slot = self._slots
        self._make_room(first_slot, len(placement.mine(len(learning_rates))))
        mine = self._train_mine(learning_rates, starts, placement, train_branch)
        rows = self._gather(mine, len(learning_rates))
        earlier = len(self.all)
        new = [
            Branch(
                result=BranchResult(earlier + place + 1, learning_rate, row.metric),
                retry=self._retry,
                iterations=int(row.iterations),
                training=Measurement(row.loss_sum, row.correct, int(row.samples)),
                seconds=row.seconds,
                place=place,
                groups=placement.groups,
                slot=first_slot + place // placement.groups,
                dead=bool(row.dead),
                harmed=bool(row.harmed),
                early=bool(row.early),
                state="lost" if math.isfinite(row.metric) else "diverged",
            )
            for place, (learning_rate, row) in enumerate(zip(learning_rates, rows, strict=True))
        ]
        self.all += new
        self._slots = new[-1].slot + 1
        return new

    def adopt(self, branch: Branch) -> None:
        """Make the end state of the branch everybody's state, in one broadcast from the first worker of its group."""
        self._trainer.state.load(self._end_of(branch, self._received))

    def _end_of(self, branch: Branch, received: Tensor | None = None) -> Tensor:
        """The end state of the branch on every worker: in the buffer where it is, or received in `received`, or in a
        new one."""
        if branch.groups == 1 or self._workers.rank == branch.source:
            buffer = self._ends[branch.slot]
        else:
            buffer = self._trainer.state.empty() if received is None else received
        if branch.groups > 1:
            self._world.broadcast_(buffer, branch.source)
        return buffer

    def put(self, branch: Branch) -> None:
        """Put `branch` in the place of the one with its number."""
        self.all[branch.number - 1] = branch

    def mark(self, branch: Branch, state: BranchState) -> None:
        """Set the state of a branch."""
        self.put(replace(branch, state=state))

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Restore the training's state on leaving, as it was on entering. The epoch's start is given up for it."""
        self._trainer.state.save(self._start)
        yield
        self._trainer.state.load(self._start)

    def _make_room(self, first_slot: int, branches: int) -> None:
        """Keep as many buffers as this worker needs: those of end states that stay, and one for each of so many new
        branches."""
        needed = first_slot + branches
        while len(self._ends) < needed:
            self._ends.append(self._trainer.state.empty())
        del self._ends[needed:]

    def _train_mine(
        self,
        learning_rates: Sequence[float],
        starts: Sequence[Tensor],  # the state that each begins with
        placement: Placement,
        train_branch: TrainBranch,
    ) -> dict[int, Row]:
        """Train this worker's branches, one after another. Returns their results by their places, on the first worker
        of each group alone."""
        rows = {}
        for slot, place in enumerate(placement.mine(len(learning_rates)), start=self._slots):
            began = time.perf_counter()
            self._trainer.state.load(starts[place])
            end = train_branch(learning_rates[place], placement, self._ends[slot])
            if placement.group.position == 0:
                seconds, training = time.perf_counter() - began, end.training
                rows[place] = Row(
                    metric=end.metric,
                    dead=end.dead,
                    harmed=end.harmed,
                    early=end.early,
                    seconds=seconds,
                    iterations=end.iterations,
                    loss_sum=training.loss_sum,
                    correct=training.correct,
                    samples=training.samples,
                )
        return rows

    def _gather(self, mine: dict[int, Row], branches: int) -> list[Row]:
        """The results of all branches, in the order of their places, from those that each worker has."""
        table = torch.zeros(branches, len(Row._fields), dtype=torch.float64)
        for place, row in mine.items():
            table[place] = torch.tensor(row, dtype=torch.float64)
        return [Row(*values) for values in self._world.sum_(table.to(self._workers.device)).tolist()]
