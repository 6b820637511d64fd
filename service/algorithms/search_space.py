"""What a search tries: its space, its number of trials, its points and its budget, as functions of the job's spec."""

from itertools import islice
from typing import Any

from service.algorithms.batch_ramp import Step
from service.algorithms.candidates import first_candidates
from service.spec.job import JobSpec
from service.spec.methods.base import Facts
from service.spec.methods.search import Distribution, SearchMethod


def search_space(spec: JobSpec, method: SearchMethod) -> dict[str, Distribution]:
    """The distribution that each hyperparameter of the search is drawn from, by its name."""
    return method.space(spec, first_candidates(spec))


def most_trials(spec: JobSpec, method: SearchMethod, samples: int, budget: int | None) -> int:
    """The number of trials that one seed of the search may begin; `samples` are the training samples of an epoch,
    `budget` those of the seed (None: no limit)."""
    return method.most_trials(spec, Facts(first_candidates(spec), samples, budget))


def known_points(spec: JobSpec, method: SearchMethod, samples: int, budget: int | None) -> list[dict[str, Any]] | None:
    """The hyperparameters of each trial that one seed may begin, by name, where they are known beforehand, as of a
    grid; else None. `samples` are the training samples of an epoch, `budget` those of the seed (None: no limit)."""
    facts = Facts(first_candidates(spec), samples, budget)
    points = method.points(spec, facts)
    return None if points is None else list(islice(points, method.most_trials(spec, facts)))


def budget_samples(spec: JobSpec, samples: int, measure: int | None) -> int | None:
    """The budget of a baseline for one seed, in training samples; None: no limit. `samples` are those of an epoch of
    the job, `measure` those that the run took which the budget is relative to."""
    budget = spec.budget
    if budget is None:
        return None
    if budget.samples is not None:
        return budget.samples
    if budget.epochs is not None:
        return round(budget.epochs * samples)
    assert measure is not None, "the door has made sure that there is such a run"
    return round(budget.times * measure)


def ramp_start(spec: JobSpec) -> Step:
    """The first training of a batch ramp of the job: its batch, its initial learning rate, its optimizer's momentum."""
    return Step(spec.global_batch_size, spec.initial_learning_rate, getattr(spec.optimizer, "momentum", 0.0))
