"""Searches beside STPT by Ray Tune: one Tuner for each seed of a method, over the same loop as every other training.

A trial is a plain function in one process that trains what a job's workers would, microbatch by microbatch, and
reports an epoch with its checkpoint. Its records reach the API through the driver alone: trials have no token.

Tune keeps its own state in `<job>/tune/<method>-<seed>` and pickles it there; a later attempt goes on from it. Beside
it lie the records themselves, so that what the API has not got is handed over again.
"""

import logging
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import ray
import torch
from ray import tune
from ray.tune.experiment import Trial
from ray.tune.search import BasicVariantGenerator
from ray.tune.stopper import Stopper

from service.algorithms.epoch_plan import samples_per_epoch
from service.algorithms.search_space import budget_samples, most_trials, search_space
from service.errors import Diverged
from service.spec.job import JobSpec
from service.spec.methods.search import SearchMethod
from service.wire.worker import EpochRecord, TrialProgress, TrialRecord
from workers import checkpoint
from workers.datasets.load import Data
from workers.engine.groups import Workers
from workers.methods import builder_of
from workers.methods.base import Training
from workers.records_file import RecordsFile
from workers.tune.searchers import METRIC, MODE, TIME, hyperparameters, make_scheduler, make_searcher, tune_space

# How Ray Tune is to behave in the driver; read when a Tuner starts.
ENVIRONMENT = {
    "TUNE_GLOBAL_CHECKPOINT_S": "0",  # a snapshot after every event: what is lost with the driver was in flight
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # SQL has it all
    "RAY_AIR_NEW_OUTPUT": "0",  # nobody watches the driver
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # an interrupted search has not ended
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}
LOST_ACTORS = 2  # restarts of a trial whose process died; what it raises itself would come again


class Service(Protocol):
    """The driver's side of the API: workers.report.Reporter."""

    def trial(self, record: TrialRecord) -> None: ...
    def epoch(self, record: EpochRecord) -> None: ...
    def progress(self) -> list[TrialProgress]: ...


@dataclass
class Ledger:
    """Training samples of a search: spent, and promised to trials for their next epoch."""

    budget: int | None
    spent: int = 0
    promised: dict[str, int] = field(default_factory=dict)

    def admit(self, key: str, samples: int) -> bool:
        """Promise a trial an epoch, if there is enough left."""
        others = sum(promised for other, promised in self.promised.items() if other != key)
        if self.budget is not None and self.spent + others + samples > self.budget:
            self.promised.pop(key, None)
            return False
        self.promised[key] = samples
        return True

    def took(self, key: str, samples: int) -> None:
        self.spent += samples
        self.promised.pop(key, None)


@dataclass
class Search:
    """One seed of a method in the driver."""

    spec: JobSpec
    method: SearchMethod
    seed: int
    samples: int  # of an epoch of the job
    epochs: int  # that a trial trains at most
    most_trials: int
    ledger: Ledger
    recorder: RecordsFile
    service: Service
    numbers: dict[str, int]  # of the trials in SQL, by Tune's name for them
    next_number: int
    lost: set[str] | None = None  # of them, those that Tune knows nothing of after a crash; None until it is asked
    configs: dict[str, dict[str, Any]] = field(default_factory=dict)  # as last reported
    ended: set[str] = field(default_factory=set)
    ends: dict[str, tuple[str, str]] = field(default_factory=dict)  # state and message, known before Tune ends a trial
    untold: list[tuple[str, str, str]] = field(default_factory=list)  # ends that Tune's snapshot does not have yet

    def admit_trial(self, key: str) -> bool | None:
        """Whether another trial may begin; None: not before another one has ended."""
        if len(self.numbers) - len(self.lost or ()) >= self.most_trials:
            return False
        if not self.ledger.admit(key, self.samples):
            return None if self.ledger.promised else False
        self._number(key)
        return True

    def resumed(self, keys: set[str]) -> None:
        """`keys` of the trials that Tune goes on with, before it asks for another one."""
        if self.lost is None:
            self.lost = set(self.numbers) - keys

    def _number(self, key: str) -> int:
        if key not in self.numbers:
            self.numbers[key], self.next_number = self.next_number, self.next_number + 1
        return self.numbers[key]

    def began(self, key: str, config: Mapping[str, Any]) -> None:
        """Or goes on, perhaps with other hyperparameters."""
        chosen = self._chosen(config)
        if self.configs.get(key) != chosen:
            self.configs[key] = chosen
            self._tell(key, "running", None)

    def _chosen(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """What a record says of it: its hyperparameters, and the optimizer of a study's variant by name."""
        chosen = hyperparameters(search_space(self.spec, self.method), config)
        return self.method.reported(chosen, self.spec)

    def knew(self, key: str, config: Mapping[str, Any]) -> None:
        """Of a trial that has ended in an earlier attempt, which may not have told it."""
        self.configs.setdefault(key, self._chosen(config))

    def epoch(self, key: str, result: Mapping[str, Any]) -> None:
        source = result["source"] and self.numbers.get(result["source"])
        record = EpochRecord.model_validate_json(result["record"]).model_copy(
            update={
                "method": self.method.label,
                "trial": self._number(key),
                "source_trial": source,
                "source_epoch": result["source_epoch"] if source else None,
            }
        )
        self.recorder.epoch(record)
        self.service.epoch(record)

    def may_go_on(self, key: str, result: Mapping[str, Any]) -> bool:
        """Whether a trial may train another epoch after the one it reports."""
        self.ledger.took(key, result["samples"])
        if result["state"]:
            self.ends[key] = result["state"], result["message"]
            return False
        if result[TIME] >= self.epochs:
            self.ends[key] = "completed", ""
            return False
        if not self.ledger.admit(key, self.samples):
            self.ends[key] = "stopped", "the budget is used up"
            return False
        return True

    def end(self, key: str, state: str, message: str) -> None:
        """A trial has ended; told with the next snapshot: what has ended for SQL must not go on after a crash."""
        self.ledger.promised.pop(key, None)
        self.untold.append((key, *self.ends.get(key, (state, message))))

    def tell_ends(self) -> None:
        for key, state, message in self.untold:
            if key in self.numbers and key not in self.ended:
                self.ended.add(key)
                self._tell(key, state, message or None)
        self.untold.clear()

    def _tell(self, key: str, state: str, message: str | None) -> None:
        record = TrialRecord(
            label=self.method.label,
            trial=self._number(key),
            key=key,
            seed=self.seed,
            config=self.configs.get(key, {}),
            epochs=self.epochs,
            state=state,  # type: ignore[arg-type]
            message=message,
        )
        self.recorder.trial(record)
        self.service.trial(record)


_search: Search | None = None  # at work in this process: what follows is pickled with the experiment, and holds nothing


def _current() -> Search:
    assert _search is not None
    return _search


def _admit(key: str) -> bool | None:
    return _current().admit_trial(key)


class Budget(Stopper):
    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return not _current().may_go_on(trial_id, result)

    def stop_all(self) -> bool:
        return False


class Recording(tune.Callback):
    """Reports what happens to trials."""

    def on_step_begin(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        _current().resumed({trial.trial_id for trial in trials})
        _current().tell_ends()

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        _current().began(trial.trial_id, trial.config)

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        _current().began(trial.trial_id, trial.config)
        if result["record"]:
            _current().epoch(trial.trial_id, result)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        _current().end(trial.trial_id, "stopped", f"stopped early by {_current().method.label}")

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        _current().end(trial.trial_id, "failed", f"its process died {LOST_ACTORS + 1} times")


def run_searches(
    spec: JobSpec, service: Service, *, train_samples: int, load: Callable[[torch.device], Data], folder: Path
) -> None:
    """Every search of the job, seed by seed; what has ended in `folder` is left out. Needs ray.init.

    `load` reads the dataset, of `train_samples` training samples, in the process of a trial.
    """
    os.environ.update(ENVIRONMENT)
    logging.getLogger("ray.tune").setLevel(logging.ERROR)  # it misses the logs that nobody wants
    samples = samples_per_epoch(spec, train_samples)
    for method in spec.methods_of(SearchMethod):  # type: ignore[type-abstract]
        for seed in range(spec.seed, spec.seed + spec.seeds):
            its_folder = folder / f"{method.label}-{seed}"
            if (its_folder / "ended").exists():
                continue
            known = service.progress()
            measured = (spec.budget and spec.budget.relative_to, seed)
            taken = sum(trial.samples for trial in known if (trial.label, trial.seed) == measured)
            budget = budget_samples(spec, samples, taken) if method.has_budget else None
            _run(spec, method, seed, samples, budget, known, service, its_folder, load)
            (its_folder / "ended").touch()


def _run(
    spec: JobSpec,
    method: SearchMethod,
    seed: int,
    samples: int,
    budget: int | None,
    known: Sequence[TrialProgress],
    service: Service,
    folder: Path,
    load: Callable[[torch.device], Data],
) -> None:
    global _search
    folder.mkdir(parents=True, exist_ok=True)
    recorder = RecordsFile(folder)
    known = [trial for trial in known if trial.label == method.label]
    mine = {trial.key: trial for trial in known if trial.seed == seed and trial.key is not None}
    again = _hand_over_again(recorder, service, mine)
    numbers = {key: trial.trial for key, trial in mine.items()}
    numbers |= {record.key: record.trial for record in recorder.trial_records() if record.key is not None}
    taken = [*numbers.values(), *(trial.trial for trial in known)]
    _search = Search(
        spec=spec,
        method=method,
        seed=seed,
        samples=samples,
        epochs=method.training_epochs(spec.epochs, samples, budget),
        most_trials=most_trials(spec, method, samples, budget),
        ledger=Ledger(budget, spent=sum(trial.samples for trial in mine.values()) + again),
        recorder=recorder,
        service=service,
        numbers=numbers,
        next_number=max(taken, default=0) + 1,
        ended={key for key, trial in mine.items() if trial.state not in ("pending", "running")},
    )
    random.seed(seed)
    np.random.seed(seed % 2**32)  # Tune's schedulers draw from these two
    trainable = tune.with_resources(_trainable(_search, load, str(folder.parent)), _resources(spec, method))
    if tune.Tuner.can_restore(str(folder)):
        tuner = tune.Tuner.restore(str(folder), trainable=trainable, resume_unfinished=True)
    else:
        searcher = make_searcher(spec, method, seed=seed, samples=samples, budget=budget, admit=_admit)
        proposes_itself = isinstance(searcher, BasicVariantGenerator)  # from the space, as many as it is told
        tuner = tune.Tuner(
            trainable,
            param_space=tune_space(search_space(spec, method)) if proposes_itself else None,
            tune_config=tune.TuneConfig(
                metric=METRIC,
                mode=MODE,
                search_alg=searcher,
                scheduler=make_scheduler(method, search_space(spec, method), _search.epochs),
                num_samples=_search.most_trials if proposes_itself else -1,
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
    results = tuner.fit()
    _search.tell_ends()
    for trial in results._experiment_analysis.trials:  # an earlier attempt may have died before it told the end
        _search.knew(trial.trial_id, trial.config)
        whole = (trial.last_result or {}).get(TIME, 0) >= _search.epochs
        _search.end(trial.trial_id, "completed" if whole else "stopped", "" if whole else f"stopped by {method.label}")
    for key in numbers:
        _search.end(key, "failed", "lost with an earlier attempt")
    _search.tell_ends()
    for path in folder.iterdir():  # checkpoints of trials that nobody will go on from
        if path.is_dir():
            shutil.rmtree(path)


def _trial_folder(trial: Trial) -> str:
    return str(trial.trial_id)


def _hand_over_again(recorder: RecordsFile, service: Service, known: Mapping[str, TrialProgress]) -> int:
    """What an earlier attempt has recorded here, and the API has not got; the samples of its epochs."""
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


def _resources(spec: JobSpec, method: SearchMethod) -> dict[str, float]:
    has_gpus = ray.cluster_resources().get("GPU", 0) > 0
    return (
        {"CPU": 1, "GPU": method.gpus_per_trial}
        if spec.device == "cuda" or (spec.device == "auto" and has_gpus)
        else {"CPU": 1}
    )


# --- in the process of a trial -------------------------------------------------------------------------


def _trainable(search: Search, load: Callable[[torch.device], Data], dataset: str) -> Any:
    spec, method, seed, epochs = search.spec, search.method, search.seed, search.epochs
    space = search_space(spec, method)

    def train(config: dict[str, Any]) -> None:
        """Train a trial to its end, or until Tune stops it. What it raises ends it as failed."""
        key = tune.get_context().get_trial_id()
        source: tuple[str | None, int] = (None, 0)
        try:
            chosen = method.trial_spec(spec, hyperparameters(space, config), seed=seed, epochs=epochs)
            device = torch.device("cuda" if ray.get_gpu_ids() else "cpu")
            data = _data(dataset, load, device)
            training: Training = builder_of(method).build_trial(method, chosen, data, Workers(device))
            trainer = training.trainer
            if (start := tune.get_checkpoint()) is not None:
                with start.as_directory() as folder:
                    training.go_on_from(checkpoint.load_into(Path(folder), trainer.tensors))
                source = training.position.key, training.position.epochs
            for record in training.epochs():
                training.position = training.position.model_copy(update={"key": key})
                diverged = record.val_loss is None
                report = {
                    METRIC: record.val_accuracy,
                    TIME: record.epoch,
                    "samples": record.samples,
                    "record": record.model_dump_json(),
                    "source": source[0],
                    "source_epoch": source[1],
                    "state": "diverged" if diverged else "",
                    "message": f"epoch {record.epoch}: the loss became non-finite" if diverged else "",
                }
                source = (None, 0)
                with tempfile.TemporaryDirectory() as folder:
                    checkpoint.save(Path(folder), "state", trainer.tensors, training.position)
                    tune.report(report, checkpoint=tune.Checkpoint.from_directory(str(Path(folder, "state"))))
        except Exception as error:
            # not raised: Tune would try again what would fail again
            code = "out of memory" if isinstance(error, torch.OutOfMemoryError) else type(error).__name__
            ended = {METRIC: 0.0, TIME: 0, "samples": 0, "record": "", "source": None, "source_epoch": 0}
            state = "diverged" if isinstance(error, Diverged) else "failed"
            tune.report({**ended, "state": state, "message": f"{code}: {error}"[:4000]})

    return train


_loaded: dict[str, Data] = {}  # in the process of a trial, for those that come after it


def _data(dataset: str, load: Callable[[torch.device], Data], device: torch.device) -> Data:
    if dataset not in _loaded:
        _loaded[dataset] = load(device)
    return _loaded[dataset]
