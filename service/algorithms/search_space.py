"""What a search tries: its space, its budget, the spec of each of its trials. Functions of the job's spec alone."""

from typing import Any

from service.algorithms.batch_ramp import Step
from service.algorithms.candidates import first_candidates
from service.spec.job import JobSpec
from service.spec.methods.base import Facts
from service.spec.methods.search import Distribution, SearchMethod


def search_space(spec: JobSpec, method: SearchMethod) -> dict[str, Distribution]:
    """Where each hyperparameter of the search is drawn from."""
    return method.space(spec, first_candidates(spec))


def most_trials(spec: JobSpec, method: SearchMethod, samples: int, budget: int | None) -> int:
    """Trials, of `samples` samples an epoch, that one seed of the search may begin."""
    return method.most_trials(spec, Facts(first_candidates(spec), samples, budget))


def known_points(spec: JobSpec, method: SearchMethod, samples: int, budget: int | None) -> list[dict[str, Any]] | None:
    """The hyperparameters of each trial, where they are known beforehand; else None."""
    return method.points(spec, Facts(first_candidates(spec), samples, budget))


def budget_samples(spec: JobSpec, samples: int, measure: int | None) -> int | None:
    """The budget of a baseline for one seed, in training samples. `samples`: of an epoch of the job; `measure`:
    what the run that it is relative to took."""
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
    """Where a ramp of the job begins."""
    return Step(spec.global_batch_size, spec.initial_learning_rate, getattr(spec.optimizer, "momentum", 0.0))
