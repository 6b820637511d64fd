"""What a job will take, run by run, and the learning rates within its reach, before anything starts."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from service.algorithms.candidates import epoch_candidates, first_candidates, search_start
from service.algorithms.epoch_plan import EpochPlan, plan_epoch, pretrain_iterations
from service.algorithms.search_space import budget_samples
from service.spec.job import JobSpec
from service.spec.lr_set import StagedLrSet
from service.spec.methods.base import Facts

Searches = Mapping[tuple[int, int], int]  # epochs with a Pre-train like that of (an epoch, so many branches)


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
    facts = Facts(first_candidates(spec), epoch_samples, budget, searched, _trial_facts(train_samples, searches))
    costs = []
    for method in spec.methods:
        work = method.work(spec, facts)
        trainings, samples = spec.seeds * work.trainings, spec.seeds * work.samples
        iterations = samples / spec.global_batch_size
        costs.append(Cost(method.name, trainings, samples, iterations, samples / (largest * training)))
    return costs


def _trial_facts(train_samples: int, searches: Searches) -> Callable[[JobSpec, Facts], Facts]:
    """Facts of a trial with another batch: batches differ in what an incomplete last one leaves out, and a trial may
    search as its job does."""

    def facts_of(trial: JobSpec, job: Facts) -> Facts:
        plan = plan_epoch(trial, train_samples)
        searched = _searched(trial, plan, searches)
        return replace(job, epoch_samples=plan.iterations * trial.global_batch_size, budget=None, searched=searched)

    return facts_of


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


def _searches(spec: JobSpec) -> Searches:
    """How many epochs have a Pre-train like that of an epoch, with so many branches: behind the last stage all have."""
    stages = len(spec.lr_set.stages) if isinstance(spec.lr_set, StagedLrSet) else 0
    epochs = range(spec.warmup_epochs + 1, spec.epochs + 1)
    return Counter((min(epoch, spec.warmup_epochs + stages + 1), _candidates_at(spec, epoch)) for epoch in epochs)


def _searched(spec: JobSpec, plan: EpochPlan, searches: Searches) -> int:
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
