"""Runs the searches of a job by Ray Tune: one Tuner for each seed of a method, over the same loop as every other
training.

A trial is a plain function in one process that trains what a job's workers would, microbatch by microbatch, and reports
an epoch with its checkpoint. Its records reach the API through the driver alone: trials have no token.

Tune keeps its own state in `<job>/tune/<method>-<seed>` and pickles it there; a later attempt goes on from it. Beside
it lie the records themselves, so that what the API has not got is handed over again.
"""

import logging
import os
import random
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from ray import tune

from service.algorithms.epoch_plan import samples_per_epoch
from service.algorithms.search_space import budget_samples, most_trials
from service.spec.job import JobSpec
from service.spec.methods.search import SearchMethod
from service.wire.worker import TrialProgress
from workers.records_file import RecordsFile
from workers.report import PauseAsked
from workers.tune import callbacks
from workers.tune.budget import Ledger
from workers.tune.search import Search, Service
from workers.tune.searchers import TIME
from workers.tune.trainable import Load, trainable_of
from workers.tune.tuner import make_tuner

# How Ray Tune is to behave in the driver; read when a Tuner starts.
ENVIRONMENT = {
    "TUNE_GLOBAL_CHECKPOINT_S": "0",  # a snapshot after every event: what is lost with the driver was in flight
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # SQL has it all
    "RAY_AIR_NEW_OUTPUT": "0",  # nobody watches the driver
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # an interrupted search has not ended
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}


def run_searches(spec: JobSpec, service: Service, *, train_samples: int, load: Load, folder: Path) -> None:
    """Run every search of the job, seed by seed; what has ended in `folder` is left out. Ray must have been
    initialised. Raises PauseAsked where the job is to pause: trials that had begun go on from their newest epochs when
    this is called again.

    `load` reads the dataset, of `train_samples` training samples, in the process of a trial.
    """
    os.environ.update(ENVIRONMENT)
    logging.getLogger("ray.tune").setLevel(logging.ERROR)  # it misses the logs that nobody wants
    samples = samples_per_epoch(spec, train_samples)
    for method, seed in _searches(spec):
        its_folder = folder / f"{method.label}-{seed}"
        if (its_folder / "ended").exists():
            continue
        if service.pause_asked:
            raise PauseAsked
        its_folder.mkdir(parents=True, exist_ok=True)
        search = _begin(spec, method, seed, samples, service, its_folder)
        _run(search, load, its_folder)
        (its_folder / "ended").touch()


def _searches(spec: JobSpec) -> Iterator[tuple[SearchMethod, int]]:
    """Yield the searches of a job with each of their seeds, in their order."""
    for method in spec.methods_of(SearchMethod):  # type: ignore[type-abstract]
        for seed in range(spec.seed, spec.seed + spec.seeds):
            yield method, seed


def _begin(spec: JobSpec, method: SearchMethod, seed: int, samples: int, service: Service, folder: Path) -> Search:
    """The search as SQL, and what earlier attempts left in `folder`, have it. An epoch has so many `samples`."""
    known = service.progress()
    measured = (spec.measuring_run, seed)
    taken = sum(trial.samples for trial in known if (trial.label, trial.seed) == measured)
    budget = budget_samples(spec, samples, taken) if method.has_budget else None
    recorder = RecordsFile(folder, service.waits_for)
    known = [trial for trial in known if trial.label == method.label]
    mine = {trial.key: trial for trial in known if trial.seed == seed and trial.key is not None}
    again = _hand_over_again(recorder, service, mine)
    numbers = {key: trial.trial for key, trial in mine.items()}
    numbers |= {record.key: record.trial for record in recorder.trial_records() if record.key is not None}
    in_use = [*numbers.values(), *(trial.trial for trial in known)]
    return Search(
        spec=spec,
        method=method,
        seed=seed,
        samples=samples,
        epochs=method.training_epochs(spec, samples, budget),
        most_trials=most_trials(spec, method, samples, budget),
        ledger=Ledger(budget, spent=sum(trial.samples for trial in mine.values()) + again),
        recorder=recorder,
        service=service,
        numbers=numbers,
        next_number=max(in_use, default=0) + 1,
        ended={key for key, trial in mine.items() if trial.state not in ("pending", "running")},
    )


def _hand_over_again(recorder: RecordsFile, service: Service, known: Mapping[str, TrialProgress]) -> int:
    """Hand over what an earlier attempt has recorded here and the API has not got; return the samples of these
    epochs."""
    samples = 0
    epochs = {trial.trial: trial.epochs for trial in known.values()}
    for trial in recorder.trial_records():
        if trial.key is not None and trial.key not in known:
            service.trial(trial)
    for record in recorder.records():
        if record.epoch == epochs.get(record.trial, 0) + 1:
            service.epoch(record)
            epochs[record.trial] = record.epoch
            samples += record.samples
    return samples


def _run(search: Search, load: Load, folder: Path) -> None:
    """Train the trials of a search; afterwards all of them have ended, and SQL knows how."""
    callbacks.begin(search)
    random.seed(search.seed)
    np.random.seed(search.seed % 2**32)  # Tune's schedulers draw from these two
    results = make_tuner(search, trainable_of(search, load, folder.parent), folder).fit()
    search.tell_ends()
    _end_all(search, results)
    for path in folder.iterdir():  # checkpoints of trials that nobody will go on from
        if path.is_dir():
            shutil.rmtree(path)


def _end_all(search: Search, results: tune.ResultGrid) -> None:
    """Report the end of every trial, as an earlier attempt may have died before it did."""
    name = search.method.label
    for trial in results._experiment_analysis.trials:
        search.knew(trial.trial_id, trial.config)
        whole = (trial.last_result or {}).get(TIME, 0) >= search.epochs
        search.end(trial.trial_id, "completed" if whole else "stopped", "" if whole else f"stopped by {name}")
    for key in search.numbers:  # those that Tune knows nothing of
        search.end(key, "failed", "lost with an earlier attempt")
    search.tell_ends()
