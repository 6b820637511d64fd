"""Passes of the controller as metrics."""

from contextlib import nullcontext

import pytest

from service import metrics
from service.cluster.lease import NotLeader
from service.cluster.watch import PassWatch
from service.errors import ClusterUnreachable
from service.store.engine import DatabaseError


def passes(result: str) -> float:
    return metrics.REGISTRY.get_sample_value("forerun_controller_pass_seconds_count", {"result": result}) or 0.0


def outages() -> float:
    return metrics.REGISTRY.get_sample_value("forerun_database_outages_total") or 0.0


@pytest.mark.parametrize(
    ("error", "result"),
    [
        (None, "done"),
        (NotLeader("another service leads"), "done"),
        (ClusterUnreachable("no answer"), "ray_unreachable"),
        (DatabaseError("gone"), "error"),
        (ValueError("a mistake of ours"), "error"),
    ],
)
def test_a_pass_is_timed_by_its_result(error: Exception | None, result: str) -> None:
    before = passes(result)
    with pytest.raises(type(error)) if error else nullcontext(), PassWatch().watched():
        if error is not None:
            raise error
    assert passes(result) == before + 1


def test_an_outage_of_the_database_is_counted_once_however_many_passes_it_takes() -> None:
    watch, before = PassWatch(), outages()
    for away in (True, True, True, False, False, True):
        try:
            with watch.watched():
                if away:
                    raise DatabaseError("gone")
        except DatabaseError:
            assert away
    assert outages() == before + 2
