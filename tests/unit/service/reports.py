"""Records as a worker would report them, and a Hypothesis strategy for all valid ones."""

from typing import Any

from hypothesis import strategies as st

from service.wire.worker import AuditRecord, BranchRecord, CheckpointRef, EpochRecord, LayersRecord


def branch(number: int = 1, **changes: Any) -> BranchRecord:
    values = {"learning_rate": 0.1, "metric": 0.5, "state": "lost", "iterations": 2, "samples": 128, "seconds": 0.5}
    return BranchRecord(number=number, **{**values, **changes})


def checkpoint(number: int, attempt: int = 1) -> CheckpointRef:
    return CheckpointRef(name=f"epoch-{number}-a{attempt}", manifest_sha256=f"{number:064x}")


def audit(**changes: Any) -> AuditRecord:
    return AuditRecord(**{"branches": 2, "samples": 2560, "regret": 0.0, "rank_correlation": 0.5, **changes})


def layers(**changes: Any) -> LayersRecord:
    """Two layers at steps 20, 30 and 40; the second one's last gradient was not finite."""
    values: dict[str, Any] = {
        "names": ["0.weight", "3.weight"],
        "first_step": 20,
        "every": 10,
        "lwn": [[1.5, 1.25, 1.0], [3.0, 2.0, 1.0]],
        "lgn": [[0.5, 0.25, 0.0], [2.0, 4.0, None]],
        "trust_ratio": [[0.003, 0.005, 1.0], [0.0015, 0.0005, None]],
    }
    return LayersRecord(**{**values, **changes})


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


def scheduled_epoch(number: int = 1, **changes: Any) -> EpochRecord:
    return epoch(number, **{"phase": "scheduled", "branches": [], **changes})


RATE = st.floats(0, 1e6, exclude_min=True)
COUNT = st.integers(0, 2**63 - 1)
SECONDS = st.floats(0, 1e9)
METRIC = st.none() | st.floats(allow_nan=False, allow_infinity=False)
SHARE = st.floats(0, 1)


def _layers_of(names: list[str], samples: int) -> st.SearchStrategy[LayersRecord]:
    norms = st.lists(st.none() | st.floats(0, 1e38), min_size=samples, max_size=samples)
    quantity = st.lists(norms, min_size=len(names), max_size=len(names))
    return st.builds(
        LayersRecord,
        names=st.just(names),
        first_step=COUNT,
        every=st.integers(1, 2**31 - 1),
        lwn=quantity,
        lgn=quantity,
        trust_ratio=st.none() | quantity,
    )


NAMES = st.lists(st.text("aZ0_.-", min_size=1, max_size=200), min_size=1, max_size=3, unique=True)
LAYERS = NAMES.flatmap(lambda names: st.integers(1, 3).flatmap(lambda samples: _layers_of(names, samples)))


@st.composite
def valid_records(draw: st.DrawFn) -> EpochRecord:
    phase = draw(st.sampled_from(["warmup", "stpt", "scheduled"]))
    losers = [
        {
            "learning_rate": draw(RATE),
            "metric": draw(METRIC),
            "end_metric": draw(METRIC),
            "state": draw(st.sampled_from(["lost", "eliminated", "diverged", "rolled_back"])),
        }
        for _ in range(draw(st.integers(0, 3) if phase == "stpt" else st.just(0)))
    ]
    rate = draw(RATE)
    chosen = [{"learning_rate": rate, "metric": draw(METRIC), "state": "chosen"}] if phase == "stpt" else []
    ordered = draw(st.permutations(losers + chosen))
    return epoch(
        draw(st.integers(1, 2**31 - 1)),
        label=draw(st.sampled_from(["stpt", "sweep"])),
        trial=draw(st.integers(1, 2**31 - 1)),
        phase=phase,
        learning_rate=rate,
        first_learning_rate=draw(st.floats(0, 1e6)),
        last_learning_rate=draw(st.floats(0, 1e6)),
        rollbacks=draw(st.integers(0, 3)),
        audit=draw(
            st.none() | st.builds(audit, regret=st.floats(0, 1e9), rank_correlation=st.none() | st.floats(-1, 1))
        ),
        layers=draw(st.none() | LAYERS),
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
