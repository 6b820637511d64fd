import json

import pytest
from hypothesis import given, settings
from pydantic import ValidationError

from service.wire.worker import Assignment, BranchRecord, CheckpointRef, EpochRecord, Outcome, most_samples
from tests.unit.service.reports import audit, branch, checkpoint, epoch, layers, valid_records, warmup_epoch

CHOSEN = {"state": "chosen", "learning_rate": 0.05}


@settings(max_examples=50)
@given(record=valid_records())
def test_a_record_survives_json_and_keeps_its_fingerprint(record):
    again = EpochRecord.model_validate_json(record.model_dump_json())
    assert again == record
    assert again.fingerprint() == record.fingerprint()


@pytest.mark.parametrize("field", sorted(EpochRecord.model_fields))
def test_the_fingerprint_changes_with_every_field(field):
    other = {
        "label": "sweep",
        "trial": 2,
        "epoch": 2,
        "phase": "warmup",
        "learning_rate": 0.06,
        "first_learning_rate": 0.06,
        "last_learning_rate": 0.05,
        "train_loss": None,
        "val_loss": 1.5000000000000002,
        "val_accuracy": 0.75,
        "test_accuracy": 0.75,
        "retries": 1,
        "rollbacks": 1,
        "iterations": 23,
        "samples": 1409,
        "evaluation_samples": 793,
        "seconds": 3.25,
        "pretrain_seconds": 1.25,
        "main_train_seconds": 2.25,
        "branches": [branch(1, **CHOSEN)],
        "audit": audit(),
        "layers": layers(),
        "source_trial": 3,
        "source_epoch": 4,
        "checkpoint": checkpoint(1),
    }
    assert epoch().model_copy(update={field: other[field]}).fingerprint() != epoch().fingerprint()


def test_a_missing_number_is_null():
    record = epoch(
        train_loss=None, val_loss=None, branches=[branch(1, metric=None, state="diverged"), branch(2, **CHOSEN)]
    )
    document = json.loads(record.model_dump_json())
    assert (document["train_loss"], document["val_loss"], document["branches"][0]["metric"]) == (None, None, None)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(
    "field", ["train_loss", "val_loss", "val_accuracy", "test_accuracy", "seconds", "learning_rate"]
)
def test_a_non_finite_number_is_refused(field, bad):
    with pytest.raises(ValidationError, match=field):
        epoch(**{field: bad})


@pytest.mark.parametrize(
    ("field", "bad"),
    [
        ("epoch", 0),
        ("epoch", True),
        ("epoch", "1"),
        ("epoch", 2**31),
        ("trial", 0),
        ("trial", 2**31),
        ("label", ""),
        ("label", "x" * 51),
        ("label", "a\0"),
        ("phase", "main"),
        ("learning_rate", 0),
        ("first_learning_rate", -0.1),
        ("last_learning_rate", 1.1e6),
        ("audit", {}),
        ("layers", {}),
        ("val_accuracy", 1.01),
        ("val_accuracy", -0.01),
        ("val_accuracy", None),
        ("test_accuracy", 64),
        ("iterations", -1),
        ("iterations", 2.0),
        ("samples", 2**63),
        ("evaluation_samples", -1),
        ("retries", 11),
        ("rollbacks", -1),
        ("seconds", -0.1),
        ("pretrain_seconds", -0.1),
        ("main_train_seconds", -0.1),
        ("bogus", 1),
    ],
)
def test_a_wrong_field_is_refused(field, bad):
    with pytest.raises(ValidationError, match=field):
        EpochRecord.model_validate({**epoch().model_dump(), field: bad})


@pytest.mark.parametrize(
    ("field", "bad"),
    [("number", 0), ("retry", 11), ("learning_rate", 0), ("metric", float("nan")), ("state", "won"), ("samples", -1)],
)
def test_a_wrong_field_of_a_branch_is_refused(field, bad):
    with pytest.raises(ValidationError, match=field):
        branch(**{field: bad})


@pytest.mark.parametrize("name", ["", "a/b", "..", "A", "x" * 101, "a\0", "a\n"])
def test_a_checkpoint_lies_in_a_folder_of_the_job(name):
    with pytest.raises(ValidationError, match="name"):
        CheckpointRef(name=name, manifest_sha256="0" * 64)


@pytest.mark.parametrize("digest", ["", "0" * 63, "0" * 65, "A" * 64, "0" * 64 + "\n"])
def test_a_checkpoint_has_a_digest(digest):
    with pytest.raises(ValidationError, match="manifest_sha256"):
        CheckpointRef(name="epoch-1", manifest_sha256=digest)


@pytest.mark.parametrize("numbers", [[2, 3], [1, 3], [2, 1], [1, 1], [0, 1]])
def test_branches_are_numbered_from_one(numbers):
    chosen, lost = branch(1, **CHOSEN).model_copy(update={"number": numbers[0]}), branch(1)
    with pytest.raises(ValidationError, match="numbered 1, 2, 3"):
        epoch(branches=[chosen, lost.model_copy(update={"number": numbers[1]})])


@pytest.mark.parametrize(
    "branches",
    [
        [],
        [branch(1, learning_rate=0.05)],
        [branch(1, learning_rate=0.05, state="diverged", metric=None)],
        [branch(1, **CHOSEN), branch(2, **CHOSEN)],
    ],
    ids=["none", "all lost", "all diverged", "two"],
)
def test_a_pretrain_has_exactly_one_chosen_branch(branches):
    with pytest.raises(ValidationError, match="exactly one chosen branch, and another epoch has none"):
        epoch(branches=branches)


def raced(*learning_rates: float) -> list[BranchRecord]:
    """A look that was eliminated, and the finalists, the first of which is chosen."""
    looks = [branch(1, state="eliminated", learning_rate=1.0)]
    for number, learning_rate in enumerate(learning_rates, start=2):
        state = "chosen" if number == 2 else "lost"
        looks.append(branch(number, state=state, learning_rate=learning_rate))
    return looks


@pytest.mark.parametrize("finalists", [(0.05, 0.1), (0.1, 0.03), (0.02, 0.05)])
def test_an_epoch_behind_a_race_has_a_learning_rate_between_its_finalists(finalists):
    assert epoch(branches=raced(*finalists)).learning_rate == 0.05


@pytest.mark.parametrize(
    "branches",
    [
        [branch(1, state="chosen", learning_rate=0.1)],
        [branch(1, state="chosen", learning_rate=0.1), branch(2, learning_rate=0.03)],  # no race
        raced(0.06, 0.1),
        raced(0.02, 0.04),
    ],
    ids=["one", "no race", "finalists above", "finalists below"],
)
def test_an_epoch_without_the_learning_rate_that_was_chosen_is_refused(branches):
    with pytest.raises(ValidationError, match="that of its chosen branch, or between a race's finalists"):
        epoch(branches=branches)


@pytest.mark.parametrize("phase", ["warmup", "scheduled"])
def test_an_epoch_without_pretrain_chooses_nothing(phase):
    assert warmup_epoch(phase=phase).branches == []
    with pytest.raises(ValidationError, match="exactly one chosen branch"):
        warmup_epoch(phase=phase, learning_rate=0.05, branches=[branch(1, **CHOSEN)])


def test_the_envelope_may_have_come_down_to_nothing():
    assert epoch(last_learning_rate=0.0).last_learning_rate == 0


@pytest.mark.parametrize(
    ("field", "bad"), [("branches", 0), ("regret", -0.1), ("rank_correlation", -1.1), ("samples", -1)]
)
def test_a_wrong_field_of_an_audit_is_refused(field, bad):
    with pytest.raises(ValidationError, match=field):
        audit(**{field: bad})


# --- telemetry -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "bad"),
    [
        ("names", []),
        ("names", ["0.weight", ""]),
        ("names", ["0.weight", "$x$"]),
        ("names", ["0.weight", "x" * 201]),
        ("first_step", -1),
        ("every", 0),
        ("lwn", [[-0.1, 1.0, 1.0], [1.0, 1.0, 1.0]]),
        ("lgn", [[float("nan"), 1.0, 1.0], [1.0, 1.0, 1.0]]),
        ("trust_ratio", [[float("inf"), 1.0, 1.0], [1.0, 1.0, 1.0]]),
    ],
)
def test_a_wrong_field_of_layers_is_refused(field, bad):
    with pytest.raises(ValidationError, match=field):
        layers(**{field: bad})


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"names": ["a", "a"]}, "each layer once"),
        ({"lwn": [[1.0] * 3]}, "a list for each layer"),
        ({"lgn": [[1.0] * 3, [1.0] * 2]}, "as many numbers"),
        ({"trust_ratio": []}, "a list for each layer"),
        ({"lwn": [[], []], "lgn": [[], []], "trust_ratio": None}, "2 layers has 1 to 200 samples"),
        ({"lwn": [[1.0] * 201] * 2, "lgn": [[1.0] * 201] * 2, "trust_ratio": None}, "2 layers has 1 to 200 samples"),
    ],
)
def test_layers_that_do_not_fit_together_are_refused(changes, why):
    with pytest.raises(ValidationError, match=why):
        layers(**changes)


def test_the_more_layers_the_fewer_samples():
    assert [most_samples(layers) for layers in (1, 54, 100, 101, 161, 1000)] == [200, 200, 200, 198, 124, 20]
    names = [f"{n}.weight" for n in range(1000)]
    full = layers(names=names, lwn=[[1.0] * 20] * 1000, lgn=[[1.0] * 20] * 1000, trust_ratio=None)
    assert len(full.names) == 1000
    with pytest.raises(ValidationError, match="1 to 20 samples"):
        layers(names=names, lwn=[[1.0] * 21] * 1000, lgn=[[1.0] * 21] * 1000, trust_ratio=None)
    with pytest.raises(ValidationError, match="at most 1000"):
        layers(names=[*names, "one.more"], lwn=[[1.0]] * 1001, lgn=[[1.0]] * 1001, trust_ratio=None)


def test_branches_for_every_retry_of_the_largest_set():
    # 64 candidates, the 16 that a stage adds and the two that extend them, 10 retries
    most = [branch(n, **(CHOSEN if n == 1 else {})) for n in range(1, 82 * 11 + 1)]
    assert len(epoch(branches=most).branches) == 902
    with pytest.raises(ValidationError, match="at most 902"):
        epoch(branches=[*most, branch(903)])


def test_records_are_frozen():
    for record in (epoch(), branch(), Outcome(state="succeeded")):
        for name in type(record).model_fields:
            with pytest.raises(ValidationError, match="frozen"):
                setattr(record, name, getattr(record, name))


def test_a_failure_says_why():
    outcome = Outcome(state="failed", code="diverged", message="every branch diverged")
    assert Outcome.model_validate_json(outcome.model_dump_json()) == outcome


@pytest.mark.parametrize(
    "values",
    [
        {"state": "failed"},
        {"state": "failed", "code": "diverged"},
        {"state": "failed", "message": "every branch diverged"},
        {"state": "failed", "code": "", "message": ""},
        {"state": "succeeded", "code": "diverged", "message": "every branch diverged"},
    ],
)
def test_a_failure_and_only_a_failure_has_a_code_and_a_message(values):
    with pytest.raises(ValidationError, match="only a failure, has a code and a message"):
        Outcome(**values)


@pytest.mark.parametrize("state", ["cancelled", "running", ""])
def test_a_worker_cannot_end_a_job_otherwise(state):
    with pytest.raises(ValidationError, match="state"):
        Outcome(state=state)


def test_the_token_is_not_shown():
    assert "s3cret" not in repr(Assignment(job_id="job-1", attempt=1, spec="{}", report_token="s3cret"))
