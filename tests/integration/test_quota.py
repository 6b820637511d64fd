"""What one owner may take of the cluster, on both databases."""

from datetime import timedelta
from pathlib import Path
from unittest.mock import patch

import pytest

from service.jobs import lifecycle as jobs
from service.jobs import reports
from service.jobs.deletion import Housekeeper, delete_job
from service.jobs.quota import Quota, gpu_seconds, owners_who_wait
from service.jobs.reasons import Sight, look_at_queue, reason_of
from service.jobs.retry import retry
from service.store.engine import Store
from service.store.jobs import get_job
from tests.integration.jobs_in_sql import SUCCESS, S, submit

pytest_plugins = ["tests.databases"]

ONE = Quota(running_jobs=1)


def of(store: Store, owner: str) -> Store:
    return store.of_owner(owner, all_jobs=False)


def claimed(store: Store, quota: Quota = ONE) -> str | None:
    claim = jobs.claim_next(store, quota=quota)
    return None if claim is None else claim.job_id


def test_jobs_beyond_the_quota_wait_and_those_of_others_go_first(store: Store) -> None:
    alices = [submit(of(store, "alice")) for _ in range(3)]
    bobs, nobodys = submit(of(store, "bob")), [submit(store) for _ in range(2)]
    assert claimed(store) == alices[0]
    assert claimed(store) == bobs
    assert [claimed(store), claimed(store), claimed(store)] == [*nobodys, None]  # nobody has no quota
    with store.read() as session:
        assert owners_who_wait(session, ONE, jobs.now()) == {
            "alice": "1 jobs of alice run, and 1 may at once",
            "bob": "1 jobs of bob run, and 1 may at once",
        }
        assert owners_who_wait(session, Quota(), jobs.now()) == {}
        assert get_job(session, alices[1]).state is S.QUEUED
    jobs.cancel(store, alices[0])
    assert claimed(store) is None  # it still takes workers
    jobs.confirm_cancelled(store, alices[0])
    assert claimed(store) == alices[1]
    assert claimed(store, Quota()) == alices[2]


@pytest.mark.parametrize(
    ("device", "has_gpus", "seconds"),
    [("cuda", True, 2 * 600), ("auto", True, 2 * 600), ("auto", False, 0), ("cpu", True, 0)],
)
def test_gpu_seconds_are_those_of_the_last_day(store: Store, device: str, has_gpus: bool, seconds: int) -> None:
    quota = Quota(gpu_seconds=1200, has_gpus=has_gpus)
    first = submit(of(store, "alice"), workers=2, device=device)
    second = submit(of(store, "alice"), workers=2, device=device)
    claim = jobs.claim_next(store, quota=quota)
    assert claim is not None
    assert claim.job_id == first
    with store.read() as session:
        [attempt] = get_job(session, first).attempts
        for age, used in [(0, 0), (300, seconds // 2), (600, seconds)]:
            assert gpu_seconds(session, quota, attempt.created_at + timedelta(seconds=age)).total() == used
        late = attempt.created_at + timedelta(hours=30)  # it runs still
        assert gpu_seconds(session, quota, late).total() == (2 * 24 * 3600 if seconds else 0)
        waiting = owners_who_wait(session, quota, attempt.created_at + timedelta(seconds=600))
    expected = "jobs of alice took 1200 GPU-seconds in the last 24 hours, and 1200 may be"
    assert waiting == ({"alice": expected} if seconds else {})
    token = reports.exchange_ticket(store, first, claim.ticket).report_token
    reports.finish(store, first, token, SUCCESS.model_copy(update={"state": "failed", "code": "x", "message": "x"}))
    with store.read() as session:
        tomorrow = attempt.created_at + timedelta(days=2)
        assert gpu_seconds(session, quota, tomorrow) == {}
    assert claimed(store, quota) == second


def test_an_owner_sees_the_cluster_that_all_share(store: Store) -> None:
    submit(of(store, "alice"))
    assert claimed(store) is not None
    with of(store, "bob").read() as session:
        assert owners_who_wait(session, ONE, jobs.now()) == {"alice": "1 jobs of alice run, and 1 may at once"}


def test_an_owner_is_told_their_place_among_all_jobs_and_what_they_wait_for(store: Store) -> None:
    alices, bobs = [submit(of(store, "alice")) for _ in range(2)], submit(of(store, "bob"))
    assert told(store, "bob", bobs) == (3, "2 jobs are before it, of higher or equal priority")
    assert claimed(store) == alices[0]
    assert told(store, "alice", alices[1]) == (None, "waits: 1 jobs of alice run, and 1 may at once")
    assert told(store, "bob", bobs) == (1, "waits for 1 CPU, 0 are free")  # alice holds the only one


def told(store: Store, owner: str, job_id: str) -> tuple[int | None, str | None]:
    with of(store, owner).read() as session:
        job = get_job(session, job_id)
        queue = look_at_queue(session, [job], Sight(workers=1, quota=ONE))
        return queue.positions.get(job_id), reason_of(job, queue)


def test_a_retry_by_an_admin_is_its_owners(store: Store) -> None:
    job_id = submit(of(store, "alice"))
    jobs.cancel(store, job_id)
    retried = retry(store.of_owner("root", all_jobs=True), job_id)
    with of(store, "alice").read() as session:
        assert get_job(session, retried).owner == "alice"


def test_a_deletion_gives_no_gpu_seconds_back(store: Store, tmp_path: Path) -> None:
    quota = Quota(gpu_seconds=1200, has_gpus=True)
    alice, at = of(store, "alice"), jobs.now()
    job_id = submit(alice, workers=2)
    claim = jobs.claim_next(store, quota=quota)
    assert claim is not None
    jobs.cancel(store, job_id)
    with patch("service.jobs.lifecycle.now", lambda: at + timedelta(seconds=600)):
        jobs.confirm_cancelled(store, job_id)
    jobs.keep_log(store, claim.submission_id, "")

    def used(hours: float) -> dict[str, int]:
        with store.read() as session:
            return {
                owner: round(n, -2) for owner, n in gpu_seconds(session, quota, at + timedelta(hours=hours)).items()
            }

    assert used(1) == {"alice": 1200}
    delete_job(alice, job_id, tmp_path)
    assert used(1) == {"alice": 1200}
    assert used(25) == {}
    with patch("service.jobs.deletion.now", lambda: at + timedelta(hours=25)):
        Housekeeper(store, tmp_path).look()
    assert used(1) == {}
