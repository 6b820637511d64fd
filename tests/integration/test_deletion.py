"""Deletion of jobs with their files, and retention: one suite, on SQLite and on a real PostgreSQL."""

import shutil
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from service.errors import NotFound, StateConflict
from service.jobs import deletion
from service.jobs import lifecycle as jobs
from service.jobs.deletion import EVERY_S, Housekeeper, delete_job, remove_files
from service.store.attempts import get_log
from service.store.engine import Store
from service.store.jobs import get_job
from service.store.tables import Attempt, Job
from service.wire.states import TERMINAL
from tests.integration.jobs_in_sql import S, bring, everything, job_of, refuses, submit

pytest_plugins = ["tests.databases"]


def ended(store: Store, state: S = S.SUCCEEDED) -> str:
    """A job that has ended, and of which Ray has confirmed that nothing runs."""
    job_id = bring(store, state)
    for attempt in job_of(store, job_id).attempts:
        jobs.keep_log(store, attempt.submission_id, "it trains\n")
    return job_id


def with_files(storage: Path, job_id: str) -> list[Path]:
    folders = [storage / job_id, storage / f"{job_id}-a1"]
    for folder in folders:
        (folder / "checkpoints").mkdir(parents=True)
        (folder / "checkpoints" / "state.safetensors").write_text("weights")
    return folders


@pytest.mark.parametrize("state", S)
def test_a_deletion_in_every_state(store, tmp_path, state):
    job_id = ended(store, state)
    folders = with_files(tmp_path, job_id)
    if state not in TERMINAL:
        detail = refuses(StateConflict, store, delete_job, job_id, tmp_path)
        assert detail == f"job {job_id} is {state}; cancel it first, only a job that has ended can go"
        assert all(folder.exists() for folder in folders)
        return
    delete_job(store, job_id, tmp_path)
    with pytest.raises(NotFound), store.read() as session:
        get_job(session, job_id)
    left = {table: rows for table, rows in everything(store).items() if rows}
    assert [row[0] for row in left.pop("deleted_jobs")] == [job_id]
    assert left == {}
    assert list(tmp_path.iterdir()) == []
    delete_job(store, job_id, tmp_path)  # asking again is fine


def test_a_job_whose_workers_may_still_run_stays(store, tmp_path):
    job_id = bring(store, S.FAILED)
    detail = refuses(StateConflict, store, delete_job, job_id, tmp_path)
    assert detail == f"Ray has yet to confirm that nothing of job {job_id} runs; try again in a moment"


def test_a_job_that_does_not_exist(store, tmp_path):
    with pytest.raises(NotFound):
        delete_job(store, "job-0123456789abcdef", tmp_path)


def test_a_key_is_free_again(store, tmp_path):
    job_id = submit(store, "key-1")
    jobs.cancel(store, job_id)
    assert submit(store, "key-1") == job_id
    delete_job(store, job_id, tmp_path)
    assert submit(store, "key-1") != job_id


# --- files -------------------------------------------------------------------------------------------------


def test_files_of_others_and_behind_links_are_left_alone(tmp_path):
    storage, outside = tmp_path / "jobs", tmp_path / "outside"
    storage.mkdir()
    outside.mkdir()
    (outside / "precious").touch()
    job_id, other = "job-0123456789abcdef", "job-0123456789abcde0"
    mine, theirs = with_files(storage, job_id), with_files(storage, other)
    (storage / job_id / "link").symlink_to(outside)
    (storage / f"{job_id}-a2").symlink_to(outside)
    (storage / f"{job_id}-attic").mkdir()
    remove_files(storage, job_id)
    remove_files(storage, job_id)
    remove_files(tmp_path / "nowhere", job_id)
    assert not any(folder.exists() for folder in mine)
    assert not (storage / f"{job_id}-a2").is_symlink()
    assert all(folder.exists() for folder in theirs)
    assert (storage / f"{job_id}-attic").exists()
    assert (outside / "precious").exists()


@pytest.mark.parametrize("job_id", ["", "job-1", "../job-0123456789abcdef", "job-0123456789abcdef/..", "*"])
def test_what_is_no_id_removes_nothing(tmp_path, job_id):
    with pytest.raises(AssertionError):
        remove_files(tmp_path, job_id)


class Clock:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def test_what_a_crash_left_is_removed_later_and_nothing_else(store, tmp_path, monkeypatch):
    job_id, kept = ended(store), ended(store)
    folders, others = with_files(tmp_path, job_id), with_files(tmp_path, kept)
    unknown = with_files(tmp_path, "job-0123456789abcdef")  # of another database, say
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda _: (_ for _ in ()).throw(OSError("the disk is gone")))
        delete_job(store, job_id, tmp_path)
        clock = Clock()
        house = Housekeeper(store, tmp_path, clock=clock)
        house.look()
    assert all(folder.exists() for folder in folders)
    house.look()  # not yet
    assert all(folder.exists() for folder in folders)
    clock.seconds = EVERY_S
    house.look()
    assert not any(folder.exists() for folder in folders)
    assert all(folder.exists() for folder in (*others, *unknown))
    assert len(everything(store)["deleted_jobs"]) == 1
    monkeypatch.setattr(deletion, "REMEMBERED", timedelta(0))
    clock.seconds *= 2
    house.look()
    assert everything(store)["deleted_jobs"] == []


# --- retention ---------------------------------------------------------------------------------------------


def age(store: Store, job_id: str, days: float) -> None:
    with store.write() as session:
        then = jobs.now() - timedelta(days=days)
        session.execute(sa.update(Job).where(Job.id == job_id).values(finished_at=then))
        session.execute(sa.update(Attempt).where(Attempt.job_id == job_id).values(ended_at=then))


def log_of(store: Store, job_id: str) -> str | None:
    with store.read() as session:
        return get_log(session, job_id, 1).log


def test_retention_takes_files_and_logs_and_keeps_records(store, tmp_path):
    old, young = ended(store), ended(store)
    age(store, old, days=8)
    age(store, young, days=2)
    folders = {job_id: with_files(tmp_path, job_id) for job_id in (old, young)}
    Housekeeper(store, tmp_path).look()  # keeps all for ever
    assert log_of(store, old) == "it trains\n"
    assert all(folder.exists() for folder in folders[old])
    house = Housekeeper(store, tmp_path, keep_checkpoints_days=7, keep_logs_days=7)
    house.look()
    assert [folder.exists() for folder in folders[old]] == [False, False]
    assert all(folder.exists() for folder in folders[young])
    assert (log_of(store, old), log_of(store, young)) == ("", "it trains\n")
    assert job_of(store, old).state is S.SUCCEEDED


def test_retention_goes_slice_by_slice(store, tmp_path, monkeypatch):
    monkeypatch.setattr(deletion, "SLICE", 2)
    found = [ended(store) for _ in range(5)]
    for job_id in found:
        age(store, job_id, days=8)
        with_files(tmp_path, job_id)
    clock = Clock()
    house = Housekeeper(store, tmp_path, keep_checkpoints_days=7, clock=clock)
    left = []
    for clock.seconds in (0, 0.5, 1, 2, 3):
        house.look()
        left.append(sum((tmp_path / job_id).exists() for job_id in found))
    assert left == [3, 3, 1, 0, 0]
