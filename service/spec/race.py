"""How long the looks of a race are, and how many iterations are left to train by: arithmetic alone, no learning rate.

A race is the search of stpt's default learning-rate set (service.algorithms.race has what it tries). All of it is
planned before the first step, so that a forecast is what will be spent.
"""

import math
from dataclasses import dataclass

PROBES = 2  # looks of the wide round behind its first ones
WINDOW = 4  # looks of the middle round
FINALISTS = 2
PARTS = 23  # of the search, behind the wide looks of one each: middle looks of three, the rest is the finalists'
MIDDLE = 3
BUDGET_SHARE = 0.15  # of a budget
SHORT, LONG = 10, 40  # epochs of trainings without a budget: the search takes on top of them
SHORT_SHARE, LONG_SHARE = 0.25, 0.1  # of the training


@dataclass(frozen=True)
class RacePlan:
    """The looks of a race, in iterations of the global batch from the untrained net. Finalists go on from their looks
    of the middle round."""

    first_looks: int  # how many the wide round begins with
    wide: int
    middle: int
    final: int

    @property
    def iterations(self) -> int:
        """The iterations of all looks together."""
        finals = FINALISTS * (self.final - self.middle)
        return (self.first_looks + PROBES) * self.wide + WINDOW * self.middle + finals


@dataclass(frozen=True)
class Shares:
    """How a job's iterations are shared out between a search and the training behind it."""

    race: RacePlan | None  # None: there is no room for one
    epochs: int  # of the training
    iterations: int  # of each of them


def race_plan(most: int, first_looks: int) -> RacePlan | None:
    """The longest race of at most `most` iterations that begins with `first_looks`; None where they are too few for a
    step of every look."""
    looks = first_looks + PROBES
    wide = max(1, most // (looks + PARTS))
    left = most - looks * wide
    middle = min(MIDDLE * wide, (left - FINALISTS) // WINDOW)
    if middle < 1:
        return None
    return RacePlan(first_looks, wide, middle, middle + (left - WINDOW * middle) // FINALISTS)


def share_on_top(epochs: int) -> float:
    """The share of a training of `epochs` that its search takes in addition where neither a budget nor a share is
    given: a quarter at 10 epochs, a tenth from 40 on, and in between by the power that connects them."""
    power = math.log(SHORT_SHARE / LONG_SHARE) / math.log(LONG / SHORT)
    return min(SHORT_SHARE, max(LONG_SHARE, SHORT_SHARE * math.pow(SHORT / epochs, power)))


def shared_out(share: float | None, first_looks: int, *, epochs: int, iterations: int, budget: int | None) -> Shares:
    """Share out a budget in iterations, or without one a training of `epochs`, each of `iterations`.

    Inside a budget the search takes `share` of it (None: 15 %), and the training is as many epochs as come nearest to
    the rest, at most so many iterations each. Without one the search takes `share` of the training on top.
    """
    if budget is None:
        share = share_on_top(epochs) if share is None else share
        return Shares(race_plan(int(share * epochs * iterations), first_looks), epochs, iterations)
    race = race_plan(int((BUDGET_SHARE if share is None else share) * budget), first_looks)
    left = max(1, budget - (0 if race is None else race.iterations))
    more = -(-left // iterations)  # epochs that are a little shorter
    return max(
        (Shares(race, count, min(iterations, left // count)) for count in (max(1, left // iterations), more)),
        key=lambda shares: (shares.epochs * shares.iterations, -shares.epochs),
    )
