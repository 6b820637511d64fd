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
Gain = Callable[[Branch], float]  # how much better than the start, in the metric


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
        gain: Gain,
        largest: float,
    ) -> None:
        """`judge` says what a look has come to, `select` which of several is best, `gain` how much one has learned;
        `largest` is the highest learning rate that may be tried."""
        self._plan, self._trainer, self._branches, self._average = plan, trainer, branches, average
        self._judge, self._select, self._gain, self._largest = judge, select, gain, largest
        self._optimizer = trainer.spec.optimizer.name

    def run(self, first: Sequence[float]) -> list[tuple[Branch, float]]:
        """Race from the learning rates `first`. Returns what to train by, in the order in which to try it: a finalist,
        and the learning rate that it stands for. All other looks are eliminated."""
        wide = self._wide(first)
        best = self._best(wide).learning_rate
        middle = self._look(race.window(best, self._optimizer, self._largest), self._plan.middle)
        # where the wide round has seen nothing too large there is no bias to correct
        biased = race.falls(self._optimizer) and best < max(look.learning_rate for look in wide)
        final = self._final(middle, biased=biased)
        for branch in (*wide, *middle):
            if branch.state == "lost":
                self._branches.mark(branch, "eliminated")
        return self._ways_to_train(final, biased=biased)

    def _ways_to_train(self, final: Sequence[Branch], *, biased: bool) -> list[tuple[Branch, float]]:
        """By the best finalist, then by the lower one; none where both diverged. Where looks are biased, first between
        them, where the best stands for both; by the lower one alone where neither has left the plateau."""
        trained = [look for look in final if not look.result.diverged]
        if not trained:
            return []
        best, lower = self._best(trained), min(trained, key=lambda look: look.learning_rate)
        first, last = (best, best.learning_rate), (lower, lower.learning_rate)
        if biased:
            if best.early:
                return [last]
            between = race.between([(look.learning_rate, self._gain(look)) for look in trained if not look.dead])
            first = (best, best.learning_rate if between is None else between)
        return [first] if first == last else [first, last]

    def _wide(self, first: Sequence[float]) -> list[Branch]:
        looks = self._look(first, self._plan.wide)
        for _ in range(PROBES):
            tried = [look.learning_rate for look in looks]
            beside = race.probe(tried, self._best(looks).learning_rate, self._largest)
            looks += self._look([beside], self._plan.wide)
        return looks

    def _final(self, middle: Sequence[Branch], *, biased: bool) -> list[Branch]:
        """Let the finalists go on from where the looks of the middle round ended."""
        losses, best = [-self._gain(look) for look in middle], self._best(middle)
        places = race.finalists(losses, middle.index(best), self._optimizer, early=best.early and biased)
        two = [middle[place] for place in places]
        return self._train([look.learning_rate for look in two], range(self._plan.middle, self._plan.final), two)

    def _best(self, looks: Sequence[Branch]) -> Branch:
        """The best of the looks that have learned something. Where none has, it is too early for their losses to tell
        more than which steps do harm, and it is the largest that did none; where all did, the smallest."""
        if learned := [look for look in looks if not look.dead and not look.result.diverged]:
            number = self._select(learned).chosen
            return next(look for look in learned if look.number == number)
        unharmed = [look for look in looks if not look.harmed and not look.result.diverged]
        if unharmed:
            return max(unharmed, key=lambda look: look.learning_rate)
        return min(looks, key=lambda look: look.learning_rate)

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
