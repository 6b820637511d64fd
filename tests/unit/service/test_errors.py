"""Codes and statuses are published: a change here breaks somebody's client."""

import pytest

from service import errors
from service.errors import Conflict, FieldError, ForerunError, InvalidInput, TrainingFailed

PUBLISHED = {
    "ForerunError": ("internal", 500),
    "InvalidInput": ("invalid_input", 422),
    "ContentTooLarge": ("content_too_large", 413),
    "CrossSiteRequest": ("cross_site_request", 403),
    "UnsupportedMediaType": ("unsupported_media_type", 415),
    "NotAuthenticated": ("not_authenticated", 401),
    "NotAllowed": ("not_allowed", 403),
    "TooManyRequests": ("too_many_requests", 429),
    "TooExpensive": ("too_expensive", 422),
    "TooBusy": ("too_busy", 503),
    "ComputationLost": ("computation_lost", 503),
    "NotFound": ("not_found", 404),
    "NoWeights": ("no_weights", 404),
    "Conflict": ("conflict", 409),
    "StateConflict": ("state_conflict", 409),
    "IdempotencyConflict": ("idempotency_conflict", 409),
    "NotEnoughWorkers": ("not_enough_workers", 409),
    "RecordConflict": ("record_conflict", 409),
    "StaleAttempt": ("stale_attempt", 403),
    "ClusterUnreachable": ("cluster_unreachable", 503),
    "DatabaseUnavailable": ("database_unavailable", 503),
    "TooManyStreams": ("too_many_streams", 503),
    "TrainingFailed": ("training_failed", 500),
    "DatasetMissing": ("dataset_missing", 500),
    "Diverged": ("diverged", 500),
    "OutOfMemory": ("out_of_memory", 500),
    "WorkerFailed": ("worker_failed", 500),
    "AttemptsExhausted": ("attempts_exhausted", 500),
}


def family(error: type[ForerunError]) -> set[type[ForerunError]]:
    return {error}.union(*map(family, error.__subclasses__()))


def of_this_module(error: type[ForerunError]) -> dict[str, tuple[str, int]]:
    return {e.__name__: (e.code, e.status) for e in family(error) if e.__module__ == errors.__name__}


def test_codes_and_statuses():
    assert of_this_module(ForerunError) == PUBLISHED
    assert len({code for code, _ in PUBLISHED.values()}) == len(PUBLISHED)


def test_the_tree_as_drawn():
    conflicts = {"Conflict", "StateConflict", "IdempotencyConflict", "NotEnoughWorkers", "RecordConflict"}
    failures = {"TrainingFailed", "DatasetMissing", "Diverged", "OutOfMemory", "WorkerFailed", "AttemptsExhausted"}
    assert of_this_module(Conflict).keys() == conflicts
    assert of_this_module(TrainingFailed).keys() == failures
    assert issubclass(InvalidInput, ValueError)
    for name, (code, _) in PUBLISHED.items():
        if name not in ("ForerunError", "Conflict", "TrainingFailed"):
            assert f"{name} " in errors.__doc__
            assert f"{code} " in errors.__doc__


@pytest.mark.parametrize(
    "error", [getattr(errors, name) for name in sorted(PUBLISHED.keys() - {"InvalidInput", "NoWeights"})]
)
def test_an_error_carries_its_sentence_and_a_title(error):
    raised = error("no such job; list them")
    assert raised.detail == str(raised) == "no such job; list them"
    assert raised.title


def test_invalid_input_sums_up_its_fields():
    fields = [FieldError("epochs", 0, "too few; raise it"), FieldError("model", "x", "unknown; choose another")]
    raised = InvalidInput(fields)
    assert raised.errors == tuple(fields)
    assert raised.detail == "epochs: too few; raise it; model: unknown; choose another"
