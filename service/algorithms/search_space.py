"""What a search tries: its space, its budget, the spec of each of its trials. Functions of the job's spec alone."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from service.algorithms.batch_ramp import Step
from service.algorithms.batch_scaling import scaled_momentum
from service.algorithms.candidates import first_candidates
from service.spec.job import JobSpec
from service.spec.methods import (
    Distribution,
    HalvingMethod,
    PbtMethod,
    RampMethod,
    SamplerMethod,
    SearchMethod,
    StudyMethod,
)
from service.spec.types import MAX_BATCH

Config = Mapping[str, Any]

# What may be searched, and its place in a spec; optimizer.KEY besides.
KEYS = {
    "learning_rate": "initial_learning_rate",
    "optimizer": "optimizer",
    "global_batch_size": "global_batch_size",
    "envelope": "envelope",
}


def search_space(spec: JobSpec, method: SearchMethod) -> dict[str, Distribution]:
    """As asked for; else the learning rate, log-uniform from the smallest to the largest that lr_set tries first."""
    if isinstance(method, StudyMethod):
        names = [variant.name for variant in method.variants]
        return {"global_batch_size": Distribution(choice=method.batch_sizes), "variant": Distribution(choice=names)}
    if isinstance(method, RampMethod):  # within these bounds; where it goes is service.algorithms.batch_ramp's to say
        start = ramp_start(spec)
        doublings = math.log2(MAX_BATCH / start.global_batch_size)
        most = 2 ** (doublings / 2)
        return {
            "global_batch_size": Distribution(lograndint=[start.global_batch_size, MAX_BATCH]),
            "learning_rate": Distribution(loguniform=[start.learning_rate, start.learning_rate * most]),
            "optimizer.momentum": Distribution(uniform=[start.momentum, scaled_momentum(start.momentum, most)]),
        }
    if method.search_space is not None:
        return method.search_space
    first = first_candidates(spec)
    low, high = min(first), max(first)
    bounds = [low, high] if low < high else [low / 10, high * 10]
    return {"learning_rate": Distribution(loguniform=bounds)}


def trial_spec(spec: JobSpec, method: SearchMethod, config: Config, *, seed: int, epochs: int) -> JobSpec:
    """The job's spec with a trial's hyperparameters in their places. Raises pydantic's ValidationError.

    Without telemetry: Tune writes every report of every trial to disk each time that anything happens.
    """
    document = spec.model_dump(mode="json") | {"preset": None, "seed": seed, "epochs": epochs, "methods": ["stpt"]}
    document |= {"budget": None, "seeds": 1, "audit": None, "telemetry": None}
    if isinstance(method, StudyMethod):  # its training is the spec's method
        [variant] = [variant for variant in method.variants if variant.name == config["variant"]]
        told = variant.model_dump(mode="json")
        document |= {"global_batch_size": config["global_batch_size"], "workers": 1, "methods": [told["method"]]}
        own = {key: told[key] for key in ("optimizer", "initial_learning_rate") if told[key] is not None}
        return JobSpec.model_validate(document | own)
    if isinstance(method, RampMethod):  # of the phases of STPT, which a larger batch may have no room for
        document |= {"pretrain": {}, "main_train": {}}
    elif method.schedule is not None:
        document["envelope"] = method.schedule
    for key in sorted(config, key=lambda key: key.count(".")):  # an optimizer before what is said of it
        head, _, option = key.partition(".")
        if not option:
            document[KEYS[head]] = config[key]
        else:
            named = document[head]
            document[head] = ({"name": named} if isinstance(named, str) else dict(named)) | {option: config[key]}
    return JobSpec.model_validate(document)


def trial_epochs(spec: JobSpec, method: SearchMethod, samples: int, budget: int | None) -> int:
    """Epochs of `samples` samples that a trial trains at most; a population shares its budget."""
    if isinstance(method, PbtMethod) and budget is not None:
        return min(spec.epochs, max(1, budget // method.population // samples))
    return spec.epochs


def most_trials(spec: JobSpec, method: SearchMethod, samples: int, budget: int | None) -> int:
    """Trials, of `samples` samples an epoch, that the search may begin; a grid has no more than its points."""
    if isinstance(method, StudyMethod):
        return len(method.batch_sizes) * len(method.variants)
    if isinstance(method, RampMethod):  # one falls in each phase; the others double the batch
        return 2 + int(math.log2(max(1, samples // spec.global_batch_size)))
    trials = _room(spec, method, samples, budget)
    return min(trials, len(grid_points(spec, method, samples, budget))) if method.name == "grid" else trials


def _room(spec: JobSpec, method: SamplerMethod | HalvingMethod | PbtMethod, samples: int, budget: int | None) -> int:
    if isinstance(method, PbtMethod):
        return method.population
    if method.max_trials is not None:
        return method.max_trials
    if budget is None:
        return len(first_candidates(spec))
    if method.name == "grid":
        return max(1, budget // (samples * spec.epochs))
    return max(1, budget // samples)


def grid_points(
    spec: JobSpec, method: SamplerMethod | StudyMethod, samples: int, budget: int | None
) -> list[dict[str, Any]]:
    """One for each combination of choices; ranges are divided evenly, by their middles, as often as there is room for
    trials of `samples` samples an epoch.

    Without a space, a budget and a number of trials they are the first candidates of lr_set: S1's sweep.
    """
    if isinstance(method, StudyMethod):
        trials = 0  # it has no ranges
    elif method.search_space is None and method.max_trials is None and budget is None:
        return [{"learning_rate": value} for value in first_candidates(spec)]
    else:
        trials = _room(spec, method, samples, budget)
    space = search_space(spec, method)
    ranges = sum(distribution.choice is None for distribution in space.values())
    choices = math.prod(len(distribution.choice) for distribution in space.values() if distribution.choice is not None)
    steps = 1
    while ranges and (steps + 1) ** ranges * choices <= trials:
        steps += 1
    axes = [_axis(distribution, steps) for distribution in space.values()]
    return [dict(zip(space, point, strict=True)) for point in itertools.product(*axes)]


def _axis(distribution: Distribution, steps: int) -> Sequence[Any]:
    if distribution.choice is not None:
        return distribution.choice
    low, high = distribution.extremes
    shares = [(step + 0.5) / steps for step in range(steps)]
    if distribution.kind.startswith("log"):
        values = [low * (high / low) ** share for share in shares]
    else:
        values = [low + (high - low) * share for share in shares]
    return list(dict.fromkeys(map(round, values))) if distribution.kind.endswith("randint") else values


def budget_samples(spec: JobSpec, samples: int, stpt_samples: int | None) -> int | None:
    """The budget of a baseline for one seed, in training samples. `samples`: of an epoch of the job; `stpt_samples`:
    what the run of stpt took."""
    budget = spec.budget
    if budget is None:
        return None
    if budget.samples is not None:
        return budget.samples
    if budget.epochs is not None:
        return round(budget.epochs * samples)
    assert stpt_samples is not None, "the door has made sure that stpt comes first"
    return round(budget.times * stpt_samples)


def stretched_epochs(spec: JobSpec, samples: int, budget: int | None) -> int:
    """Epochs of a training that takes the whole budget."""
    return spec.epochs if budget is None else min(100_000, max(1, budget // samples))


def ramp_start(spec: JobSpec) -> Step:
    """Where a ramp of the job begins."""
    return Step(spec.global_batch_size, spec.initial_learning_rate, getattr(spec.optimizer, "momentum", 0.0))
