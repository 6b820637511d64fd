"""What the tables refuse, and the migrations: one suite, on SQLite and on a real PostgreSQL.

Each test leaves a database in which DESIGN.md's invariants hold: the `store` fixture checks them.
"""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.exc import IntegrityError

import migrations
from migrations import is_current, migrate
from service.access import keys
from service.jobs import reports, webhooks
from service.store.engine import Store
from service.store.jobs import get_job, job_spec
from service.store.tables import (
    ApiKey,
    Attempt,
    Base,
    Branch,
    Delivery,
    Epoch,
    Event,
    IdempotencyKey,
    Job,
    Layer,
    LoginSession,
    Run,
    Trial,
    Webhook,
    WebhookSubscription,
)
from tests.integration.jobs_in_sql import S, begin, everything, start, state_of, submit, until_somebody_waits_for_a_lock
from tests.unit.service.reports import branch, epoch, layers

pytest_plugins = ["tests.databases"]


# --- what the tables themselves refuse --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "renamed"),
    [
        (Job, {"number": None}),
        (Attempt, {"id": None, "submission_id": "x"}),
        (Attempt, {"id": None, "number": 2}),
        (Run, {"id": None}),
        (Trial, {"id": None}),
        (Epoch, {"id": None}),
        (Branch, {"id": None}),
        (Layer, {"id": None}),
        (Event, {"id": None}),
        (IdempotencyKey, {}),
        (ApiKey, {}),
        (LoginSession, {}),
        (Webhook, {"id": "other"}),
        (WebhookSubscription, {}),
        (Delivery, {}),
    ],
    ids=lambda value: value.__tablename__ if isinstance(value, type) else "",
)
def test_nothing_can_stand_there_twice(store, table, renamed):
    job_id, token = start(store, epochs=1)
    reports.record_epoch(store, job_id, token, epoch(1, layers=layers()))
    webhooks.register(store, "https://hooks.example.com/", ["job.queued"])
    submit(store, "key-1", epochs=1)
    keys.log_in(store, keys.create_key(store, "alice")[0])
    with store.read() as session:
        row = session.execute(sa.select(table.__table__).limit(1)).mappings().one()
    again = {**{key: value for key, value in row.items() if key not in renamed}, **_given(renamed)}
    with pytest.raises(IntegrityError, match=r"(?i)unique"), store.write() as session:
        session.execute(sa.insert(table.__table__).values(**again))


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def test_nothing_hangs_in_the_air(store):
    now = datetime.now(UTC)
    rows = [
        Attempt(job_id="job-0", number=1, submission_id="x", created_at=now),
        Run(job_id="job-0", label="stpt", method="stpt"),
        Trial(run_id=1, number=1),
        Branch(**branch(1).model_dump(), epoch_id=1),
        Layer(epoch_id=1, number=1, name="0.weight", first_step=0, every=10, lwn=[1.0], lgn=[1.0]),
        Event(job_id="job-0", number=1, kind="state", data={}, created_at=now),
        IdempotencyKey(key="k", fingerprint="f", job_id="job-0", created_at=now),
        LoginSession(hash="h", key_id="0" * 12, created_at=now, expires_at=now),
        WebhookSubscription(webhook_id="hook-0", event="epoch"),
        Delivery(webhook_id="hook-0", job_id="job-0", number=1),
    ]
    for row in rows:
        with pytest.raises(IntegrityError, match=r"(?i)foreign key"), store.write() as session:
            session.add(row)


def test_with_a_job_goes_all_that_hangs_on_it(store):
    webhooks.register(store, "https://hooks.example.com/", ["job.queued"])
    kept, token = start(store)
    reports.record_epoch(store, kept, token, epoch(1, layers=layers()))
    rows = everything(store)
    job_id = submit(store, "key-1")
    reports.record_epoch(store, job_id, begin(store, job_id), epoch(1, layers=layers()))
    grown = {table for table, after in everything(store).items() if len(after) > len(rows[table])}
    of_no_job = {"deleted_jobs", "usage_of_deleted_jobs", "api_keys", "login_sessions"}
    of_no_job |= {"webhooks", "webhook_subscriptions"}
    assert grown == everything(store).keys() - of_no_job
    with store.write() as session:
        session.execute(sa.delete(Job).where(Job.id == job_id))
    assert everything(store) == rows


# --- migrations ------------------------------------------------------------------------------------------


def alembic(db: Store, action: Callable[[Config, str], None], revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    with db.connect() as connection:
        config.attributes["connection"] = connection
        action(config, revision)
        connection.commit()


def tables(db: Store) -> set[str]:
    with db.connect() as connection:
        return set(sa.inspect(connection).get_table_names()) - {"alembic_version"}


def test_the_migrations_make_what_the_models_say(empty_store):
    assert tables(empty_store) == set()
    assert not is_current(empty_store)
    migrate(empty_store)
    assert is_current(empty_store)
    with empty_store.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, Base.metadata) == []
    assert tables(empty_store) == set(Base.metadata.tables)
    alembic(empty_store, lambda config, _: command.check(config), "head")  # `alembic check`, as its users know it


def test_migrating_again_changes_nothing(empty_store):
    migrate(empty_store)
    job_id = submit(empty_store, "key-1")
    rows = everything(empty_store)
    migrate(empty_store)
    assert everything(empty_store) == rows
    assert state_of(empty_store, job_id) is S.QUEUED


def test_down_to_the_base_leaves_no_table_and_up_again_works(empty_store):
    migrate(empty_store)
    submit(empty_store)
    alembic(empty_store, command.downgrade, "base")
    assert tables(empty_store) == set()
    assert not is_current(empty_store)
    alembic(empty_store, command.upgrade, "head")
    assert tables(empty_store) == set(Base.metadata.tables)
    submit(empty_store)


REVISIONS = [one.revision for one in ScriptDirectory(str(Path(migrations.__file__).parent)).walk_revisions()]


@pytest.mark.parametrize("revision", sorted(REVISIONS))
def test_no_row_is_lost_on_the_way_up_from_a_revision(empty_store, revision):
    """SQLite drops a column by making the table anew; with it must not go what hangs on its rows."""
    migrate(empty_store)
    job_id, token = start(empty_store)
    # what older tables have no column for comes back as this
    reports.record_epoch(empty_store, job_id, token, epoch(1, last_learning_rate=0.05))
    with empty_store.write() as session:
        session.execute(sa.update(Attempt).values(progress_at=None))
    rows = everything(empty_store)
    alembic(empty_store, command.downgrade, revision)
    with empty_store.connect() as connection:
        assert MigrationContext.configure(connection).get_current_revision() == revision
    migrate(empty_store)
    assert everything(empty_store) == rows
    with empty_store.read() as session:
        assert get_job(session, job_id).state is S.RUNNING


def test_a_migration_that_fails_leaves_nothing(empty_store, monkeypatch):
    def power_cut(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr("alembic.op.create_table", power_cut)
        with pytest.raises(RuntimeError, match="power cut"):
            migrate(empty_store)
    migrate(empty_store)
    submit(empty_store)


def test_postgresql_two_services_that_start_at_once_migrate_once(postgres):
    with postgres.database() as db, ThreadPoolExecutor(2) as pool:
        migrated, go_on = threading.Event(), threading.Event()

        def pause(connection: sa.Connection) -> None:
            if not migrated.is_set():
                migrated.set()
                assert go_on.wait(30)

        sa.event.listen(db._engine, "commit", pause)
        first = pool.submit(migrate, db)
        assert migrated.wait(30)  # everything is made, nothing is committed
        second = pool.submit(migrate, db)
        try:
            until_somebody_waits_for_a_lock(db)
        finally:
            go_on.set()
        first.result(30)
        second.result(30)
        assert is_current(db)


def test_jobs_from_before_labels_are_read_in_todays_words(empty_store):
    """Rows as the service of revision 0006 wrote them."""
    alembic(empty_store, command.upgrade, "0006")
    guards = {"extend": True, "skip_dead": True, "rollback": True, "max_accuracy_drop": 0.2, "rescale_momentum": True}
    spec = {"model": "lenet5", "dataset": {"name": "digits"}, "epochs": 2, "envelope": "cosine", "guards": guards}
    spec |= {"metric": "val_accuracy", "methods": [{"name": "stpt", "scaling": None}, {"name": "schedule"}]}
    now = datetime(2026, 1, 1, tzinfo=UTC)
    jobs, runs, events = (Base.metadata.tables[name] for name in ("jobs", "runs", "events"))
    with empty_store.write() as session:
        row = {"id": "job-1", "name": "", "model": "lenet5", "dataset": "digits", "workers": 1, "spec": spec}
        session.execute(sa.insert(jobs).values(**row, state="queued", attempt=0, last_event=1, created_at=now))
        for method in ("stpt", "schedule"):
            old_run = sa.text("INSERT INTO runs (job_id, method) VALUES ('job-1', :method)")
            session.execute(old_run, {"method": method})
        data = {"method": "schedule", "trial": 1, "config": {}}
        session.execute(sa.insert(events).values(job_id="job-1", number=1, kind="trial", data=data, created_at=now))
    migrate(empty_store)
    with empty_store.read() as session:
        known = job_spec(get_job(session, "job-1"))
        assert session.execute(sa.select(runs.c.label, runs.c.method).order_by(runs.c.id)).all() == [
            ("stpt", "stpt"),
            ("schedule", "fixed"),
        ]
        assert session.scalar(sa.select(events.c.data)) == {**data, "label": "schedule", "method": "fixed"}
    stpt, fixed = known.methods
    assert (known.lr_schedule, stpt.metric, fixed.name, fixed.label) == ("cosine", "val_accuracy", "fixed", "schedule")


def test_idempotency_keys_from_before_owners_are_nobodys(empty_store):
    """Rows as the service of the revision before 0010 wrote them; and on the way down those of owners go."""
    migrate(empty_store)
    before = ScriptDirectory(str(Path(migrations.__file__).parent)).get_revision("0010").down_revision
    alices, nobodys = empty_store.of_owner("alice", all_jobs=False), empty_store
    first, second = submit(alices, "key-1"), submit(nobodys, "key-1")
    alembic(empty_store, command.downgrade, before)
    with empty_store.connect() as connection:
        rows = connection.execute(sa.text("SELECT key, job_id FROM idempotency_keys")).all()
    assert rows == [("key-1", second)]
    migrate(empty_store)
    assert submit(nobodys, "key-1") == second
    assert submit(alices, "key-1") not in (first, second)
