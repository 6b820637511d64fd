"""Jobs in SQL with their attempts: queries, and the changes of where a job stands."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Row, Select, bindparam, func, insert, select, update

from service.errors import no_job
from service.spec.job import JobSpec
from service.store import clock, records
from service.store.attempts import attempts_by_job
from service.store.engine import Session
from service.store.events import insert_event
from service.store.ownership import OF_EVERYBODY
from service.store.queue import ORDER, WAITS, parameters_of_waits
from service.store.rows import columns_of, record_of, records_of
from service.store.tables import JOBS, RUNS, TRIALS, Job
from service.wire.states import JobState

# what changes of a job
STANDING = ("state", "attempt", "started_at", "finished_at", "not_before", "error_code", "error_message")


_JOBS: Select[*tuple[Any, ...]] = select(*columns_of(JOBS, records.Job))
_JOB = _JOBS.where(JOBS.c.id == bindparam("job_id"))
_JOB_LOCKED = _JOB.with_for_update()
_INSERT_JOB, _INSERT_TRIAL = insert(JOBS), insert(TRIALS)
_INSERT_RUN = insert(RUNS).returning(RUNS.c.id)
_KNOWN = select(JOBS.c.id).where(JOBS.c.id == bindparam("job_id"))
_NEXT = _JOBS.where(WAITS).order_by(*ORDER).limit(1)
_NEXT_LOCKED = _NEXT.with_for_update(skip_locked=True)
_OF_EXPERIMENT = _JOBS.where(JOBS.c.experiment == bindparam("experiment")).order_by(JOBS.c.number)
_IN_STATES = _JOBS.where(JOBS.c.state.in_(bindparam("states", expanding=True))).order_by(JOBS.c.number)
_WORKERS = select(func.sum(JOBS.c.workers)).where(JOBS.c.state.in_(bindparam("states", expanding=True)))
_JOBS_BY_ID = _JOBS.where(JOBS.c.id.in_(bindparam("job_ids", expanding=True)))


def job_spec(job: records.Job) -> JobSpec:
    """The spec that the job was accepted with, every default filled in."""
    return JobSpec.model_validate(job.spec)


def get_job(session: Session, job_id: str, *, lock: bool = False) -> records.JobWithAttempts:
    """The job of that id with its attempts, its row locked if `lock`, for a caller that goes on to change it. Raises
    NotFound when the store has no job of that id."""
    row = session.execute(_JOB_LOCKED if lock else _JOB, {"job_id": job_id}).one_or_none()
    if row is None:
        raise no_job(job_id)
    # read after the lock, by a statement of their own: a join would show them as they were before it was waited for
    [job] = _with_attempts([row], attempts_by_job(session, [job_id]))
    return job


def check_job(session: Session, job_id: str) -> None:
    """Raise NotFound when the store has no job of that id."""
    if session.execute(_KNOWN, {"job_id": job_id}).one_or_none() is None:
        raise no_job(job_id)


def jobs_of_experiment(session: Session, experiment: str) -> Sequence[records.Job]:
    """The jobs whose spec names that experiment, oldest first."""
    rows = session.execute(_OF_EXPERIMENT, {"experiment": experiment})
    return [_job(row) for row in rows]


def jobs_by_id(session: Session, job_ids: Collection[str]) -> Sequence[records.Job]:
    """The jobs with these ids, in no order; an id that is of no job is passed over."""
    return [_job(row) for row in session.execute(_JOBS_BY_ID, {"job_ids": list(job_ids)})]


def jobs_in(session: Session, states: Collection[JobState]) -> Sequence[records.JobWithAttempts]:
    """The jobs in one of `states`, with their attempts, oldest first."""
    rows = session.execute(_IN_STATES, {"states": list(states)}).all()
    return _with_attempts(rows, attempts_by_job(session, [row.id for row in rows]))


def workers_of(session: Session, states: Collection[JobState]) -> int:
    """How many workers the jobs in one of `states` ask for in all, whosever they are."""
    return session.scalar(_WORKERS, {"states": list(states)}, execution_options=OF_EVERYBODY) or 0


def next_to_submit(
    session: Session, total_workers: float, owners_who_wait: Collection[str] = (), *, lock: bool = True
) -> records.Job | None:
    """The next job that waits for an attempt, may have one by the database's clock, and takes at most `total_workers`
    workers: the oldest of those with the highest priority; its row locked, if `lock`. None when there is none. Those of
    `owners_who_wait` are passed over, and on PostgreSQL jobs whose row another transaction holds."""
    parameters = parameters_of_waits(clock.database_time(session), total_workers, owners_who_wait)
    row = session.execute(_NEXT_LOCKED if lock else _NEXT, parameters).one_or_none()
    return None if row is None else _job(row)


def _job(row: Row[*tuple[Any, ...]]) -> records.Job:
    return record_of(records.Job, row, state=JobState(row.state))


def _with_attempts(
    rows: Sequence[Row[*tuple[Any, ...]]], attempts: Mapping[str, Sequence[records.Attempt]]
) -> list[records.JobWithAttempts]:
    def more(row: Row[*tuple[Any, ...]]) -> dict[str, Any]:
        return {"state": JobState(row.state), "attempts": tuple(attempts.get(row.id, ()))}

    return records_of(records.JobWithAttempts, rows, more)


# --- changes ---------------------------------------------------------------------------------------------


def insert_job(
    session: Session,
    job_id: str,
    spec: JobSpec,
    runs: Sequence[records.NewRun],
    created_at: datetime,
    *,
    priority: int = 0,
    time_limit: int | None = None,
    retry_of: str | None = None,
    owner: str | None,
) -> None:
    """Insert a job that waits for its first attempt, with the event that tells so, its runs and the trials that these
    begin with. `owner` may be another one than the session's where an admin retries a job."""
    job = {
        "id": job_id,
        "name": spec.name,
        "experiment": spec.experiment,
        "model": spec.model,
        "dataset": spec.dataset.name,
        "workers": spec.workers,
        "optimizer": spec.optimizer.name,
        "global_batch_size": spec.global_batch_size,
        "trials": sum(len(run.seeds) for run in runs),
        "spec": spec.model_dump(mode="json"),
        "state": JobState.QUEUED,
        "priority": priority,
        "time_limit": time_limit,
        "retry_of": retry_of,
        "created_at": created_at,
        "attempt": 0,
        "last_event": 1,
        "owner": owner,
    }
    session.execute(_INSERT_JOB, job)
    insert_event(session, job_id, 1, "state", {"state": JobState.QUEUED}, created_at)
    for run in runs:
        run_id = session.scalars(_INSERT_RUN, {"job_id": job_id, "label": run.label, "method": run.method}).one()
        trials = [
            {"run_id": run_id, "number": number, "seed": seed, "length": run.length, "state": "pending"}
            for number, seed in enumerate(run.seeds, start=1)
        ]
        if trials:  # a search has none yet
            session.execute(_INSERT_TRIAL, trials)


def set_terms(session: Session, job_id: str, changes: Mapping[str, int | None]) -> None:
    """Write other terms of a job: of `priority` and `time_limit` those that `changes` names."""
    assert changes.keys() <= {"priority", "time_limit"}
    if changes:
        session.execute(update(Job).where(Job.id == job_id).values(dict(changes)))


def set_job_state(
    session: Session, job: records.Job, *, before: JobState, event: Mapping[str, Any], created_at: datetime
) -> None:
    """Write where a job stands now (its state, attempt, times and error) and the event that tells of it.

    The job must be in the state `before`, as it is where its row was locked to read it; else an assertion fails.
    """
    moved = (
        update(Job)
        .where(Job.id == job.id, Job.state == before)
        .values({name: getattr(job, name) for name in STANDING} | {"last_event": Job.last_event + 1})
        .returning(Job.last_event)
    )
    number = session.scalars(moved).one_or_none()
    assert number is not None, f"{job.id} is not {before} any more"
    insert_event(session, job.id, number, "state", event, created_at)
