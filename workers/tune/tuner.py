"""Makes Ray Tune's Tuner for one seed of a search: its searcher, its scheduler, the resources of its trials."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import BasicVariantGenerator, SearchAlgorithm, Searcher

from service.algorithms.search_space import known_points, most_trials, search_space
from service.spec.job import JobSpec
from service.spec.methods.search import SearchMethod
from workers.methods import builder_of
from workers.tune.callbacks import LOST_ACTORS, Budget, Recording, admit
from workers.tune.search import Search
from workers.tune.searchers import METRIC, MODE, Admit, Ask, Space, tune_space


def make_tuner(search: Search, train: Callable[[dict[str, Any]], None], folder: Path) -> tune.Tuner:
    """The Tuner that runs the trials of `search` by `train` and keeps its state in `folder`, where it goes on from what
    an earlier attempt left. `search` must be the one that workers.tune.callbacks has at work."""
    trainable = tune.with_resources(train, _resources(search.spec, search.method))
    if tune.Tuner.can_restore(str(folder)):
        return tune.Tuner.restore(str(folder), trainable=trainable, resume_unfinished=True)
    spec, method, space = search.spec, search.method, search_space(search.spec, search.method)
    searcher = make_searcher(
        spec, method, seed=search.seed, samples=search.samples, budget=search.ledger.budget, admit=admit
    )
    proposes_itself = isinstance(searcher, BasicVariantGenerator)  # from the space, as many as it is told
    return tune.Tuner(
        trainable,
        param_space=tune_space(space) if proposes_itself else None,
        tune_config=tune.TuneConfig(
            metric=METRIC,
            mode=MODE,
            search_alg=searcher,
            scheduler=make_scheduler(method, space, search.epochs),
            num_samples=search.most_trials if proposes_itself else -1,
            reuse_actors=True,
            trial_dirname_creator=_trial_folder,
        ),
        run_config=tune.RunConfig(
            name=folder.name,
            storage_path=str(folder.parent),
            stop=Budget(),
            callbacks=[Recording()],
            failure_config=tune.FailureConfig(max_failures=LOST_ACTORS),
            checkpoint_config=tune.CheckpointConfig(num_to_keep=3),  # fewer may be gone before they are copied
            verbose=0,
        ),
    )


def make_searcher(
    spec: JobSpec, method: SearchMethod, *, seed: int, samples: int, budget: int | None, admit: Admit
) -> SearchAlgorithm | Searcher:
    """The searcher that proposes the trials of one seed of a method, made by the module of the method. `samples` are
    those of an epoch; `budget` is in training samples, None for no limit."""
    ask = Ask(
        spec=spec,
        space=search_space(spec, method),
        seed=seed,
        samples=samples,
        trials=most_trials(spec, method, samples, budget),
        points=known_points(spec, method, samples, budget),
        admit=admit,
    )
    searcher: SearchAlgorithm | Searcher = builder_of(method).make_searcher(method, ask)
    return searcher


def make_scheduler(method: SearchMethod, space: Space, epochs: int) -> TrialScheduler | None:
    """The scheduler that stops trials of `epochs` epochs early, made by the module of the method. None where every
    trial trains to its end."""
    make = getattr(builder_of(method), "make_scheduler", None)
    scheduler: TrialScheduler | None = None if make is None else make(method, space, epochs)
    return scheduler


def _trial_folder(trial: Trial) -> str:
    return str(trial.trial_id)


def _resources(spec: JobSpec, method: SearchMethod) -> dict[str, float]:
    has_gpus = ray.cluster_resources().get("GPU", 0) > 0
    return (
        {"CPU": 1, "GPU": method.gpus_per_trial}
        if spec.device == "cuda" or (spec.device == "auto" and has_gpus)
        else {"CPU": 1}
    )
