"""Of a session of an owner every statement is about that owner's jobs, whichever way it is made."""

import pytest
from sqlalchemy import delete, func, select, update

from service.jobs.submit import submit_jobs
from service.store.engine import Store
from service.store.epochs import epochs_of_all_jobs, lr_steps_of
from service.store.jobs import check_job, jobs_of_experiment
from service.store.ownership import OF_EVERYBODY, _about
from service.store.shown import list_jobs, shown_job
from service.store.tables import JOBS, RUNS, Job, Run
from service.store.trials import list_trials, succeeded_stpt_trainings
from tests.integration.jobs_in_sql import spec, submit

pytest_plugins = ["tests.databases"]

OF_JOBS = {
    "of the class": select(Job.id),
    "of the table": select(JOBS.c.id),
    "joined": select(JOBS.c.id).join(RUNS, RUNS.c.job_id == JOBS.c.id),
    "joined the other way": select(JOBS.c.id).select_from(RUNS.join(JOBS, RUNS.c.job_id == JOBS.c.id)),
    "by a class": select(Job.id).join(Run, Run.job_id == Job.id),
    "in a subquery": select(RUNS.c.job_id).where(RUNS.c.job_id.in_(select(JOBS.c.id))),
    "in a subquery that is scalar": select(RUNS.c.job_id).where(
        RUNS.c.job_id == select(JOBS.c.id).where(JOBS.c.id == RUNS.c.job_id).scalar_subquery()
    ),
    "of a subquery": select(select(JOBS.c.id).subquery().c.id),
    "of either": select(JOBS.c.id).union(select(JOBS.c.id).where(JOBS.c.number > 0)),
    "in a common table expression": select(select(JOBS.c.id).cte().c.id),
    "locked": select(JOBS.c.id).with_for_update(),
}


@pytest.mark.filterwarnings("error:.*cartesian product")
@pytest.mark.parametrize("query", OF_JOBS.values(), ids=OF_JOBS)
def test_a_query_finds_jobs_of_its_owner_alone(store: Store, query) -> None:
    alices, bobs, nobodys = submit(of(store, "alice")), submit(of(store, "bob")), submit(store)
    for _ in range(2):  # the second time it is the statement that was kept
        assert found(of(store, "alice"), query) == [alices]
        assert found(of(store, "bob"), query) == [bobs]
    assert found(of(store, "carol"), query) == []
    assert found(of(store, None), query) == [nobodys]
    for all_of_them in (store, store.of_owner("root", all_jobs=True)):
        assert found(all_of_them, query) == sorted([alices, bobs, nobodys])
    with of(store, "alice").read() as session:
        assert len(session.execute(query, execution_options=OF_EVERYBODY).all()) == 3


def test_jobs_of_others_do_not_change(store: Store) -> None:
    alices, bobs = submit(of(store, "alice")), submit(of(store, "bob"))
    with of(store, "alice").write() as session:
        session.execute(update(Job).values(priority=7))
    with store.read() as session:
        assert dict(session.execute(select(Job.id, Job.priority)).all()) == {alices: 7, bobs: 0}
    with of(store, "bob").write() as session:
        session.execute(delete(Job))
    with store.read() as session:
        assert session.scalars(select(Job.id)).all() == [alices]


@pytest.mark.parametrize("change", [update(JOBS).values(priority=7), delete(JOBS)], ids=["update", "delete"])
def test_jobs_are_changed_by_their_class(store: Store, change) -> None:
    with pytest.raises(AssertionError, match="by their class"), of(store, "alice").write() as session:
        session.execute(change)


def test_jobs_have_no_alias_but_their_class(store: Store) -> None:
    with pytest.raises(AssertionError, match="no alias"), of(store, "alice").read() as session:
        session.execute(select(func.count()).select_from(JOBS.alias()))


def of(store: Store, owner: str | None) -> Store:
    return store.of_owner(owner, all_jobs=False)


def found(store: Store, query) -> list[str]:
    with store.read() as session:
        return sorted(row[0] for row in session.execute(query))


def test_statements_are_made_once(store: Store) -> None:
    """One that is made for each call would be kept for each call, with all that it is made of."""
    db = of(store, "alice")

    def everything() -> None:
        ids = submit_jobs(db, [spec(experiment="mine")], "mine")
        with db.read() as session:
            assert [job.id for job in jobs_of_experiment(session, "mine")] == ids
            assert [job.id for job in list_jobs(session, limit=5, model="lenet5").items] == ids
            assert shown_job(session, ids[0]).first_training is not None
            check_job(session, ids[0])
            epochs_of_all_jobs(session, limit=5)
            lr_steps_of(session, ids[0])
            list_trials(session, ids[0])
            of = {"model": "lenet5", "dataset": "mnist", "path": None, "task": "classification", "optimizer": None}
            succeeded_stpt_trainings(session, **of, limit=5)

    everything()
    known = _about.cache_info().misses
    for _ in range(3):
        everything()
    assert _about.cache_info().misses == known
