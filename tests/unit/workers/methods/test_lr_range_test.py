"""A range test and the training behind it: nothing but the learning rate is left of the test, and its samples count."""

import math
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch

from service.algorithms.cost import forecast
from service.errors import Diverged
from service.spec.job import JobSpec
from service.wire.worker import EpochRecord, ResumePoint, TrialProgress, TrialRecord
from tests.builders import spec_document
from tests.unit.workers.ranks import CPU, NETS, Ranks, digits, make_trainer
from workers.engine.groups import Workers
from workers.methods import lr_range_test, make_training
from workers.models import build as models
from workers.records_file import RecordsFile
from workers.trainings import Recorder, train_job

pytest_plugins = ["tests.unit.workers.ranks"]

TRAIN_SAMPLES = 6 * 48  # six iterations an epoch
SHORT: dict[str, Any] = {
    "epochs": 2,
    "global_batch_size": 48,
    "dataset": {"name": "digits", "train_samples": TRAIN_SAMPLES},
}
TAME = {"name": "lr-range-test", "min_learning_rate": 1e-4, "max_learning_rate": 0.1, "iterations": 20}
WILD = TAME | {"max_learning_rate": 1e6}


def made(net: str, method: dict[str, Any], **changes: Any) -> Any:
    with patch.dict(models.BUILDERS, {"lenet5": NETS[net]}):
        spec = JobSpec.model_validate(spec_document(**{**SHORT, **changes, "methods": [method]}))
        return make_training(spec.methods[0], 1, spec, digits(TRAIN_SAMPLES), Workers(CPU))


def trained(net: str, method: dict[str, Any], **changes: Any) -> tuple[list[EpochRecord], str, dict[str, Any]]:
    """Train, and return the records, the digest of the end, and what the trial's record tells."""
    training = made(net, method, **changes)
    return list(training.epochs()), training.trainer.state.digest(), training.config


@pytest.mark.parametrize("schedule", ["linear", "one-cycle"])
@pytest.mark.parametrize("net", ["plain", "batch-norm", "dropout"])
@pytest.mark.parametrize("method", [TAME, WILD], ids=["tame", "wild"])
def test_it_ends_with_the_very_weights_of_a_plain_training(net: str, schedule: str, method: dict[str, Any]) -> None:
    """Twenty iterations, three epochs and a third, leave no trace; nor do the NaN of a test that diverged."""
    records, end, config = trained(net, method | {"lr_schedule": schedule})
    rate = config["learning_rate"]
    same = {
        "linear": {"name": "sweep", "learning_rates": [rate], "lr_schedule": "linear"},
        "one-cycle": {"name": "one-cycle", "learning_rate": rate},
    }[schedule]
    plain, plain_end, _ = trained(net, same)
    assert end == plain_end
    its_own = {"label", "iterations", "samples", "seconds", "pretrain_seconds", "main_train_seconds"}
    assert [r.model_dump(exclude=its_own) for r in records] == [r.model_dump(exclude=its_own) for r in plain]
    assert {record.learning_rate for record in records} == {rate}


@pytest.mark.parametrize("optimizer", ["adamw", "lars", "lamb", "tvlars"])
def test_the_state_of_every_optimizer_begins_anew(optimizer: str) -> None:
    method = TAME | {"lr_schedule": "linear", "suggestion": "divergence"}
    _, end, config = trained("batch-norm", method, optimizer=optimizer)
    assert config["learning_rate"] == pytest.approx(0.01)
    same = {"name": "sweep", "learning_rates": [config["learning_rate"]], "lr_schedule": "linear"}
    assert trained("batch-norm", same, optimizer=optimizer)[1] == end


def test_telemetry_is_that_of_the_training_alone() -> None:
    records, _, config = trained("plain", TAME, telemetry={"every": 2})
    plain, _, _ = trained(
        "plain", {"name": "one-cycle", "learning_rate": config["learning_rate"]}, telemetry={"every": 2}
    )
    assert [record.layers for record in records] == [record.layers for record in plain]


@pytest.mark.parametrize("iterations", [20, None, 10])
def test_what_it_costs_is_what_was_foreseen(iterations: int | None) -> None:
    """To the sample; in the loop each record is held against the loop's own counter, too (workers.methods.base)."""
    method = TAME | {"iterations": iterations}
    records, _, config = trained("plain", method)
    tested = iterations or 6
    assert [record.iterations for record in records] == [tested + 6, 6]
    assert [record.samples for record in records] == [48 * (tested + 6), 48 * 6]
    spec = JobSpec.model_validate(spec_document(**{**SHORT, "methods": [method]}))
    assert sum(record.samples for record in records) == forecast(spec, TRAIN_SAMPLES)[0].samples
    assert [record.branches for record in records] == [[], []]
    assert config["range_test"]["iterations"] == tested
    assert records[0].pretrain_seconds > 0 == records[1].pretrain_seconds


def test_a_test_that_diverges_costs_no_more_than_what_it_ran() -> None:
    records, _, config = trained("plain", WILD)
    tested = config["range_test"]["iterations"]
    assert config["range_test"]["diverged"]
    assert 10 < tested < 20
    assert (records[0].iterations, records[0].samples) == (tested + 6, 48 * (tested + 6))
    assert all(math.isfinite(loss) for loss in config["range_test"]["smoothed_losses"])


def test_the_curve_is_that_of_plain_steps() -> None:
    """Each loss is that of the batch before its step; behind the sixth the second epoch's batches follow."""
    _, _, config = trained("plain", TAME | {"smoothing": 0.0})
    plain = make_trainer("plain", **SHORT)
    losses, rates = [], [1e-4 * 1000 ** (number / 19) for number in range(20)]
    for number, rate in enumerate(rates):
        epoch, iteration = number // 6 + 1, number % 6
        images, labels = plain._inputs(epoch, iteration, [0], range(48), plain._order(epoch))
        plain.model.train()
        plain.optimizer.param_groups[0]["lr"] = rate
        plain.optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(plain.model(images), labels)
        loss.backward()
        plain.optimizer.step()
        losses.append(loss.item())
    curve = config["range_test"]
    assert curve["learning_rates"] == pytest.approx(rates, rel=1e-5)
    assert curve["smoothed_losses"] == pytest.approx(losses, rel=1e-5)
    falls = [before - after for before, after in pairwise(losses[2:])]  # a tenth is left out
    assert config["learning_rate"] == pytest.approx(rates[2 + falls.index(max(falls))], rel=1e-12)
    assert config["suggestion"] == "steepest"


def told(method: dict[str, Any]) -> tuple[str, dict[str, Any], list[int], list[float]]:
    """The digest of the end, what was chosen, the samples of each epoch, and the weights."""
    trainer = make_trainer("batch-norm", **SHORT, methods=[method])
    spec = trainer.spec
    training = lr_range_test.LrRangeTest(spec.methods[0], trainer, 1)  # type: ignore[arg-type]
    samples = [record.samples for record in training.epochs()]
    weights = torch.cat([parameter.detach().reshape(-1) for parameter in trainer.model.parameters()])
    return trainer.state.digest(), training.config, samples, weights.tolist()


@pytest.mark.parametrize("method", [TAME | {"suggestion": "divergence"}, WILD], ids=["tame", "wild"])
def test_workers_decide_alike_and_as_one(ranks: Ranks, method: dict[str, Any]) -> None:
    """`batch-norm` sees another share with other workers, so there is a comparison with one for the tame test alone."""
    one, other = ranks(2, told, method)
    assert one == other
    [alone] = ranks(1, told, method)
    if method["max_learning_rate"] < 1:
        assert one[1]["learning_rate"] == alone[1]["learning_rate"]
        assert one[2] == alone[2]


def told_plain(method: dict[str, Any]) -> tuple[str, dict[str, Any], list[int], list[float]]:
    with patch.dict(NETS, {"batch-norm": NETS["plain"]}):
        return told(method)


def test_two_workers_come_to_what_one_does(ranks: Ranks) -> None:
    """Up to sums in another order."""
    [(_, alone, cost, weights)] = ranks(1, told_plain, TAME)
    (_, two, its_cost, its_weights), _ = ranks(2, told_plain, TAME)
    assert (two["learning_rate"], its_cost) == (alone["learning_rate"], cost)
    assert two["range_test"]["smoothed_losses"] == pytest.approx(alone["range_test"]["smoothed_losses"], rel=1e-4)
    assert its_weights == pytest.approx(weights, rel=0, abs=1e-5)


def test_where_nothing_is_suggested_the_training_ends() -> None:
    """The loss rises by whole multiples with the first step, and NaN comes before it could fall."""
    training = made("plain", TAME | {"min_learning_rate": 1e5, "max_learning_rate": 1e6})
    start = training.trainer.state.digest()
    with pytest.raises(Diverged) as caught:
        next(training.epochs())
    assert caught.value.detail == (
        "the range test of lr-range-test, trial 1, suggests no learning rate: in 2 iterations from 100000 to 112884 "
        "the smoothed loss did not fall; lower min_learning_rate, or raise iterations or max_learning_rate"
    )
    assert training.trainer.state.digest() == start


# --- in a job ------------------------------------------------------------------------------------------


class Told:
    """A recorder that keeps what reaches SQL, in its order, and dies where it is told to."""

    def __init__(self) -> None:
        self.all: list[EpochRecord | TrialRecord] = []
        self.dies_with: type[EpochRecord | TrialRecord] | None = None

    def trial(self, record: TrialRecord) -> None:
        self._keep(record)

    def epoch(self, record: EpochRecord) -> None:
        self._keep(record)

    def _keep(self, record: EpochRecord | TrialRecord) -> None:
        self.all.append(record)
        if isinstance(record, self.dies_with or ()) and getattr(record, "config", True):
            raise ConnectionAbortedError("the attempt dies here")

    def waiting_epochs(self) -> int:
        return 0

    def waits_for(self, reason: str | None) -> None:
        pass

    def flush(self) -> None:
        pass

    @property
    def epochs(self) -> dict[int, EpochRecord]:
        """The newest record of each epoch, by its number."""
        return {record.epoch: record for record in self.all if isinstance(record, EpochRecord)}

    @property
    def trials(self) -> list[TrialRecord]:
        return [record for record in self.all if isinstance(record, TrialRecord)]

    def points(self) -> list[ResumePoint]:
        return [
            ResumePoint(label=r.label, epoch=r.epoch, val_accuracy=r.val_accuracy, checkpoint=r.checkpoint)
            for r in reversed(self.epochs.values())
            if r.checkpoint is not None
        ]

    def progress(self) -> list[TrialProgress]:
        return [
            TrialProgress(
                label=record.label, trial=1, key=None, seed=record.seed, config=record.config, state=record.state,
                epochs=len(self.epochs), samples=0,
            )
            for record in self.trials[-1:]
        ]  # fmt: skip


def job(
    methods: list[Any], told: Recorder, folder: Path, *, net: str = "batch-norm", **known: Any
) -> list[EpochRecord]:
    with patch.dict(models.BUILDERS, {"lenet5": NETS[net]}):
        spec = JobSpec.model_validate(spec_document(**{**SHORT, "budget": {"epochs": 6.4}, "methods": methods}))
        return list(
            train_job(
                spec, digits(TRAIN_SAMPLES), Workers(CPU), points=known.get("points", ()),
                trials=known.get("trials", ()), attempt=1, folder=folder, recorder=told,
            )
        )  # fmt: skip


def timeless(records: dict[int, EpochRecord]) -> list[dict[str, Any]]:
    exclude = {"seconds", "pretrain_seconds", "main_train_seconds", "checkpoint"}
    return [record.model_dump(exclude=exclude) for record in records.values()]


@pytest.mark.parametrize("dies_with", [TrialRecord, EpochRecord])
def test_it_goes_on_from_a_checkpoint_as_if_nothing_had_happened(tmp_path: Path, dies_with: Any) -> None:
    """An attempt that dies with its choice told, or behind its first epoch: then there is no second test."""
    whole, broken = Told(), Told()
    job([TAME], whole, tmp_path / "whole")
    broken.dies_with = dies_with
    with pytest.raises(ConnectionAbortedError):
        job([TAME], broken, tmp_path / "broken")
    broken.dies_with = None
    known = {"points": broken.points(), "trials": broken.progress()}
    tests = 0

    def counted(*arguments: Any, **settings: Any) -> Any:
        nonlocal tests
        tests += 1
        return run_range_test(*arguments, **settings)

    run_range_test = lr_range_test.run_range_test
    with patch.object(lr_range_test, "run_range_test", counted):
        job([TAME], broken, tmp_path / "broken", **known)
    assert tests == (0 if dies_with is EpochRecord else 1)
    assert timeless(broken.epochs) == timeless(whole.epochs)
    assert broken.trials[-1] == whole.trials[-1]  # the choice and its curve are not lost


def test_the_choice_is_told_before_the_first_epoch_and_the_budget_holds(tmp_path: Path) -> None:
    """6.4 epochs of six iterations: 38.4, of which the test takes 20 and three epochs 18."""
    told = Told()
    job([TAME], told, tmp_path)
    assert [type(record).__name__ for record in told.all] == ["TrialRecord"] * 2 + ["EpochRecord"] * 3
    before, chosen = told.trials
    assert (before.config, before.epochs, before.state) == ({}, 3, "running")
    assert chosen == before.model_copy(update={"config": chosen.config})
    assert chosen.config["learning_rate"] == told.epochs[1].learning_rate
    assert sum(record.samples for record in told.epochs.values()) == (20 + 18) * 48


def test_a_training_that_diverges_behind_its_test_keeps_what_was_chosen(tmp_path: Path) -> None:
    told = Told()
    with patch.object(lr_range_test, "suggested_learning_rate", lambda *_: 1e6):
        job([TAME | {"lr_schedule": "linear"}, "fixed"], told, tmp_path, net="lenet5")
    *_, ended = told.trials
    assert (ended.label, ended.state) == ("lr-range-test", "diverged")
    assert ended.config["learning_rate"] == 1e6
    first = next(record for record in told.all if isinstance(record, EpochRecord))
    assert (first.val_loss, first.learning_rate) == (None, 1e6)


def test_records_without_a_service_keep_what_was_chosen(tmp_path: Path) -> None:
    file = RecordsFile(tmp_path)
    job([TAME], file, tmp_path / "out")
    spec = JobSpec.model_validate(spec_document(**{**SHORT, "methods": [TAME]}))
    [progress] = file.trials(spec)
    assert progress.config["learning_rate"] == file.records()[0].learning_rate
