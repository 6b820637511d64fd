"""Use cases of a job's end: its deletion, with its files, and retention.

A deletion commits first and removes files then: a note in SQL, written with it, tells whoever comes next that they are
to go. So a crash leaves neither a job without its files nor files that nobody removes; and no folder is ever removed
because a database does not know it: the database may be the wrong one.
"""

import logging
import re
import shutil
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from service.errors import StateConflict
from service.jobs.lifecycle import now
from service.jobs.quota import WINDOW
from service.store import deletions
from service.store.engine import Store
from service.store.jobs import get_job
from service.store.retries import live_retry
from service.store.usage import forget_usage
from service.wire.states import TERMINAL

log = logging.getLogger(__name__)

JOB_ID = re.compile(r"job-[0-9a-f]{16}")
REMEMBERED = timedelta(days=1)  # a deletion that is asked for again, as its answer was lost
SLICE = 20  # jobs whose files are removed at once; of logs ten times as many
EVERY_S = 600.0


def delete_job(db: Store, job_id: str, storage: Path) -> None:
    """Delete a job that has ended, with all that is recorded of it, its idempotency key, and its files in `storage`;
    asking again, within a day, is fine.

    Raises NotFound when there is no such job, and StateConflict when it has not ended, a job that goes on from it has
    not, or Ray has not confirmed yet that nothing of it runs any more.
    """
    with db.write() as session:
        if not deletions.was_deleted(session, job_id):
            job = get_job(session, job_id, lock=True)
            if job.state not in TERMINAL:
                raise StateConflict(f"job {job_id} is {job.state}; cancel it first, only a job that has ended can go")
            if (retry := live_retry(session, job_id)) is not None:
                raise StateConflict(f"job {retry} goes on from job {job_id}; delete it when that one has ended")
            if deletions.may_still_run(session, job_id):
                raise StateConflict(f"Ray has yet to confirm that nothing of job {job_id} runs; try again in a moment")
            deletions.delete_job(session, job_id, now())
    try:
        remove_files(storage, job_id)
    except OSError as error:
        log.warning("the files of %s are still there, and will be tried again: %s", job_id, error)


def remove_files(storage: Path, job_id: str) -> None:
    """Remove what a job and its attempts have written to `storage`; what is gone already is fine.

    A link is removed as a link, whatever it leads to. Raises OSError where something cannot be removed.
    """
    assert JOB_ID.fullmatch(job_id), job_id
    its_own = re.compile(rf"{job_id}(-a\d+)?")
    for path in storage.glob(f"{job_id}*"):
        if not its_own.fullmatch(path.name):
            continue
        if path.is_symlink() or not path.is_dir():
            path.unlink(missing_ok=True)
        else:
            shutil.rmtree(path)


class Housekeeper:
    """Removes, once in a while and a bounded slice at a time, the files of deleted jobs, and what retention does not
    keep: of jobs that ended more than `keep_checkpoints_days` ago their files, of attempts that ended more than
    `keep_logs_days` ago their logs. None keeps them for ever."""

    def __init__(
        self,
        db: Store,
        storage: Path,
        *,
        keep_checkpoints_days: float | None = None,
        keep_logs_days: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._db, self._storage, self._clock = db, storage, clock
        self._keep_checkpoints_days, self._keep_logs_days = keep_checkpoints_days, keep_logs_days
        self._next = clock()

    def look(self) -> None:
        """Do what there is to do, when it is time again; more of it the next time. A folder that cannot be removed is
        tried again."""
        if self._clock() < self._next:
            return
        self._next = self._clock() + EVERY_S
        more = [self._remove_deleted(), self._remove_old_files(), self._empty_old_logs()]
        if any(more):
            self._next = self._clock() + 1.0

    def _remove_deleted(self) -> bool:
        with self._db.read() as session:
            found = deletions.deleted_jobs(session, 10 * SLICE)
        gone = [(job_id, deleted_at) for job_id, deleted_at in found if self._is_removed(job_id)]
        old = [job_id for job_id, deleted_at in gone if deleted_at < now() - REMEMBERED]
        with self._db.write() as session:
            deletions.forget_deleted_jobs(session, old)
            forget_usage(session, now() - WINDOW)
        return len(old) == 10 * SLICE

    def _remove_old_files(self) -> bool:
        if self._keep_checkpoints_days is None:
            return False
        with self._db.read() as session:
            before = now() - timedelta(days=self._keep_checkpoints_days)
            found = deletions.jobs_with_files(session, before, SLICE)
        gone = [job_id for job_id in found if self._is_removed(job_id)]
        if gone:
            with self._db.write() as session:
                deletions.set_files_removed(session, gone, now())
        return len(gone) == SLICE

    def _empty_old_logs(self) -> bool:
        if self._keep_logs_days is None:
            return False
        with self._db.write() as session:
            before = now() - timedelta(days=self._keep_logs_days)
            return deletions.empty_logs(session, before, 10 * SLICE) == 10 * SLICE

    def _is_removed(self, job_id: str) -> bool:
        try:
            remove_files(self._storage, job_id)
        except OSError as error:
            log.warning("the files of %s cannot be removed: %s", job_id, error)
            return False
        return True
