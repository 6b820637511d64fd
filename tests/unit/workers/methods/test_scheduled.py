"""Trainings without search, and the jobs that have several methods."""

import math
from pathlib import Path
from typing import Any
from unittest.mock import patch

import dadaptation
import numpy as np
import prodigyopt
import prodigyplus
import pytest
import schedulefree
import torch
from PIL import Image

from service.errors import Diverged
from service.spec.data import FolderDataset
from service.spec.job import JobSpec
from service.wire.worker import EpochRecord, ResumePoint, TrialProgress, TrialRecord
from tests.builders import nested, spec_document
from tests.unit.workers.ranks import CPU, NETS, Ranks, digits, make_stpt, make_trainer, stpt_of
from workers.build import build_trainer
from workers.datasets.load import load_data
from workers.engine.groups import Workers
from workers.methods import make_training
from workers.methods.base import Training
from workers.models import build as models
from workers.trainings import train_job, trainings_left

pytest_plugins = ["tests.unit.workers.ranks"]

TRAIN_SAMPLES = 6 * 48  # six iterations an epoch
SHORT: dict[str, Any] = {
    "epochs": 4,
    "global_batch_size": 48,
    "dataset": {"name": "digits", "train_samples": TRAIN_SAMPLES},
    "pretrain": {"iterations": 2},
}


def trained(net: str, method: dict[str, Any], trial: int = 1, **changes: Any) -> tuple[list[EpochRecord], str]:
    with patch.dict(models.BUILDERS, {"lenet5": NETS[net]}):
        spec = JobSpec.model_validate(spec_document(**{**SHORT, **changes, "methods": [method]}))
        training = make_training(spec.methods[0], trial, spec, digits(TRAIN_SAMPLES), Workers(CPU))
    return list(training.epochs()), training.trainer.state.digest()


@pytest.mark.parametrize("lr_schedule", ["constant", "linear", "cosine"])
def test_the_trials_of_a_sweep_are_plain_trainings(lr_schedule: str) -> None:
    method = {"name": "sweep", "learning_rates": [0.1, 0.02], "lr_schedule": lr_schedule}
    records, end = trained("batch-norm", method, trial=2)
    plain = make_trainer("batch-norm", **SHORT)
    for epoch, record in enumerate(records, start=1):
        done = [(6 * (epoch - 1) + iteration) / 24 for iteration in range(6)]
        factors = {
            "constant": [1.0] * 6,
            "linear": [1 - progress for progress in done],
            "cosine": [
                (1 + torch.cos(torch.tensor(torch.pi * progress, dtype=torch.float64)).item()) / 2 for progress in done
            ],
        }[lr_schedule]
        rates = [0.02 * factor for factor in factors]
        plain.train(epoch, range(6), rates, plain.workers.world, 1)
        assert (record.label, record.trial, record.phase, record.branches) == ("sweep", 2, "scheduled", [])
        assert record.learning_rate == 0.02
        assert (record.first_learning_rate, record.last_learning_rate) == pytest.approx(
            (rates[0], rates[-1]), rel=1e-12
        )
        assert (record.iterations, record.samples, record.pretrain_seconds) == (6, 288, 0)
    if lr_schedule != "cosine":  # another cosine may differ in the last bit
        assert plain.state.digest() == end


def test_the_reference_divides_its_learning_rate_when_accuracy_saturates() -> None:
    method = {"name": "reference", "learning_rate": 1e-9, "factor": 10.0, "patience": 1}  # so small: nothing improves
    records, _ = trained("plain", method, warmup={"epochs": 2})
    assert [record.learning_rate for record in records] == pytest.approx([1e-9, 1e-9, 1e-10, 1e-11])
    assert {record.phase for record in records} == {"scheduled"}  # the reference of Yamada et al. has no warm-up


@pytest.mark.parametrize("lr_schedule", ["constant", "linear"])
@pytest.mark.parametrize("net", ["plain", "batch-norm", "dropout"])
def test_a_replay_ends_with_the_very_weights_of_the_search(net: str, lr_schedule: str) -> None:
    changes = {
        "lr_schedule": lr_schedule,
        "warmup": {"epochs": 1},
        "lr_set": {"factors": [2.0, 1.0, 0.5]},
        "pretrain": {"iterations": 2, "weights": "averaged"},
        "guards": {"rescale_momentum": True},
    }
    search = make_stpt(net, **{**SHORT, **changes})
    searched = list(search.epochs())
    schedule = {
        "learning_rates": [record.learning_rate for record in searched],
        "lr_schedule": lr_schedule,
        "warmup_epochs": 1,
    }
    records, end = trained(net, {"name": "replay", "schedule": schedule}, **changes)
    assert end == search.trainer.state.digest()
    for record, source in zip(records, searched, strict=True):
        assert (record.val_loss, record.test_accuracy) == (source.val_loss, source.test_accuracy)
        assert (record.first_learning_rate, record.last_learning_rate) == (
            source.first_learning_rate,
            source.last_learning_rate,
        )
        assert record.samples == 6 * 48


def test_branches_are_judged_by_the_mean_of_their_last_weights() -> None:
    """alpha = 5: the mean of the weights after iterations 3, 4 and 5; Main-train goes on from the last ones."""
    stpt = make_stpt(
        "batch-norm",
        epochs=1,
        lr_set={"learning_rates": [0.05]},
        pretrain={"iterations": 5, "weights": "averaged"},
        main_train={"iterations": 0},
        metric="val_loss",
    )
    [record] = stpt.epochs()
    plain = make_trainer("batch-norm", epochs=1)
    tensors = [*plain.model.parameters(), *(b for b in plain.model.buffers() if b.is_floating_point())]
    sums = [torch.zeros_like(tensor) for tensor in tensors]
    for iteration in range(5):
        plain.train(1, range(iteration, iteration + 1), [0.05], plain.workers.world, 1)
        if iteration >= 2:
            for total, tensor in zip(sums, tensors, strict=True):
                total += tensor.detach()
    assert stpt.trainer.state.digest() == plain.state.digest()
    with torch.no_grad():
        for total, tensor in zip(sums, tensors, strict=True):
            tensor.copy_(total / 3)
    mean = plain.evaluate(plain.data.validation, plain.workers.world)
    assert record.branches[0].metric == pytest.approx(mean.loss, rel=1e-6)


@pytest.mark.parametrize("momentum", [False, True])
def test_a_search_at_a_larger_batch_is_that_of_a_job_with_the_scaled_values(momentum: bool) -> None:
    """Learning rate 0.1 and momentum 0.5 at batch 12 are 0.4, or 0.875, at 48."""
    sgd, changes = {"name": "sgd", "momentum": 0.5}, {"lr_set": {"factors": [1.0, 0.5]}, "initial_learning_rate": 0.1}
    scaling = {"rule": "linear", "base_batch_size": 12, "momentum": momentum}
    records, end = trained("plain", {"name": "stpt", "scaling": scaling}, **changes, optimizer=sgd)
    written_out = {"optimizer": sgd | {"momentum": 0.875}} if momentum else {"initial_learning_rate": 0.4}
    assert [branch.learning_rate for branch in records[0].branches] == ([0.1, 0.05] if momentum else [0.4, 0.2])
    others, other_end = trained("plain", {"name": "stpt"}, **{**changes, "optimizer": sgd, **written_out})
    assert end == other_end
    assert [one.val_loss for one in records] == [one.val_loss for one in others]


# --- several methods in one job ----------------------------------------------------------------------


class Records:
    def __init__(self) -> None:
        self.all: list[EpochRecord] = []
        self.ended: list[TrialRecord] = []

    def trial(self, record: TrialRecord) -> None:
        self.ended.append(record)

    def epoch(self, record: EpochRecord) -> None:
        self.all.append(record)

    def waiting_epochs(self) -> int:
        return 0

    def waits_for(self, reason: str | None) -> None:
        pass

    def flush(self) -> None:
        pass

    def points(self) -> list[ResumePoint]:
        return [
            ResumePoint(
                label=r.label, trial=r.trial, epoch=r.epoch, val_accuracy=r.val_accuracy, checkpoint=r.checkpoint
            )
            for r in reversed(self.all)
            if r.checkpoint is not None
        ]

    def progress(self) -> list[TrialProgress]:
        """As the API tells it: the epochs of a trial here are 2."""
        trials: dict[tuple[str, int], list[EpochRecord]] = {}
        for r in self.all:
            trials.setdefault((r.label, r.trial), []).append(r)
        return [
            TrialProgress(
                label=method,
                trial=trial,
                key=None,
                seed=0,
                config={},
                state="completed" if len(records) == 2 else "running",
                epochs=len(records),
                samples=sum(r.samples for r in records),
            )
            for (method, trial), records in trials.items()
        ]


METHODS = ["stpt", {"name": "sweep", "learning_rates": [0.1, 0.05]}, "reference"]


def test_a_job_trains_its_methods_in_order_and_goes_on_where_it_was(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setitem(models.BUILDERS, "lenet5", NETS["batch-norm"])
    spec = JobSpec.model_validate(spec_document(**{**SHORT, "epochs": 2, "methods": METHODS}))

    def job(records: Records, folder: Path, attempt: int) -> Any:
        return train_job(
            spec,
            digits(TRAIN_SAMPLES),
            Workers(CPU),
            points=records.points(),
            trials=records.progress(),
            attempt=attempt,
            folder=folder,
            recorder=records,
        )

    whole, broken = Records(), Records()
    list(job(whole, tmp_path / "whole", 1))
    keys = [("stpt", 1), ("sweep", 1), ("sweep", 2), ("reference", 1)]
    assert [(r.label, r.trial, r.epoch) for r in whole.all] == [(*key, epoch) for key in keys for epoch in (1, 2)]
    # the attempt ends after the first epoch of the second trial of the sweep
    for record in job(broken, tmp_path / "broken", 1):
        if (record.label, record.trial) == ("sweep", 2):
            break
    assert len(broken.all) == 5
    list(job(broken, tmp_path / "broken", 2))
    timeless = {"seconds", "pretrain_seconds", "main_train_seconds", "checkpoint", "branches"}
    assert [r.model_dump(exclude=timeless) for r in broken.all] == [r.model_dump(exclude=timeless) for r in whole.all]


# --- schedules and optimizers beside stpt ----------------------------------------------------------------


def rates_of(records: list[EpochRecord]) -> list[tuple[float, float]]:
    return [(record.first_learning_rate, record.last_learning_rate) for record in records]


def test_one_cycle_is_torchs() -> None:
    records, _ = trained("plain", {"name": "one-cycle", "learning_rate": 0.2})
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.2, total_steps=24, cycle_momentum=False)
    rates = []
    for _ in range(24):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        theirs.step()
    expected = [(rates[first], rates[first + 5]) for first in (0, 6, 12, 18)]
    assert np.allclose(rates_of(records), expected, rtol=1e-12)


def test_cosine_falls_from_the_initial_learning_rate_to_nothing() -> None:
    records, _ = trained("plain", {"name": "cosine"}, initial_learning_rate=0.08)
    assert {record.learning_rate for record in records} == {0.08}
    assert rates_of(records)[0][0] == 0.08
    assert rates_of(records)[-1][1] == pytest.approx(0.04 * (1 + math.cos(math.pi * 23 / 24)))


def test_linear_falls_from_the_initial_learning_rate_to_nothing() -> None:
    """24 iterations: the first of an epoch has done 0, 6, 12 and 18 of them."""
    records, end = trained("plain", {"name": "linear"}, initial_learning_rate=0.08)
    assert {record.learning_rate for record in records} == {0.08}
    expected = [(0.08 * (1 - first / 24), 0.08 * (1 - (first + 5) / 24)) for first in (0, 6, 12, 18)]
    assert np.allclose(rates_of(records), expected, rtol=1e-12)
    _, swept = trained("plain", {"name": "sweep", "learning_rates": [0.08], "lr_schedule": "linear"})
    assert end == swept
    _, replayed = trained(
        "plain", {"name": "replay", "schedule": {"learning_rates": [0.08] * 4, "lr_schedule": "linear"}}
    )
    assert end == replayed


def test_wsd_warms_up_stays_and_cools_down() -> None:
    """24 iterations: a quarter to rise, the last half to fall."""
    records, _ = trained("plain", {"name": "wsd", "learning_rate": 0.2, "warmup": 0.25, "decay": 0.5})
    assert {record.learning_rate for record in records} == {0.2}
    half, last = 0.2 * (1 - math.sqrt(0.5)), 0.2 * (1 - math.sqrt(11 / 12))
    expected = [(0.2 / 6, 0.2), (0.2, 0.2), (0.2, 0.2 * (1 - math.sqrt(5 / 12))), (half, last)]
    assert np.allclose(rates_of(records), expected, rtol=1e-12)


def test_a_schedule_written_out_is_plain_sgd_at_those_learning_rates() -> None:
    """Batch 48 over base batch 12: learning rate 0.01 x 4, of which the first epoch has 0.01, the others a cosine."""
    scaling = {"rule": "linear", "base_batch_size": 12}
    method = {"name": "fixed", "learning_rate": 0.01, "scaling": scaling}
    method |= {"warmup": {"kind": "gradual", "epochs": 1}, "lr_schedule": "cosine"}
    records, end = trained("plain", method, epochs=3)
    rates = [0.01] * 6 + [0.04 * (1 + math.cos(math.pi * i / 12)) / 2 for i in range(12)]
    plain = make_trainer("plain", **{**SHORT, "epochs": 3})
    for epoch in (1, 2, 3):
        plain.train(epoch, range(6), rates[6 * epoch - 6 : 6 * epoch], plain.workers.world, 1)
    assert [(r.label, r.phase, r.learning_rate) for r in records] == [("fixed", "scheduled", 0.04)] * 3
    assert np.allclose(rates_of(records), [(rates[i], rates[i + 5]) for i in (0, 6, 12)], rtol=1e-12)
    assert plain.state.digest() == end


def test_a_schedule_may_scale_the_momentum() -> None:
    scaling = {"rule": "sqrt", "base_batch_size": 12, "momentum": True}  # 1 - (1 - 0.9) / 2
    records, end = trained("plain", {"name": "fixed", "learning_rate": 0.02, "scaling": scaling}, epochs=1)
    optimizer = {"name": "sgd", "momentum": 0.95}
    _, plain = trained("plain", {"name": "sweep", "learning_rates": [0.02]}, epochs=1, optimizer=optimizer)
    assert (records[0].learning_rate, end) == (0.02, plain)


PACKAGES = {
    "SGDScheduleFree": schedulefree.SGDScheduleFree,
    "AdamWScheduleFree": schedulefree.AdamWScheduleFree,
    "Prodigy": prodigyopt.Prodigy,
    "ProdigyPlusScheduleFree": prodigyplus.ProdigyPlusScheduleFree,
    "DAdaptSGD": dadaptation.DAdaptSGD,
    "DAdaptAdam": dadaptation.DAdaptAdam,
}


@pytest.mark.parametrize(
    ("method", "optimizer", "theirs"),
    [
        (
            "schedule-free",
            {"name": "sgd", "momentum": 0.9, "weight_decay": 1e-3},
            ("SGDScheduleFree", {"lr": 1.0, "momentum": 0.9}),
        ),
        ("schedule-free", {"name": "adamw", "weight_decay": 1e-3}, ("AdamWScheduleFree", {"lr": 0.0025})),
        ("prodigy", {"name": "sgd", "weight_decay": 1e-3}, ("Prodigy", {"lr": 1.0})),
        ("prodigy-schedule-free", {"name": "sgd", "weight_decay": 1e-3}, ("ProdigyPlusScheduleFree", {"lr": 1.0})),
        ("d-adaptation", {"name": "sgd", "weight_decay": 1e-3}, ("DAdaptSGD", {"momentum": 0.9})),
        ("d-adaptation", {"name": "rmsprop", "weight_decay": 1e-3}, ("DAdaptSGD", {})),
        ("d-adaptation", {"name": "adam", "weight_decay": 1e-3, "eps": 1e-6}, ("DAdaptAdam", {"eps": 1e-6})),
        (
            "d-adaptation",
            {"name": "adamw", "weight_decay": 1e-3, "betas": [0.8, 0.99]},
            ("DAdaptAdam", {"betas": (0.8, 0.99), "decouple": True}),
        ),
    ],
)
def test_what_stands_in_the_place_of_the_optimizer_is_its_package(
    method: str, optimizer: dict[str, Any], theirs: tuple[str, dict[str, Any]]
) -> None:
    records, end = trained("batch-norm", {"name": method}, epochs=2, optimizer=optimizer, lr_schedule="linear")
    plain = make_trainer("batch-norm", **{**SHORT, "epochs": 2})
    kind, options = theirs
    other = PACKAGES[kind](plain.model.parameters(), weight_decay=1e-3, **options)
    for epoch in (1, 2):
        plain.model.train()
        if "schedule-free" in method:
            other.train()
        order = plain._order(epoch)
        for iteration in range(6):
            done = (6 * (epoch - 1) + iteration) / 12
            if method == "prodigy":
                other.param_groups[0]["lr"] = (1 + math.cos(math.pi * done)) / 2
            if method == "d-adaptation":
                other.param_groups[0]["lr"] = 1 - done
            images, labels = plain._inputs(epoch, iteration, [0], range(48), order)
            other.zero_grad()
            torch.nn.functional.cross_entropy(plain.model(images), labels).backward()
            other.step()
        if "schedule-free" in method:
            other.eval()
            plain.model.train()
            with torch.no_grad():
                for iteration in range(6):
                    plain.model(plain._inputs(epoch, iteration, [0], range(48), order)[0])
        loss = plain.evaluate(plain.data.validation, plain.workers.world).loss
        assert records[epoch - 1].val_loss == pytest.approx(loss, abs=1e-12)
    assert len(records) == 2
    assert all(record.samples == 6 * 48 for record in records)
    assert end


GO_ON = [
    "schedule-free", "prodigy", "prodigy-schedule-free", "dog", "d-adaptation", "mechanic", "linear", "wsd",
    "one-cycle", "fixed", "polling", {"name": "polling", "every": 4},
]  # fmt: skip


@pytest.mark.parametrize("method", GO_ON, ids=str)
def test_they_go_on_from_a_checkpoint_as_if_nothing_had_happened(tmp_path: Path, method: Any, monkeypatch: Any) -> None:
    monkeypatch.setitem(models.BUILDERS, "lenet5", NETS["batch-norm"])
    spec = JobSpec.model_validate(spec_document(**{**SHORT, "epochs": 2, "methods": [method]}))

    def job(records: Records, folder: Path) -> Any:
        return train_job(
            spec, digits(TRAIN_SAMPLES), Workers(CPU), points=records.points(), trials=records.progress(), attempt=1,
            folder=folder, recorder=records,
        )  # fmt: skip

    whole, broken = Records(), Records()
    list(job(whole, tmp_path / "whole"))
    next(job(broken, tmp_path / "broken"))
    list(job(broken, tmp_path / "broken"))
    timeless = {"seconds", "pretrain_seconds", "main_train_seconds", "checkpoint"}
    assert [r.model_dump(exclude=timeless) for r in broken.all] == [r.model_dump(exclude=timeless) for r in whole.all]


@pytest.mark.parametrize(
    ("net", "method", "evaluated"),
    [
        ("batch-norm", "schedule-free", 144 + 360 + 6 * 48),  # statistics of the averaged weights, from all six batches
        ("plain", "schedule-free", 144 + 360),
        ("batch-norm", "cosine", 144 + 360),
    ],
)
def test_statistics_that_are_measured_anew_count_as_evaluation(net: str, method: str, evaluated: int) -> None:
    records, _ = trained(net, {"name": method}, epochs=1)
    assert [record.evaluation_samples for record in records] == [evaluated]


def run_of(net: str, method: Any, **changes: Any) -> Training:
    """A training of the method on this rank of the world, before its first step."""
    spec = JobSpec.model_validate(spec_document(**{**SHORT, "epochs": 2, **changes, "methods": [method]}))
    with patch.dict(models.BUILDERS, {"lenet5": NETS[net]}):
        return make_training(spec.methods[0], 1, spec, digits(TRAIN_SAMPLES), Workers(CPU))


@pytest.mark.parametrize(
    ("method", "remedy"),
    [
        ("linear", "a smaller learning rate"),
        ("wsd", "a smaller learning rate"),
        ("prodigy-schedule-free", "a smaller learning rate"),
        ("dog", "a smaller initial_distance"),
        ("d-adaptation", "a smaller learning rate"),
        ("mechanic", "another optimizer"),
        ("polling", "smaller learning_rates"),
    ],
)
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_where_they_diverge_they_say_what_helps(method: str, remedy: str, optimizer: str) -> None:
    training = run_of("plain", method, optimizer={"name": optimizer})
    training.trainer.model.register_forward_pre_hook(lambda _, inputs: (inputs[0] * math.nan,))
    with pytest.raises(Diverged, match=f"^epoch 1: the loss became non-finite .* of {method}, trial 1; .* {remedy}$"):
        list(training.epochs())


def ends(methods: list[str]) -> list[tuple[str, float | None]]:
    found = []
    for method in methods:
        training = run_of("dropout", method, workers=2)
        records = list(training.epochs())
        found.append((training.trainer.state.digest(), records[-1].val_loss))
    return found


def test_workers_stay_in_step_and_train_as_one_does_in_turn(ranks: Ranks) -> None:
    methods = ["linear", "wsd", "prodigy-schedule-free", "dog", "d-adaptation", "mechanic"]
    one, other = ranks(2, ends, methods)
    assert one == other
    [alone] = ranks(1, ends, methods)
    assert [loss for _, loss in one] == pytest.approx([loss for _, loss in alone], rel=1e-3)


def test_seeds_and_a_budget(tmp_path: Path) -> None:
    """Each seed's stpt decides what its baselines may take; what diverges ends alone."""
    methods = ["stpt", "cosine", {"name": "sweep", "learning_rates": [0.05, 1e6]}]
    spec = JobSpec.model_validate(
        spec_document(
            **{**SHORT, "epochs": 2, "seed": 5, "seeds": 2, "methods": methods}, budget={"relative_to": "stpt"}
        )
    )
    records = Records()
    list(
        train_job(
            spec, digits(TRAIN_SAMPLES), Workers(CPU), points=(), trials=(), attempt=1, folder=tmp_path,
            recorder=records,
        )
    )  # fmt: skip
    taken: dict[tuple[str, int], int] = {}
    for record in records.all:
        taken[record.label, record.trial] = taken.get((record.label, record.trial), 0) + record.samples
    epoch = 6 * 48
    # 8 candidates of 2 iterations, 4 of Main-train: 20 iterations an epoch
    assert [taken["stpt", trial] for trial in (1, 2)] == [2 * 20 * 48] * 2
    assert [taken["cosine", trial] for trial in (1, 2)] == [6 * epoch] * 2  # 6.67 epochs
    assert [taken["sweep", trial] for trial in (1, 2, 3, 4)] == [2 * epoch, epoch, 2 * epoch, epoch]
    told = [(r.label, r.trial, r.seed, r.epochs, r.state) for r in records.ended]
    assert told == [
        ("cosine", 1, 5, 6, "running"),
        ("cosine", 2, 6, 6, "running"),
        ("sweep", 2, 5, 2, "diverged"),
        ("sweep", 4, 6, 2, "diverged"),
    ]
    first = {(r.label, r.trial): r.val_loss for r in records.all if r.epoch == 1}
    assert first["stpt", 1] != first["stpt", 2]


def test_one_method_twice_with_settings_of_its_own(tmp_path: Path) -> None:
    """Each run of stpt ends as it would alone; the budget follows the one that it names, wherever that stands. Four
    times its 12 iterations are the two epochs of 20 that the other one would have without a budget."""
    short = {"name": "stpt", "label": "short", "lr_set": {"factors": [1.0]}, "pretrain": {"iterations": 1}}
    document = spec_document(**{**SHORT, "epochs": 2, "methods": ["cosine", "stpt", short]})
    document |= {"budget": {"relative_to": "short", "times": 4.0}}
    trained: dict[str, list[float | None]] = {}
    for number, methods in enumerate((document["methods"], document["methods"][1:2], document["methods"][2:])):
        spec = JobSpec.model_validate(
            document | {"methods": methods, "budget": document["budget"] if not number else None}
        )
        records = Records()
        folder = tmp_path / str(number)
        list(
            train_job(
                spec, digits(TRAIN_SAMPLES), Workers(CPU), points=(), trials=(), attempt=1, folder=folder,
                recorder=records,
            )
        )  # fmt: skip
        by_label = {r.label: [one.val_loss for one in records.all if one.label == r.label] for r in records.all}
        if not number:
            assert list(by_label) == ["short", "cosine", "stpt"]  # what the budget needs to know comes first
            assert len(by_label.pop("cosine")) == 8  # four times as long as short: it has a single candidate
            assert sorted(path.name for path in folder.iterdir()) == ["cosine-1", "short-1", "stpt-1"]
            trained = by_label
            assert trained["stpt"] != trained["short"]
        else:
            [(label, losses)] = by_label.items()
            assert losses == trained[label]


def test_what_is_left_to_train() -> None:
    methods = ["stpt", "random", {"name": "sweep", "learning_rates": [0.1, 0.2]}]
    spec = JobSpec.model_validate(spec_document(seed=5, seeds=2, methods=methods))
    everything = [
        ("stpt", 1, 5),
        ("stpt", 2, 6),
        *[("sweep", trial, seed) for trial, seed in ((1, 5), (2, 5), (3, 6), (4, 6))],
    ]

    def left(*trials: tuple[str, int, Any]) -> list[tuple[str, int, int]]:
        progress = [
            TrialProgress(label=name, trial=trial, key=None, seed=5, config={}, state=state, epochs=1, samples=1)
            for name, trial, state in trials
        ]
        return [(method.name, trial, seed) for method, trial, seed in trainings_left(spec, progress)]

    assert left() == left(("stpt", 1, "running"), ("random", 1, "completed")) == everything
    assert left(("stpt", 1, "completed"), ("sweep", 2, "diverged")) == [everything[i] for i in (1, 2, 4, 5)]
    assert left(*[(name, trial, "completed") for name, trial, _ in everything]) == []


# --- at the scale of Yamada et al. ------------------------------------------------------------------------


def resnet50_epoch(data_dir: str) -> tuple[list[tuple[int, int, int]], float, int]:
    """An epoch by the paper's preset, at 8 workers, on a tiny tree of images; its counts, choice and end."""
    document = {
        "preset": "stpt-paper",
        "dataset": {"name": "image-folder", "path": "tiny", "image_size": 64, "validation_fraction": 0.2},
        "global_batch_size": 16,
        "optimizer": {"name": "sgd", "momentum": 0.0},  # half the state to hand around
        "epochs": 1,
        "warmup": {"epochs": 0},
        "pretrain": {"weights": "raw", "batch": "per_worker", "iterations": 1},
    }
    spec, workers = JobSpec.model_validate(nested(**document)), Workers(CPU)
    assert isinstance(spec.dataset, FolderDataset)
    trainer = build_trainer(spec, load_data(spec.dataset, Path(data_dir), CPU), workers)
    [record] = stpt_of(trainer).epochs()
    assert record.val_loss is not None
    counts = [(branch.number, branch.iterations, branch.samples) for branch in record.branches]
    end = trainer.state.save(trainer.state.empty()).view(torch.int64).sum()  # eight digests of 200 MB take seconds
    return [*counts, (0, record.iterations, record.samples)], record.learning_rate, int(end)


def test_resnet50_with_eight_workers_and_87_percent_less(ranks: Ranks, tmp_path: Path) -> None:
    """Eight candidates on eight workers take the samples of one training, an eighth of the sweep's (Yamada et al., Fig.
    4)."""
    noise = np.random.default_rng(0)
    for folder, images in (("train", 20), ("test", 2)):
        for label in ("cat", "dog"):
            (tmp_path / "tiny" / folder / label).mkdir(parents=True)
            for number in range(images):
                pixels = noise.integers(0, 128, (64, 64, 3), dtype=np.uint8) + (100 if label == "cat" else 0)
                Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "tiny" / folder / label / f"{number}.png")
    (counts, learning_rate, end), *others = ranks(8, resnet50_epoch, str(tmp_path))
    assert all(other == (counts, learning_rate, end) for other in others)
    *branches, (_, _, samples) = counts
    # 40 images, 8 held out: 2 iterations of 16, of which alpha = 1; a branch takes 2 samples on its worker
    assert branches == [(number, 1, 2) for number in range(1, 9)]
    conventional = 8 * 2 * 16
    assert samples == 32
    assert 1 - samples / conventional == 0.875
