"""Searches by Ray Tune, on a real Ray, with a service that only remembers."""

import shutil
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from ray.tune.error import TuneError

from service.spec.job import JobSpec
from service.wire.worker import EpochRecord, TrialProgress, TrialRecord
from tests.builders import spec_document
from workers.datasets.load import load_data
from workers.report import PauseAsked
from workers.retry import take_over
from workers.tune.driver import run_searches

SAMPLES = 26 * 48  # of an epoch: 1293 training images of digits in batches of 48
SHORT: dict[str, Any] = {"epochs": 4, "global_batch_size": 48, "lr_schedule": "linear"}


class Remembering:
    """Stands for the API, as a search sees it: it remembers what it is told."""

    pause_asked = False

    def __init__(self) -> None:
        self.epochs: list[EpochRecord] = []
        self.told: list[TrialRecord] = []

    def trial(self, record: TrialRecord) -> None:
        self.told.append(record)

    def epoch(self, record: EpochRecord) -> None:
        self.epochs.append(record)

    @property
    def trials(self) -> dict[int, TrialRecord]:
        return {record.trial: record for record in self.told}

    @property
    def by_trial(self) -> dict[int, list[EpochRecord]]:
        epochs = defaultdict(list)
        for record in self.epochs:
            epochs[record.trial].append(record)
        return dict(sorted(epochs.items()))

    def waits_for(self, reason: str | None) -> None:
        pass

    def progress(self) -> list[TrialProgress]:
        return [
            TrialProgress(
                label=record.label,
                trial=number,
                key=record.key,
                seed=record.seed,
                config=record.config,
                state=record.state,
                epochs=len(self.by_trial.get(number, [])),
                samples=sum(epoch.samples for epoch in self.by_trial.get(number, [])),
            )
            for number, record in self.trials.items()
        ]


@pytest.fixture(scope="module", autouse=True)
def local_ray() -> Iterator[None]:
    # one slot: half the processes to start; tests/e2e/test_baselines.py searches on two
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def search(folder: Path, *methods: Any, service: Remembering | None = None, **changes: Any) -> Remembering:
    service = service or Remembering()
    spec = JobSpec.model_validate(spec_document(**{**SHORT, **changes, "methods": list(methods)}))
    load = partial(load_data, spec.dataset, Path())
    run_searches(spec, service, train_samples=1293, load=load, folder=folder)
    return service


def stopped_by_asha(found: Remembering, seed: int) -> set[int]:
    """Trials of whom the rule says so, by the order in which their epochs came (Li et al. 2020, arXiv 1810.05934, as
    Ray Tune has it): at a rung, those outside the best third of who has been there before. eta 3: rungs at 1 and 3."""
    stopped = set()
    for rung in (1, 3):
        been: list[float] = []
        for record in found.epochs:
            if found.trials[record.trial].seed == seed and record.epoch == rung:
                if been and record.val_accuracy < np.percentile(been, 100 * 2 / 3):
                    stopped.add(record.trial)
                been.append(record.val_accuracy)
    return stopped


def test_every_seed_has_a_search_and_a_budget_of_its_own(tmp_path: Path) -> None:
    """By ASHA; tests/e2e/test_baselines.py has whole trainings by tpe."""
    found = search(tmp_path, "asha", seed=7, seeds=2, budget={"epochs": 8.5})
    trials = [(number, trial.seed) for number, trial in sorted(found.trials.items())]
    assert [number for number, _ in trials] == list(range(1, len(trials) + 1))
    assert [seed for _, seed in trials] == sorted(seed for _, seed in trials)
    for seed in (7, 8):
        its = [records for number, records in found.by_trial.items() if found.trials[number].seed == seed]
        assert sum(record.samples for records in its for record in records) == 8 * SAMPLES
        assert all([r.epoch for r in records] == list(range(1, len(records) + 1)) for records in its)
    assert {record.samples for record in found.epochs} == {SAMPLES}
    for number, trial in found.trials.items():
        assert trial.state == ("completed" if len(found.by_trial[number]) == 4 else "stopped")
    stopped = {number: trial.message for number, trial in found.trials.items() if trial.state == "stopped"}
    assert set(stopped.values()) <= {"stopped early by asha", "the budget is used up"}
    early = {number for number, message in stopped.items() if message == "stopped early by asha"}
    out_of_budget = set(stopped) - early
    assert early == (stopped_by_asha(found, 7) | stopped_by_asha(found, 8)) - out_of_budget
    assert early
    rates = [trial.config["learning_rate"] for trial in found.trials.values()]
    assert len(set(rates)) == len(rates)
    assert all(0.04 <= rate <= 0.25 for rate in rates)  # what `middle` tries first: 0.1 x 0.4 to 2.5
    for number, records in found.by_trial.items():
        assert {record.learning_rate for record in records} == {found.trials[number].config["learning_rate"]}


def test_smac_spends_its_budget_and_a_grid_trains_whole_trainings(tmp_path: Path) -> None:
    rates = {}
    for method in ("smac", "grid"):
        found = search(tmp_path / method, method, epochs=2, budget={"epochs": 5})
        lengths = [len(records) for records in found.by_trial.values()]
        assert lengths == ([2, 2, 1] if method == "smac" else [2, 2])
        states = [trial.state for _, trial in sorted(found.trials.items())]
        assert states == ["completed" if length == 2 else "stopped" for length in lengths]
        rates[method] = [trial.config["learning_rate"] for _, trial in sorted(found.trials.items())]
    assert len(set(rates["smac"])) == 3
    assert all(0.04 <= rate <= 0.25 for rate in rates["smac"])
    assert rates["grid"] == pytest.approx([0.04 * 6.25**0.25, 0.04 * 6.25**0.75])  # the middles of two equal parts


def test_hyperband_stops_early_and_goes_on_with_what_it_paused_from_its_checkpoint(tmp_path: Path) -> None:
    """With TPE's proposals. eta 3 and 9 epochs: the first bracket has 9 trials of 1 epoch, 3 of 3 and 1 of 9."""
    found = search(tmp_path, {"name": "bohb", "max_trials": 9}, epochs=9)
    lengths = sorted(len(records) for records in found.by_trial.values())
    assert lengths == [1] * 6 + [3] * 2 + [9]
    states = sorted(trial.state for trial in found.trials.values())
    assert states == ["completed"] + ["stopped"] * 8
    assert {trial.message for trial in found.trials.values() if trial.state == "stopped"} == {"stopped early by bohb"}
    for number, records in found.by_trial.items():
        assert [record.epoch for record in records] == list(range(1, len(records) + 1))
        paused = {record.epoch: record.source_epoch for record in records if record.source_trial is not None}
        # a trial that the bracket has waited for goes on in a new process, from its own checkpoint
        assert all(source == epoch - 1 and epoch in (2, 4) for epoch, source in paused.items())
        assert {record.source_trial for record in records} <= {None, number}
    resumed = [record for record in found.epochs if record.source_trial is not None]
    assert len(resumed) >= 2
    # of each rung the best have gone on
    first = {number: records[0].val_accuracy for number, records in found.by_trial.items()}
    survivors = [number for number, records in found.by_trial.items() if len(records) > 1]
    assert min(first[number] for number in survivors) >= max(first[n] for n in first if n not in survivors)


@pytest.mark.parametrize("name", ["pbt", "pb2"])
def test_a_population_copies_weights_and_perturbs(tmp_path: Path, name: str) -> None:
    """pb2 proposes as soon as a member has gained by its hyperparameters from one exploit to the next."""
    method = {"name": name, "population": 4, "perturbation_interval": 1}
    space = {"learning_rate": {"loguniform": [1e-5, 0.3]}, "optimizer.momentum": {"uniform": [0.5, 0.95]}}
    epochs = 3 if name == "pbt" else 5
    budget = {"epochs": 4 * epochs + 1}
    found = search(tmp_path, {**method, "search_space": space}, epochs=epochs + 1, budget=budget)
    assert {number: len(records) for number, records in found.by_trial.items()} == dict.fromkeys((1, 2, 3, 4), epochs)
    copies = [record for record in found.epochs if record.source_trial not in (None, record.trial)]
    assert copies
    for record in copies:
        source = next(r for r in found.by_trial[record.source_trial or 0] if r.epoch == record.source_epoch)
        loser = next(r for r in found.by_trial[record.trial] if r.epoch == record.epoch - 1)
        assert record.source_epoch == record.epoch - 1
        assert source.val_accuracy >= loser.val_accuracy  # it has copied a better one
        assert record.learning_rate != loser.learning_rate
        assert name == "pbt" or record.epoch > 2 or record.learning_rate == source.learning_rate
        assert 1e-5 <= record.learning_rate <= 0.3
    told = [(r.trial, r.config["learning_rate"], r.config["optimizer.momentum"]) for r in found.told]
    assert len({trial for trial, *_ in told}) == 4
    proposed = [record for record in copies if name == "pbt" or record.epoch > 2]
    assert proposed
    assert len(set(told)) >= 4 + len(proposed)  # new hyperparameters are told


@pytest.mark.long
def test_a_search_that_was_killed_goes_on_without_repeating_what_has_ended(tmp_path: Path) -> None:
    class Dies(Remembering):
        def epoch(self, record: EpochRecord) -> None:
            if len(self.epochs) == 8:
                raise ConnectionAbortedError("the driver dies here")
            super().epoch(record)

    method, dying = {"name": "hyperband", "max_trials": 9}, Dies()
    with pytest.raises(TuneError, match="the driver dies here"):
        search(tmp_path, method, service=dying, epochs=9)
    ended = {number for number, trial in dying.trials.items() if trial.state != "running"}
    before = {(record.trial, record.epoch) for record in dying.epochs}
    again = Remembering()
    again.told, again.epochs = list(dying.told), list(dying.epochs)
    search(tmp_path, method, service=again, epochs=9)
    new = [(record.trial, record.epoch) for record in again.epochs[8:]]
    assert not {trial for trial, _ in new} & ended
    assert len(new) - len(set(new)) + len(before & set(new)) <= 1  # what was in flight
    for number, records in again.by_trial.items():
        epochs = sorted({record.epoch for record in records})
        assert epochs == list(range(1, len(epochs) + 1)), number
    assert {trial.state for trial in again.trials.values()} <= {"completed", "stopped"}
    assert len(again.trials) == 9
    assert max(len({r.epoch for r in records}) for records in again.by_trial.values()) == 9


@pytest.mark.parametrize("folder", ["paused", pytest.param("elsewhere", marks=pytest.mark.long)])
def test_a_search_that_is_paused_goes_on_where_it_stood(tmp_path: Path, folder: str) -> None:
    """Elsewhere: as a retry does, in a folder of its own."""

    class Pausing(Remembering):
        def epoch(self, record: EpochRecord) -> None:
            super().epoch(record)
            self.pause_asked = len(self.epochs) == 3

    method = {"name": "random", "max_trials": 2, "search_space": {"learning_rate": {"loguniform": [0.01, 0.1]}}}
    undisturbed = search(tmp_path / "undisturbed", method, epochs=2)
    pausing = Pausing()
    with pytest.raises(PauseAsked):
        search(tmp_path / "paused", method, service=pausing, epochs=2)
    assert [(record.trial, record.epoch) for record in pausing.epochs] == [(1, 1), (1, 2), (2, 1)]
    again = Remembering()
    again.told, again.epochs = list(pausing.told), list(pausing.epochs)
    if folder != "paused":
        take_over(tmp_path / "paused", tmp_path / folder)
        shutil.rmtree(tmp_path / "paused")
    search(tmp_path / folder, method, service=again, epochs=2)
    times = {"seconds", "pretrain_seconds", "main_train_seconds", "source_trial", "source_epoch", "checkpoint"}
    assert [record.model_dump(exclude=times) for record in again.epochs] == [
        record.model_dump(exclude=times) for record in undisturbed.epochs
    ]
    assert {number: trial.state for number, trial in again.trials.items()} == dict.fromkeys((1, 2), "completed")


def test_a_trial_that_was_lost_with_its_attempt_is_trained_again(tmp_path: Path) -> None:
    """The attempt has told that a trial begins, and died before Tune's first snapshot of it."""
    variants = [{"name": "plain", "method": "fixed"}]
    study = {"name": "study", "batch_sizes": [96, 192], "variants": variants}
    config = {"global_batch_size": 96, "variant": "plain"}
    lost = TrialRecord(label="study", trial=1, key="lost", seed=0, config=config, epochs=1, state="running")
    service = Remembering()
    service.trial(lost)
    found = search(tmp_path, study, service=service, epochs=1)
    ends = {number: (trial.config.get("global_batch_size"), trial.state) for number, trial in found.trials.items()}
    assert ends == {1: (None, "failed"), 2: (96, "completed"), 3: (192, "completed")}
    assert found.trials[1].message == "lost with an earlier attempt"


def test_a_trial_that_diverges_or_fails_ends_alone(tmp_path: Path) -> None:
    space = {"learning_rate": {"choice": [1e5, 0.1]}}
    found = search(tmp_path, {"name": "grid", "search_space": space}, epochs=2)
    assert [(trial.state, len(found.by_trial[number])) for number, trial in sorted(found.trials.items())] == [
        ("diverged", 1),
        ("completed", 2),
    ]
    assert found.by_trial[1][0].val_loss is None
    assert found.by_trial[1][0].samples == SAMPLES


def test_a_study_trains_every_variant_at_every_batch(tmp_path: Path) -> None:
    """One by a schedule, one by STPT, and one that diverges; each in one process whatever the job's workers."""
    linear = {"name": "fixed", "learning_rate": 0.05, "scaling": {"rule": "linear", "base_batch_size": 48}}
    variants = [
        {"name": "linear", "method": linear},
        {"name": "searched", "method": "stpt", "optimizer": {"name": "sgd", "momentum": 0.5}},
        {"name": "wild", "method": {"name": "fixed", "learning_rate": 1e6}},
    ]
    study = {"name": "study", "batch_sizes": [96, 192], "variants": variants}
    few = {"lr_set": {"factors": [1.0, 0.5]}, "budget": {"epochs": 1}}  # the budget is no study's
    found = search(tmp_path, study, epochs=2, workers=2, global_batch_size=64, **few)
    points = [(batch, name) for batch in (96, 192) for name in ("linear", "searched", "wild")]
    configs = {number: trial.config for number, trial in sorted(found.trials.items())}
    told = [{"global_batch_size": batch, "variant": name, "optimizer": "sgd"} for batch, name in points]
    assert list(configs.values()) == told
    for number, (batch, name) in enumerate(points, start=1):
        trial, records = found.trials[number], found.by_trial[number]
        assert (trial.label, trial.epochs) == ("study", 2)
        assert trial.state == ("diverged" if name == "wild" else "completed")
        iterations = 1293 // batch
        if name == "linear":
            assert [r.learning_rate for r in records] == [pytest.approx(0.05 * batch / 48)] * 2
            assert [(r.phase, r.samples) for r in records] == [("scheduled", iterations * batch)] * 2
        if name == "searched":
            assert [(r.phase, len(r.branches)) for r in records] == [("stpt", 2)] * 2
            assert all(r.samples > iterations * batch for r in records)


def test_a_study_of_trainings_that_search_for_their_learning_rate(tmp_path: Path) -> None:
    """Both without a budget: an epoch of six iterations behind ten of a range test, and one behind three trials of
    four."""
    variants = [
        {"name": "tested", "method": {"name": "lr-range-test", "iterations": 10, "divergence_threshold": 1e6}},
        {"name": "staged", "method": {"name": "autolrs", "trials": 3, "trial_iterations": 4}},
    ]
    found = search(tmp_path, {"name": "study", "batch_sizes": [192], "variants": variants}, epochs=1)
    assert [trial.state for trial in found.trials.values()] == ["completed", "completed"]
    by_variant = {found.trials[number].config["variant"]: records for number, records in found.by_trial.items()}
    assert {name: [record.iterations for record in records] for name, records in by_variant.items()} == {
        "tested": [10 + 6],
        "staged": [3 * 4 + 6],
    }
    assert [len(record.branches) for record in by_variant["staged"]] == [3]


def test_a_ramp_doubles_the_batch_up_to_the_training_set(tmp_path: Path) -> None:
    ramp = {"name": "batch-ramp", "tolerance": 1.0}  # nothing falls by more than everything
    found = search(tmp_path, ramp, epochs=1, global_batch_size=256, budget={"epochs": 1})
    configs = [trial.config for _, trial in sorted(found.trials.items())]
    assert [config["global_batch_size"] for config in configs] == [256, 512, 1024]
    assert [config["learning_rate"] for config in configs] == pytest.approx([0.1, 0.1 * 2**0.5, 0.2])
    assert {config["optimizer.momentum"] for config in configs} == {0.9}
    assert [records[0].samples for records in found.by_trial.values()] == [1280, 1024, 1024]
    assert {trial.state for trial in found.trials.values()} == {"completed"}
