"""What a job will take, run by run, and the learning rates within its reach, before anything starts."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from service.algorithms.candidates import epoch_candidates, search_start, trials_of
from service.algorithms.epoch_plan import EpochPlan, plan_epoch, pretrain_iterations
from service.algorithms.search_space import (
    budget_samples,
    grid_points,
    most_trials,
    stretched_epochs,
    trial_epochs,
    trial_spec,
)
from service.spec.job import JobSpec
from service.spec.lr_set import StagedLrSet
from service.spec.methods import STRETCHED, UNBUDGETED, Method, SearchMethod, StptMethod, StudyMethod


@dataclass(frozen=True)
class Cost:
    """Training work of one run, search included, evaluation not; at most this where candidates coincide."""

    method: str
    trainings: int
    samples: int
    iterations: float  # of the global batch: samples / global_batch_size
    relative_to_sweep: float  # to a whole training for each candidate, which is S1's conventional method


@dataclass(frozen=True)
class SearchArea:
    """The smallest and largest learning rate that a Pre-train of `epoch` can try (S1, Fig. 9)."""

    epoch: int
    low: float
    high: float


def forecast(spec: JobSpec, train_samples: int) -> list[Cost]:
    """What each run of the job takes, over all its seeds (S1, Fig. 4: 87.5 % less than the sweep for 8 candidates on 8
    workers); at most this where a search stops trials early, and where candidates are added nothing is foreseen."""
    plan = plan_epoch(spec, train_samples)
    epoch_samples = plan.iterations * spec.global_batch_size
    training = epoch_samples * spec.epochs
    searches = _searches(spec)
    largest = max((branches for _, branches in searches), default=1)
    searched = _searched(spec, plan, searches)
    budget = budget_samples(spec, epoch_samples, training + searched)
    costs = []
    for method in spec.methods:
        if isinstance(method, StudyMethod):
            trainings, samples = _cost_of_study(spec, method, train_samples, searches)
        else:
            trainings, samples = _cost_of_seed(spec, method, epoch_samples, budget)
        samples = spec.seeds * (samples + (searched if isinstance(method, StptMethod) else 0))
        iterations = samples / spec.global_batch_size
        costs.append(Cost(method.name, spec.seeds * trainings, samples, iterations, samples / (largest * training)))
    return costs


def _cost_of_seed(spec: JobSpec, method: Method, epoch_samples: int, budget: int | None) -> tuple[int, int]:
    """Trainings and their samples."""
    if isinstance(method, UNBUDGETED):
        budget = None
    if isinstance(method, SearchMethod):
        trials = most_trials(spec, method, epoch_samples, budget)
        samples = trials * trial_epochs(spec, method, epoch_samples, budget) * epoch_samples
        return trials, samples if budget is None else min(samples, budget // epoch_samples * epoch_samples)
    if isinstance(method, STRETCHED):
        return 1, stretched_epochs(spec, epoch_samples, budget) * epoch_samples
    trainings = trials_of(spec, method)
    return trainings, trainings * spec.epochs * epoch_samples


def _cost_of_study(
    spec: JobSpec, method: StudyMethod, train_samples: int, searches: Mapping[tuple[int, int], int]
) -> tuple[int, int]:
    """The same: batches differ in what an incomplete last one leaves out, and a variant may search, as the job does."""
    points, samples = grid_points(spec, method, 0, None), 0
    for point in points:
        trial = trial_spec(spec, method, point, seed=spec.seed, epochs=spec.epochs)
        plan, [training] = plan_epoch(trial, train_samples), trial.methods
        samples += _cost_of_seed(trial, training, plan.iterations * trial.global_batch_size, None)[1]
        if isinstance(training, StptMethod):
            samples += _searched(trial, plan, searches)
    return len(points), samples


def search_area(spec: JobSpec) -> list[SearchArea]:
    """Bounds of the candidates, epoch by epoch, whatever is chosen; warm-up epochs have none."""
    areas = []
    low = high = search_start(spec)
    for epoch in range(spec.warmup_epochs + 1, spec.epochs + 1):
        low, high = (
            bound(epoch_candidates(spec, epoch=epoch, current=current)) for bound, current in ((min, low), (max, high))
        )
        areas.append(SearchArea(epoch, low, high))
    return areas


def _searches(spec: JobSpec) -> Mapping[tuple[int, int], int]:
    """How many epochs have a Pre-train like that of an epoch, with so many branches: behind the last stage all have."""
    stages = len(spec.lr_set.stages) if isinstance(spec.lr_set, StagedLrSet) else 0
    epochs = range(spec.warmup_epochs + 1, spec.epochs + 1)
    return Counter((min(epoch, spec.warmup_epochs + stages + 1), _candidates_at(spec, epoch)) for epoch in epochs)


def _searched(spec: JobSpec, plan: EpochPlan, searches: Mapping[tuple[int, int], int]) -> int:
    """Samples of all its `searches`."""
    return sum(times * _search_samples(spec, plan, *search) for search, times in searches.items())


def _search_samples(spec: JobSpec, plan: EpochPlan, epoch: int, branches: int) -> int:
    """What Pre-train takes in excess of the branch that goes on, which has trained alpha of the epoch's iterations."""
    shares = spec.workers
    if spec.pretrain.batch == "per_worker":
        shares //= min(branches, spec.workers)
    alpha = pretrain_iterations(spec, plan, epoch)
    return branches * alpha * shares * spec.batch_per_worker - alpha * spec.global_batch_size


def _candidates_at(spec: JobSpec, epoch: int) -> int:
    return len(epoch_candidates(spec, epoch=epoch, current=search_start(spec)))
