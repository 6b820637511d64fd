"""A training that is killed anywhere and resumed ends as the one that was not: same history, same bits."""

import contextlib
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from service.wire.worker import EpochRecord, ResumePoint
from tests.unit.workers.ranks import Ranks, make_stpt
from workers import checkpoint
from workers.engine.trainer import Trainer
from workers.local import main
from workers.trainings import is_to_pause, run

pytest_plugins = ["tests.unit.workers.ranks"]

SPEC: dict[str, Any] = {
    "epochs": 4,
    "warmup": {"epochs": 1, "learning_rate": 0.02},
    "lr_set": {"factors": [2.0, 1.0, 0.5]},
    "pretrain": {"iterations": 2, "placement": "sequential"},  # all ranks take the same steps
    "main_train": {"iterations": 4},
}
STEPS = 4 * 6 + 3 * 2 * 2  # Main-train and warm-up of 4 epochs, two more branches of 2 iterations in 3 of them


class Killed(BaseException):
    pass


class Sql:
    """A recorder that stands for the reporter and the API's database: it keeps the newest record of every epoch."""

    def __init__(self) -> None:
        self.records: dict[int, EpochRecord] = {}
        self.dies_at: tuple[int, str] | None = None
        self.pause_asked = False

    def epoch(self, record: EpochRecord) -> None:
        if self.dies_at == (record.epoch, "before the report"):
            raise Killed
        assert record.epoch <= len(self.records) + 1
        self.records[record.epoch] = record
        if self.dies_at == (record.epoch, "after the report"):
            raise Killed

    def waiting_epochs(self) -> int:
        return 0

    def waits_for(self, reason: str | None) -> None:
        pass

    def flush(self) -> None:
        pass

    def points(self) -> list[ResumePoint]:
        points = [
            ResumePoint(epoch=r.epoch, val_accuracy=r.val_accuracy, checkpoint=r.checkpoint)
            for r in self.records.values()
            if r.checkpoint is not None
        ]
        return points[::-1]


def train(net: str, folder: Path, sql: Sql, attempt: int, dies_at_step: int | None = None, **changes: Any) -> str:
    """Run one attempt, and return the digest of its last state. Raises Killed at that step, counted from 0."""
    step, steps = Trainer._step, 0

    def counted(self: Trainer, *arguments: Any) -> None:
        nonlocal steps
        if steps == dies_at_step:
            raise Killed
        steps += 1
        step(self, *arguments)

    stpt = make_stpt(net, **{**SPEC, **changes})
    reporter: Any = sql if stpt.trainer.workers.rank == 0 else None
    with patch.object(Trainer, "_step", counted):
        for _ in run(stpt, sql.points(), attempt, folder, reporter):
            pass
    return stpt.trainer.state.digest()


def history(sql: Sql) -> list[Any]:
    times = {"seconds", "pretrain_seconds", "main_train_seconds", "checkpoint"}
    exclude: Any = dict.fromkeys(times, True) | {"branches": {"__all__": {"seconds"}}}
    return [sql.records[epoch].model_dump(exclude=exclude) for epoch in sorted(sql.records)]


def killed_and_resumed(net: str, folder: str, seed: int) -> tuple[str, list[Any], str, list[Any], int]:
    """(digest, history) without a fault and with 24 random ones, of which some hit an attempt that resumed."""
    undisturbed, root = Sql(), Path(folder)
    expected = train(net, root / "undisturbed", undisturbed, attempt=1)
    draw, kills = random.Random(seed), 0  # noqa: S311
    while kills < 24:
        sql, attempt, digest = Sql(), 1, None
        place = root / f"killed-{kills}"
        while digest is None:
            sql.dies_at, at_step = None, None
            if attempt <= 2:  # twice in one training
                where = draw.choice(["in a step", "in a step", "before the report", "after the report"])
                at_step = draw.randrange(STEPS) if where == "in a step" else None
                sql.dies_at = None if where == "in a step" else (draw.randint(1, SPEC["epochs"]), where)
            try:
                digest = train(net, place, sql, attempt, at_step)
            except Killed:
                kills += 1
            attempt += 1
        if digest != expected or history(sql) != history(undisturbed):
            return expected, history(undisturbed), digest, history(sql), kills
    return expected, history(undisturbed), digest, history(sql), kills


@pytest.mark.parametrize("net", ["plain", "batch-norm", "dropout"])
def test_at_least_20_random_kills_make_no_difference(net: str, ranks: Ranks, tmp_path: Path) -> None:
    [(expected, undisturbed, digest, resumed, kills)] = ranks(1, killed_and_resumed, net, str(tmp_path), 3)
    assert kills >= 20
    assert digest == expected
    assert resumed == undisturbed


def both_ranks_resume(folder: str) -> tuple[str, str, int]:
    """Two workers: without a fault, and killed in the third epoch with the newest checkpoint damaged as well."""
    undisturbed, sql = Sql(), Sql()
    expected = train("batch-norm", Path(folder) / "undisturbed", undisturbed, attempt=1)
    place = Path(folder) / "killed"
    with contextlib.suppress(Killed):
        train("batch-norm", place, sql, attempt=1, dies_at_step=6 + 10 + 9)
    newest = place / "epoch-000002-a1" / checkpoint.STATE
    if sql.records:  # rank 0
        newest.write_bytes(newest.read_bytes()[:-1])
    return expected, train("batch-norm", place, sql, attempt=2), len(sql.records)


def test_every_rank_goes_on_from_what_rank_0_read(ranks: Ranks, tmp_path: Path) -> None:
    (first, resumed_0, epochs), (second, resumed_1, _) = ranks(2, both_ranks_resume, str(tmp_path))
    assert first == second == resumed_0 == resumed_1
    assert epochs == 4


class Away(Sql):
    """The API takes nothing until `is_back`, and then all at once."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[EpochRecord] = []
        self.is_back = True
        self.told: list[str | None] = []

    def epoch(self, record: EpochRecord) -> None:
        self.waiting.append(record)
        if self.is_back:
            self.flush()

    def waiting_epochs(self) -> int:
        return len(self.waiting)

    def flush(self) -> None:
        for record in self.waiting:
            super().epoch(record)
        self.waiting.clear()

    def waits_for(self, reason: str | None) -> None:
        self.told.append(reason)


def kept_while_the_api_is_away(folder: str) -> list[list[str]]:
    """The checkpoints that are there behind each epoch, and at the end; the API is away behind epochs 1 to 3."""
    sql, place, kept = Away(), Path(folder), []
    stpt = make_stpt("plain", **SPEC)
    sql.is_back = False
    for record in run(stpt, sql.points(), 1, place, sql):
        kept.append(sorted(path.name for path in place.iterdir()))
        sql.is_back = record.epoch >= 3
    return [*kept, sorted(path.name for path in place.iterdir())]


def test_checkpoints_that_sql_does_not_know_of_are_kept(ranks: Ranks, tmp_path: Path) -> None:
    one, two, three, four = (f"epoch-00000{epoch}-a1" for epoch in (1, 2, 3, 4))
    [kept] = ranks(1, kept_while_the_api_is_away, str(tmp_path))
    assert kept[:3] == [[one], [one, two], [one, two, three]]
    assert {three, four} <= set(kept[3]) == set(kept[4])
    assert len(kept[4]) <= 3


def fails_twice(folder: str) -> tuple[list[str | None], list[int]]:
    """What is told of a disk that is full when the second checkpoint is to be written, and the epochs recorded."""
    sql, save, errors = Away(), checkpoint.save, [OSError(28, "full"), OSError(28, "full")]

    def full_at_first(folder: Path, name: str, *arguments: Any) -> Any:
        if errors and name.startswith("epoch-000002"):
            raise errors.pop()
        return save(folder, name, *arguments)

    with patch.object(checkpoint, "save", full_at_first), patch("tenacity.nap.time.sleep", lambda _: None):
        for _ in run(make_stpt("plain", **SPEC), [], 1, Path(folder), sql):
            pass
    return sql.told, list(sql.records)


def test_a_full_disk_makes_the_training_wait(ranks: Ranks, tmp_path: Path) -> None:
    [(told, epochs)] = ranks(1, fails_twice, str(tmp_path))
    reason = f"a disk that can be written: {tmp_path} (No space left on device)"
    assert told == [reason, reason, None]
    assert epochs == [1, 2, 3, 4]


def paused_and_resumed(folder: str, placement: str) -> tuple[str, list[Any], str, list[Any], int]:
    """(digest, history) undisturbed and with a pause behind every epoch but the last, and the number of attempts."""
    changes = {"pretrain": {"iterations": 2, "placement": placement}}
    undisturbed, sql, attempts, digest = Sql(), Sql(), 0, None
    expected = train("batch-norm", Path(folder) / "undisturbed", undisturbed, attempt=1, **changes)
    while digest is None:
        attempts += 1
        stpt = make_stpt("batch-norm", **{**SPEC, **changes})
        reporter: Any = sql if stpt.trainer.workers.rank == 0 else None
        for record in run(stpt, sql.points(), attempts, Path(folder) / "paused", reporter):
            sql.pause_asked = record.epoch < SPEC["epochs"]
            if is_to_pause(stpt.trainer.workers, reporter):
                break
        else:
            digest = stpt.trainer.state.digest()
    return expected, history(undisturbed), digest, history(sql), attempts


@pytest.mark.parametrize(("placement", "workers"), [("sequential", 1), ("sequential", 2), ("split", 2)])
def test_pauses_make_no_difference(ranks: Ranks, tmp_path: Path, placement: str, workers: int) -> None:
    """Rank 0 alone is asked; every rank ends behind the same epoch."""
    (expected, undisturbed, digest, resumed, attempts), *others = ranks(
        workers, paused_and_resumed, str(tmp_path), placement
    )
    assert attempts == 4
    assert digest == expected
    assert resumed == undisturbed
    assert [(other[2], other[4]) for other in others] == [(expected, 4)] * (workers - 1)


# --- the command: no service, no Ray -----------------------------------------------------------------


def test_the_command_trains_a_spec_and_goes_on_from_its_checkpoints(tmp_path: Path) -> None:
    spec = {"model": "lenet5", "dataset": "digits", "epochs": 2, "lr_set": {"factors": [1.0, 0.5]}}
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    command = [
        sys.executable,
        "-m",
        "workers.local",
        str(tmp_path / "spec.json"),
        "--checkpoints",
        str(tmp_path / "out"),
    ]
    first = subprocess.run(command, check=True, capture_output=True, text=True, timeout=200)
    *epochs, last = first.stdout.splitlines()
    assert [line.split(":")[0] for line in epochs] == ["stpt 1, epoch 1", "stpt 1, epoch 2"]
    result = json.loads(last)
    assert result["device"] == "cpu"
    assert f"test_accuracy {result['test_accuracy']:.4f}" in epochs[-1]
    assert "ray" not in first.stderr
    records = (tmp_path / "out" / "records.jsonl").read_text().splitlines()
    assert [EpochRecord.model_validate_json(line).epoch for line in records] == [1, 2]
    # the second epoch never was: only it is trained again, to the same end
    (tmp_path / "out" / "records.jsonl").write_text(records[0] + "\n")
    again = subprocess.run(command, check=True, capture_output=True, text=True, timeout=200).stdout.splitlines()
    assert len(again) == 2
    assert json.loads(again[-1])["test_accuracy"] == result["test_accuracy"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("model: lenet5\ndataset: digits\nepochs: none\n", '  epochs = "none": Input should be a valid integer'),
        ("model: lenet5\ndataset: digits\nlearning_rate: 5e-4\n", "  learning_rate = 0.0005: unknown key"),
        ("dataset: digits\n", "Invalid input:\n  model: Field required"),
        ("model: [lenet5\n", "spec.yaml cannot be read"),
    ],
)
def test_the_command_refuses_as_the_service_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, told: str
) -> None:
    (tmp_path / "spec.yaml").write_text(text)
    with pytest.raises(SystemExit) as stopped:
        main([str(tmp_path / "spec.yaml"), "--checkpoints", str(tmp_path / "out")])
    assert stopped.value.code == 2
    assert told in capsys.readouterr().err


def test_the_command_tells_a_training_that_diverges_and_goes_on_to_the_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    methods = [{"name": "cosine", "learning_rate": 1e6}, {"name": "one-cycle", "learning_rate": 0.05}]
    spec = {"model": "lenet5", "dataset": "digits", "epochs": 1, "methods": methods}
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    main([str(tmp_path / "spec.json"), "--checkpoints", str(tmp_path)])
    diverged, trained, _ = capsys.readouterr().out.splitlines()
    assert diverged.startswith("cosine 1, epoch 1: learning rate 1e+06, val_loss nan, val_accuracy 0.0000")
    assert trained.startswith("one-cycle 1, epoch 1: ")
    assert "nan" not in trained
