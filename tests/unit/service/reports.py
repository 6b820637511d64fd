"""Records as a worker would report them, and a Hypothesis strategy for all valid ones."""

from typing import Any

from hypothesis import strategies as st

from service.records import BranchRecord, CheckpointRef, EpochRecord


def branch(number: int = 1, **changes: Any) -> BranchRecord:
    values = {"learning_rate": 0.1, "metric": 0.5, "state": "lost", "iterations": 2, "samples": 128, "seconds": 0.5}
    return BranchRecord(number=number, **{**values, **changes})


def checkpoint(number: int, attempt: int = 1) -> CheckpointRef:
    return CheckpointRef(name=f"epoch-{number}-a{attempt}", manifest_sha256=f"{number:064x}")


def epoch(number: int = 1, **changes: Any) -> EpochRecord:
    """An STPT epoch of two branches, of which the second was chosen."""
    values: dict[str, Any] = {
        "phase": "stpt",
        "learning_rate": 0.05,
        "first_learning_rate": 0.05,
        "last_learning_rate": 0.045,
        "train_loss": 1.25,
        "val_loss": 1.5,
        "val_accuracy": 0.5,
        "test_accuracy": 0.25,
        "iterations": 22,
        "samples": 1408,
        "evaluation_samples": 792,
        "seconds": 3.5,
        "pretrain_seconds": 1.0,
        "main_train_seconds": 2.5,
        "branches": [branch(1, learning_rate=0.1), branch(2, learning_rate=0.05, state="chosen", metric=0.625)],
    }
    return EpochRecord(epoch=number, **{**values, **changes})


def warmup_epoch(number: int = 1, **changes: Any) -> EpochRecord:
    return epoch(number, **{"phase": "warmup", "learning_rate": 0.005, "branches": [], **changes})


RATE = st.floats(0, 1e6, exclude_min=True)
COUNT = st.integers(0, 2**63 - 1)
SECONDS = st.floats(0, 1e9)
METRIC = st.none() | st.floats(allow_nan=False, allow_infinity=False)
SHARE = st.floats(0, 1)


@st.composite
def valid_records(draw: st.DrawFn) -> EpochRecord:
    phase = draw(st.sampled_from(["warmup", "stpt"]))
    losers = [
        {"learning_rate": draw(RATE), "metric": draw(METRIC), "state": draw(st.sampled_from(["lost", "diverged"]))}
        for _ in range(draw(st.integers(0, 3) if phase == "stpt" else st.just(0)))
    ]
    rate = draw(RATE)
    chosen = [{"learning_rate": rate, "metric": draw(METRIC), "state": "chosen"}] if phase == "stpt" else []
    ordered = draw(st.permutations(losers + chosen))
    return epoch(
        draw(st.integers(1, 2**31 - 1)),
        method=draw(st.sampled_from(["stpt", "sweep"])),
        trial=draw(st.integers(1, 2**31 - 1)),
        phase=phase,
        learning_rate=rate,
        train_loss=draw(METRIC),
        val_loss=draw(METRIC),
        val_accuracy=draw(SHARE),
        test_accuracy=draw(SHARE),
        retries=draw(st.integers(0, 10)),
        iterations=draw(COUNT),
        samples=draw(COUNT),
        evaluation_samples=draw(COUNT),
        seconds=draw(SECONDS),
        pretrain_seconds=draw(SECONDS),
        main_train_seconds=draw(SECONDS),
        checkpoint=draw(st.none() | st.builds(checkpoint, st.integers(1, 99))),
        branches=[branch(n, retry=draw(st.integers(0, 10)), **values) for n, values in enumerate(ordered, start=1)],
    )
