"""The race before the first epoch behind the warm-up: looks at learning rates, longer and fewer round by round.

What is tried is decided by service.algorithms.race, how long it takes is planned by service.spec.race. Every look
trains from the epoch's start at its learning rate as it is, without lr_schedule, over as many passes as it takes.
"""

from collections.abc import Callable, Sequence

from torch import Tensor

from service.algorithms import race
from service.algorithms.selectors import Decision
from service.spec.race import PROBES, RacePlan
from workers.engine.state import Average
from workers.engine.trainer import Measurement, Trainer
from workers.methods.branches import Branch, Branches, End, Placement

Judge = Callable[[Measurement, Placement, Tensor, int], End]  # of a branch that has trained so many iterations
Select = Callable[[Sequence[Branch]], Decision]


class Race:
    """A race by the branches of an epoch, under way: every worker runs it, and they stay in step."""

    def __init__(
        self,
        plan: RacePlan,
        trainer: Trainer,
        branches: Branches,
        average: Average | None,
        *,
        judge: Judge,
        select: Select,
        maximize: bool,
        largest: float,
    ) -> None:
        """`judge` says what a look has come to, `select` which of several is best, `maximize` whether a larger metric
        is better; `largest` is the highest learning rate that may be tried."""
        self._plan, self._trainer, self._branches, self._average = plan, trainer, branches, average
        self._judge, self._select, self._largest = judge, select, largest
        self._sign = -1 if maximize else 1
        self._optimizer = trainer.spec.optimizer.name

    def run(self, first: Sequence[float]) -> list[Branch]:
        """Race from the learning rates `first`, and return the finalists; all others are eliminated."""
        wide = self._wide(first)
        window = race.window(self._best(wide).learning_rate, self._optimizer, self._largest)
        middle = self._look(window, self._plan.middle)
        final = self._final(middle)
        for branch in (*wide, *middle):
            if branch.state == "lost":
                self._branches.mark(branch, "eliminated")
        return final

    def _wide(self, first: Sequence[float]) -> list[Branch]:
        looks = self._look(first, self._plan.wide)
        for _ in range(PROBES):
            tried = [look.learning_rate for look in looks]
            beside = race.probe(tried, self._best(looks).learning_rate, self._largest)
            looks += self._look([beside], self._plan.wide)
        return looks

    def _final(self, middle: Sequence[Branch]) -> list[Branch]:
        """Let the finalists go on from where the looks of the middle round ended."""
        losses = [self._sign * look.result.metric for look in middle]
        two = [middle[place] for place in race.finalists(losses, middle.index(self._best(middle)), self._optimizer)]
        return self._train([look.learning_rate for look in two], range(self._plan.middle, self._plan.final), two)

    def _best(self, looks: Sequence[Branch]) -> Branch:
        """The best of the looks; where all have diverged, that at the smallest learning rate."""
        number = self._select(looks).chosen
        if number is None:
            return min(looks, key=lambda look: look.learning_rate)
        return next(look for look in looks if look.number == number)

    def _look(self, learning_rates: Sequence[float], iterations: int) -> list[Branch]:
        self._branches.forget()
        return self._train(learning_rates, range(iterations))

    def _train(self, learning_rates: Sequence[float], iterations: range, behind: Sequence[Branch] = ()) -> list[Branch]:
        def train_look(learning_rate: float, placement: Placement, end: Tensor) -> End:
            training = self._passes(iterations, learning_rate, placement)
            return self._judge(training, placement, end, len(iterations))

        return self._branches.train(learning_rates, train_look, behind)

    def _passes(self, iterations: range, learning_rate: float, placement: Placement) -> Measurement:
        """Train `iterations`, counted from the untrained net, pass after pass over the data; the mean of the weights is
        that of the last half of all iterations up to the last of these."""
        if self._average is not None:
            self._average.clear()
        length, half = self._trainer.iterations, iterations.stop // 2
        total, done = Measurement(0.0, 0.0, 0), iterations.start
        while done < iterations.stop:
            number, first = divmod(done, length)
            part = range(first, min(length, first + iterations.stop - done))
            total += self._trainer.train(
                number + 1,
                part,
                [learning_rate] * len(part),
                placement.group,
                placement.microbatches,
                self._average,
                half - number * length,
            )
            done += len(part)
        return total
