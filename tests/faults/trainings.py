"""Training: the real loop on digits in this process, without a service: damaged checkpoints, and branches whose numbers
are not finite."""

import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import cache
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from service.spec.data import NamedDataset
from service.spec.job import JobSpec
from service.wire.checkpoint import MANIFEST, STATE, TRAINING, UnusableCheckpoint, folder_of, open_state
from service.wire.worker import EpochRecord
from tests.builders import spec_document
from tests.faults.bench import Bench
from tests.faults.invariants import Kind, Violation
from workers.datasets.load import Data, load_data
from workers.engine.groups import Workers
from workers.engine.trainer import Trainer
from workers.methods.branches import End, Placement
from workers.methods.stpt import Stpt
from workers.methods.stpt_epoch import Epoch
from workers.records_file import RecordsFile
from workers.trainings import train_job

EPOCHS = 4
RATES = (0.2, 0.1, 0.05)
SPEC: dict[str, Any] = {
    "epochs": EPOCHS,
    "lr_set": {"learning_rates": list(RATES)},
    "pretrain": {"iterations": 2},
    "main_train": {"iterations": 4},
}
TIMES = {"seconds", "pretrain_seconds", "main_train_seconds"}
Told = dict[str, Any]  # a record, but for what a repetition may change

torch.set_num_threads(1)


def train(folder: Path, attempt: int, epochs: int = EPOCHS) -> list[Told]:
    """Train on in `folder` until so many epochs are recorded there, and leave off; what is told of each."""
    spec = JobSpec.model_validate(spec_document(**SPEC))
    folder.mkdir(exist_ok=True)
    file = RecordsFile(folder)
    training = train_job(
        spec,
        _digits(),
        Workers(torch.device("cpu")),
        points=file.points(),
        trials=file.trials(spec),
        attempt=attempt,
        folder=folder,
        recorder=file,
    )
    for record in training:
        if record.epoch == epochs:
            break
    records = {record.epoch: record for record in file.records()}
    return [_told(records[epoch]) for epoch in sorted(records)]


@cache
def _digits() -> Data:
    return load_data(NamedDataset(name="digits"), Path(), torch.device("cpu"))


def _told(record: EpochRecord) -> Told:
    assert record.checkpoint is not None
    exclude: Any = dict.fromkeys(TIMES | {"checkpoint"}, True) | {"branches": {"__all__": {"seconds"}}}
    # the manifest has the hashes of weights, optimizer and position
    return record.model_dump(exclude=exclude) | {"manifest": record.checkpoint.manifest_sha256}


def _compared(of: str, told: Sequence[Told], expected: Sequence[Told]) -> list[Violation]:
    violations = [] if len(told) == len(expected) else [Violation(Kind.LEFT_BEHIND, of, f"it has {len(told)} epochs")]
    for one, other in zip(told, expected, strict=False):
        if one != other:
            keys = [key for key in one if one[key] != other[key]]
            violations.append(Violation(Kind.OTHER_RESULT, of, f"epoch {one['epoch']} differs in {', '.join(keys)}"))
            break
    return violations


# --- checkpoints -------------------------------------------------------------------------------------


def truncated(bench: Bench, numbers: Sequence[int], draw: Random) -> Iterator[Sequence[Violation]]:
    """Cut a file of the newest checkpoint, a sixteenth of it longer each time, and go on with the training."""
    for number, place in _attempts_with_three_epochs(bench, numbers):
        file = _newest(place) / (STATE, TRAINING, MANIFEST)[number % 3]
        content = file.read_bytes()
        file.write_bytes(content[: number % 16 * len(content) // 16])
        yield _resumed(place, f"{file.name} cut to {number % 16}/16")


def flipped(bench: Bench, numbers: Sequence[int], draw: Random) -> Iterator[Sequence[Violation]]:
    """Flip one bit in a file of the newest checkpoint, and of every fifth training of the one before as well."""
    for number, place in _attempts_with_three_epochs(bench, numbers):
        damaged = [_newest(place)] + [_newest(place, 2)] * (number % 5 == 0)
        sentence = ""
        for checkpoint in damaged:
            file = checkpoint / draw.choice((STATE, TRAINING, MANIFEST))
            content = bytearray(file.read_bytes())
            byte, bit = draw.randrange(len(content)), draw.randrange(8)
            content[byte] ^= 1 << bit
            file.write_bytes(content)
            sentence += f"{checkpoint.name}/{file.name} bit {bit} of byte {byte}; "
        yield _resumed(place, sentence)


def _attempts_with_three_epochs(bench: Bench, numbers: Sequence[int]) -> Iterator[tuple[int, Path]]:
    """For each number a folder in which three of four epochs are recorded, as a worker leaves it that was killed."""
    with bench.scratch() as folder:
        train(folder / "begun", attempt=1, epochs=EPOCHS - 1)
        train(folder / "undisturbed", attempt=1)
        for number in numbers:
            place = Path(shutil.copytree(folder / "begun", folder / "place"))
            yield number, place
            shutil.rmtree(place)


def _resumed(place: Path, damage: str) -> list[Violation]:
    violations = [*_served(place, damage)]
    expected = _undisturbed(place.parent / "undisturbed")
    violations += _compared(damage, train(place, attempt=2), expected)
    unfinished = [path.name for path in place.rglob(".epoch-*")]
    return violations + [Violation(Kind.FILE_LEFT, name, "is still there") for name in unfinished]


def _undisturbed(folder: Path) -> list[Told]:
    return [_told(record) for record in RecordsFile(folder).records()]


def _served(place: Path, damage: str) -> list[Violation]:
    """Whether weights are served out of a checkpoint that is not as it was written."""
    newest = RecordsFile(place).points()[0]
    if f"{newest.checkpoint.name}/{TRAINING}" in damage or damage.startswith(TRAINING):
        return []  # it is not served
    try:
        open_state(folder_of(place, "stpt", 1), newest.checkpoint).close()
    except UnusableCheckpoint:
        return []
    return [Violation(Kind.OTHER_RESULT, damage, "its weights are served")]


def _newest(place: Path, number: int = 1) -> Path:
    """The `number`-th newest checkpoint."""
    return folder_of(place, "stpt", 1) / RecordsFile(place).points()[number - 1].checkpoint.name


# --- numbers that are not finite -----------------------------------------------------------------------


def nan_branch(bench: Bench, numbers: Sequence[int], draw: Random) -> Iterator[Sequence[Violation]]:
    """A weight becomes NaN behind a step of one branch, or in every tenth training of all branches of an epoch. It ends
    as the training whose selector was told that these branches were worthless, though nothing had happened to them."""
    expected: dict[tuple[int, tuple[float, ...]], list[Told]] = {}
    for number in numbers:
        epoch = draw.randint(1, EPOCHS)
        rates = RATES if number % 10 == 9 else (draw.choice(RATES),)
        if (epoch, rates) not in expected:
            with bench.scratch() as folder, _worthless(epoch, rates):
                expected[epoch, rates] = train(folder, attempt=1)
        with bench.scratch() as folder, _poisoned(epoch, rates, step=draw.randrange(2), draw=draw):
            told = train(folder, attempt=1)
        yield _compared(f"NaN in epoch {epoch} at {rates}", told, expected[epoch, rates])


def _worthless(epoch: int, rates: Collection[float]) -> AbstractContextManager[object]:
    """Let these branches of the epoch have no result."""
    train_branch = Stpt.train_branch

    def judged_worthless(self: Stpt, its_epoch: Epoch, learning_rate: float, placement: Placement, end: Tensor) -> End:
        result = train_branch(self, its_epoch, learning_rate, placement, end)
        worthless = its_epoch.number == epoch and learning_rate in rates
        return result._replace(metric=float("nan")) if worthless else result

    return patch.object(Stpt, "train_branch", judged_worthless)


@contextmanager
def _poisoned(epoch: int, rates: Collection[float], step: int, draw: Random) -> Iterator[None]:
    """Let a weight become NaN behind the step of that number in each of these branches of the epoch."""
    train_branch, take_step = Stpt.train_branch, Trainer._take_step
    poisons = False

    def trained(self: Stpt, its_epoch: Epoch, learning_rate: float, placement: Placement, end: Tensor) -> End:
        nonlocal poisons
        poisons = its_epoch.number == epoch and learning_rate in rates
        try:
            return train_branch(self, its_epoch, learning_rate, placement, end)
        finally:
            poisons = False

    def stepped(self: Trainer, its_epoch: int, iteration: int) -> None:
        take_step(self, its_epoch, iteration)
        if poisons and iteration == step:
            weights = draw.choice([parameter.data.view(-1) for parameter in self.model.parameters()])
            weights[draw.randrange(len(weights))] = float("nan")

    with ExitStack() as stack:
        stack.enter_context(patch.object(Stpt, "train_branch", trained))
        stack.enter_context(patch.object(Trainer, "_take_step", stepped))
        yield
