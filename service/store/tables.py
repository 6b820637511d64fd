"""The tables, known to the store and to migrations alone.

Times are UTC; learning rates are plain numbers; a missing metric (NaN) is NULL.
"""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Text,
    UniqueConstraint,
    false,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from sqlalchemy.types import TypeDecorator


class UtcDateTime(TypeDecorator[datetime]):
    """A column of times that are aware and in UTC in Python on every database (SQLite keeps no zone)."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        found: datetime = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
        return found


Json = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
Id = BigInteger().with_variant(Integer(), "sqlite")  # SQLite counts INTEGER PRIMARY KEY alone


class Base(DeclarativeBase):
    """The base of the tables, with the names of their constraints."""

    type_annotation_map = {float: Double}
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class Job(Base):
    """The table of jobs: what was asked for, and where it stands."""

    __tablename__ = "jobs"
    # pages go by the number, newest first, inside what a filter leaves; the second is for recommendations
    __table_args__ = (
        *(Index(None, name, "number") for name in ("state", "model", "dataset", "name", "experiment", "owner")),
        Index(None, "model", "dataset", "state", "number"),
        # the queue: all that decides who is next, so that those who wait are counted in the index
        Index("ix_jobs_queue", "state", "priority", "number", "not_before", "workers", "owner"),
    )

    number: Mapped[int] = mapped_column(Id, primary_key=True)  # order of submission; pages go by it
    id: Mapped[str] = mapped_column(String(40), unique=True)
    name: Mapped[str] = mapped_column(String(200))
    experiment: Mapped[str] = mapped_column(String(100), server_default=text("''"))
    model: Mapped[str] = mapped_column(String(100))
    dataset: Mapped[str] = mapped_column(String(100))
    optimizer: Mapped[str] = mapped_column(String(50), server_default=text("''"))
    global_batch_size: Mapped[int] = mapped_column(server_default="0")
    workers: Mapped[int]  # world size
    trials: Mapped[int] = mapped_column(server_default="1")  # of all its runs
    spec: Mapped[dict[str, Any]] = mapped_column(Json)
    state: Mapped[str] = mapped_column(String(20))
    priority: Mapped[int] = mapped_column(server_default="0")  # higher ones are submitted first
    time_limit: Mapped[int | None]  # seconds that its attempts may run, together
    retry_of: Mapped[str | None] = mapped_column(String(40))  # the failed job that it goes on from
    error_code: Mapped[str | None] = mapped_column(String(100))
    error_message: Mapped[str | None] = mapped_column(Text)
    attempt: Mapped[int] = mapped_column(default=0)  # number of the live or last attempt; 0: none yet
    last_event: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    started_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    not_before: Mapped[datetime | None] = mapped_column(UtcDateTime)  # of the next attempt, by the database's clock
    files_removed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)  # by retention
    owner: Mapped[str | None] = mapped_column(String(100))  # of the API key that submitted it; NULL: of nobody

    attempts: Mapped[list["Attempt"]] = relationship(back_populates="job", order_by="Attempt.number")
    runs: Mapped[list["Run"]] = relationship(back_populates="job", order_by="Run.id")


_WITHOUT_LOG = text("ended_at IS NOT NULL AND log IS NULL")


class Attempt(Base):
    """The table of attempts, each of which is one Ray job of a job. Only hashes of ticket and report token are kept."""

    __tablename__ = "attempts"
    __table_args__ = (
        UniqueConstraint("job_id", "number"),
        Index("ix_attempts_without_log", "id", sqlite_where=_WITHOUT_LOG, postgresql_where=_WITHOUT_LOG),
    )

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    number: Mapped[int]
    submission_id: Mapped[str] = mapped_column(String(60), unique=True)
    ticket_hash: Mapped[str | None] = mapped_column(String(64))  # NULL once exchanged
    token_hash: Mapped[str | None] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    ended_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    message: Mapped[str | None] = mapped_column(Text)
    lost: Mapped[bool] = mapped_column(default=False, server_default=false())  # ended without an outcome
    reason: Mapped[str | None] = mapped_column(String(30))  # why it ended without an outcome
    cluster: Mapped[str | None] = mapped_column(String(300))  # that it was submitted to; NULL: before that was kept
    iterations: Mapped[int | None] = mapped_column(BigInteger)  # trained or evaluated, as its last heartbeat had it
    progress_at: Mapped[datetime | None] = mapped_column(UtcDateTime)  # when they grew, by the database's clock
    waits_for: Mapped[str | None] = mapped_column(Text)  # what it waits for meanwhile; NULL: it trains
    seconds: Mapped[float | None]  # that it had run when they were noted last, by a clock that is not set; NULL: never
    log: Mapped[str | None] = mapped_column(Text, deferred=True)  # the end of it; NULL until Ray gave it

    job: Mapped[Job] = relationship(back_populates="attempts")


class Run(Base):
    """The table of runs, each of which is one method executed for a job. Its label tells it from the job's other
    runs."""

    __tablename__ = "runs"
    # the name that it was made with: SQLite renames no constraint
    __table_args__ = (UniqueConstraint("job_id", "label", name="uq_runs_job_id_method"), Index(None, "job_id", "id"))

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    label: Mapped[str] = mapped_column(String(50))
    method: Mapped[str] = mapped_column(String(50), server_default=text("''"))

    job: Mapped[Job] = relationship(back_populates="runs")
    trials: Mapped[list["Trial"]] = relationship(back_populates="run", order_by="Trial.number")


class Trial(Base):
    """The table of trials, each of which is one training inside a run. What its recorded epochs come to is kept
    with it, by the transaction that records one (decision 0025)."""

    __tablename__ = "trials"
    __table_args__ = (UniqueConstraint("run_id", "number"),)

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"))
    number: Mapped[int]
    key: Mapped[str | None] = mapped_column(String(40))  # what the search itself calls it
    seed: Mapped[int] = mapped_column(BigInteger, server_default="0")
    config: Mapped[dict[str, Any] | None] = mapped_column(Json)  # hyperparameters that a search has chosen
    length: Mapped[int] = mapped_column(server_default="0")  # epochs that it trains at most
    state: Mapped[str] = mapped_column(String(20), default="pending", server_default="completed")
    message: Mapped[str | None] = mapped_column(Text)
    lost_samples: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")  # of epochs trained twice
    epochs_done: Mapped[int] = mapped_column(default=0, server_default="0")  # which is the number of the last, too
    samples: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")  # that its epochs took
    best_epoch: Mapped[int | None]  # by validation accuracy; of equals the first
    # what the search of a training of stpt came to, where its job has succeeded; NULL where that was before 0011
    settled_learning_rate: Mapped[float | None]

    run: Mapped[Run] = relationship(back_populates="trials")
    epochs: Mapped[list["Epoch"]] = relationship(back_populates="trial", order_by="Epoch.epoch")


class Epoch(Base):
    """The table of recorded epochs of trials, one row each; times are in seconds."""

    __tablename__ = "epochs"
    __table_args__ = (UniqueConstraint("trial_id", "epoch"),)

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    trial_id: Mapped[int] = mapped_column(ForeignKey("trials.id", ondelete="CASCADE"))
    epoch: Mapped[int]
    attempt: Mapped[int]
    fingerprint: Mapped[str] = mapped_column(String(64))
    phase: Mapped[str] = mapped_column(String(20))
    learning_rate: Mapped[float]
    first_learning_rate: Mapped[float] = mapped_column(server_default="0")
    last_learning_rate: Mapped[float] = mapped_column(server_default="0")
    train_loss: Mapped[float | None]
    val_loss: Mapped[float | None]
    val_accuracy: Mapped[float]
    test_accuracy: Mapped[float]
    retries: Mapped[int]
    rollbacks: Mapped[int] = mapped_column(server_default="0")
    iterations: Mapped[int] = mapped_column(BigInteger)
    samples: Mapped[int] = mapped_column(BigInteger)
    evaluation_samples: Mapped[int] = mapped_column(BigInteger)
    seconds: Mapped[float]
    pretrain_seconds: Mapped[float]
    main_train_seconds: Mapped[float]
    audit: Mapped[dict[str, Any] | None] = mapped_column(Json)
    source_trial: Mapped[int | None]  # number of the trial whose checkpoint the epoch went on from
    source_epoch: Mapped[int | None]
    checkpoint: Mapped[dict[str, Any] | None] = mapped_column(Json)
    recorded_at: Mapped[datetime] = mapped_column(UtcDateTime)

    trial: Mapped[Trial] = relationship(back_populates="epochs")
    branches: Mapped[list["Branch"]] = relationship(
        back_populates="epoch_row", order_by="Branch.number", cascade="all, delete-orphan", passive_deletes=True
    )
    layers: Mapped[list["Layer"]] = relationship(
        back_populates="epoch_row", order_by="Layer.number", cascade="all, delete-orphan", passive_deletes=True
    )


class Branch(Base):
    """The table of branches, each of which is one candidate learning rate of an epoch's Pre-train."""

    __tablename__ = "branches"
    __table_args__ = (UniqueConstraint("epoch_id", "number"),)

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    epoch_id: Mapped[int] = mapped_column(ForeignKey("epochs.id", ondelete="CASCADE"))
    number: Mapped[int]
    retry: Mapped[int]
    learning_rate: Mapped[float]
    metric: Mapped[float | None]
    end_metric: Mapped[float | None]
    state: Mapped[str] = mapped_column(String(20))
    iterations: Mapped[int] = mapped_column(BigInteger)
    samples: Mapped[int] = mapped_column(BigInteger)
    seconds: Mapped[float]

    epoch_row: Mapped[Epoch] = relationship(back_populates="branches")


class Layer(Base):
    """The table of telemetry, a row for each layer and epoch: sample i was taken at step `first_step` + i x `every`."""

    __tablename__ = "layers"
    __table_args__ = (UniqueConstraint("epoch_id", "number"),)

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    epoch_id: Mapped[int] = mapped_column(ForeignKey("epochs.id", ondelete="CASCADE"))
    number: Mapped[int]  # from 1, from the input on
    name: Mapped[str] = mapped_column(String(200))
    first_step: Mapped[int] = mapped_column(BigInteger)
    every: Mapped[int]
    lwn: Mapped[list[float | None]] = mapped_column(Json)
    lgn: Mapped[list[float | None]] = mapped_column(Json)
    trust_ratio: Mapped[list[float | None] | None] = mapped_column(Json)

    epoch_row: Mapped[Epoch] = relationship(back_populates="layers")


class Event(Base):
    """The table of events, each of which happened to a job, numbered 1, 2, 3, … without gaps."""

    __tablename__ = "events"
    __table_args__ = (UniqueConstraint("job_id", "number"),)

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    number: Mapped[int]
    kind: Mapped[str] = mapped_column(String(20))  # state | epoch | trial
    data: Mapped[dict[str, Any]] = mapped_column(Json)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class Webhook(Base):
    """The table of webhooks: the URLs that are told of events. The secret is kept as it is, for signatures are made
    with it."""

    __tablename__ = "webhooks"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    url: Mapped[str] = mapped_column(String(1000), unique=True)
    secret: Mapped[str] = mapped_column(String(100))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    delivered_at: Mapped[datetime | None] = mapped_column(UtcDateTime)  # the last time that it was told of an event
    failures: Mapped[int] = mapped_column(default=0)  # tries in a row, of the event that is the next one
    failing_since: Mapped[datetime | None] = mapped_column(UtcDateTime)
    next_try_at: Mapped[datetime | None] = mapped_column(UtcDateTime)  # NULL: at once
    last_failure: Mapped[str | None] = mapped_column(Text)
    disabled_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class WebhookSubscription(Base):
    """The table of what each webhook is told of: a row for each type of events."""

    __tablename__ = "webhook_subscriptions"
    __table_args__ = (Index(None, "event"),)

    webhook_id: Mapped[str] = mapped_column(ForeignKey("webhooks.id", ondelete="CASCADE"), primary_key=True)
    event: Mapped[str] = mapped_column(String(30), primary_key=True)


class Delivery(Base):
    """The table of deliveries that are still to be made (an outbox): written with the event, deleted once a webhook
    has it. Of one job those of a webhook are in the order of its events."""

    __tablename__ = "deliveries"
    __table_args__ = (Index(None, "webhook_id", "id"), Index(None, "job_id"))

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    webhook_id: Mapped[str] = mapped_column(ForeignKey("webhooks.id", ondelete="CASCADE"))
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    number: Mapped[int]  # of the event


class IdempotencyKey(Base):
    """The table of idempotency keys of each owner: with the request's fingerprint and the job that the request made."""

    __tablename__ = "idempotency_keys"

    owner: Mapped[str] = mapped_column(String(100), primary_key=True, server_default=text("''"))  # empty: nobody
    key: Mapped[str] = mapped_column(String(200), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64))
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    __table_args__ = (Index(None, "job_id"),)


class Leader(Base):
    """The table with the lease of the service that leads: one row, always there."""

    __tablename__ = "leader"

    id: Mapped[int] = mapped_column(primary_key=True)  # 1
    holder: Mapped[str | None] = mapped_column(String(100))  # NULL: nobody leads
    fence: Mapped[int] = mapped_column(BigInteger, server_default="0")  # grows with every service that takes over
    url: Mapped[str] = mapped_column(String(300), server_default=text("''"))  # of the API of the service that leads
    cluster: Mapped[str | None] = mapped_column(String(300))  # that it submits to
    expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)  # by the database's clock
    standby_seen_at: Mapped[datetime | None] = mapped_column(UtcDateTime)  # when another one last looked


class UsageOfDeletedJob(Base):
    """The table of what attempts of deleted jobs of owners took of the cluster, for as long as it counts."""

    __tablename__ = "usage_of_deleted_jobs"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    owner: Mapped[str] = mapped_column(String(100))
    workers: Mapped[int]
    device: Mapped[str] = mapped_column(String(10))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    ended_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)


class DeletedJob(Base):
    """The table of jobs that were deleted and whose files still lie in the storage folder."""

    __tablename__ = "deleted_jobs"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    deleted_at: Mapped[datetime] = mapped_column(UtcDateTime)


class ApiKey(Base):
    """The table of API keys, which are never deleted. Of the key itself only a hash is kept."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(String(20), primary_key=True)  # the part of the key that is shown
    hash: Mapped[str] = mapped_column(String(64))
    owner: Mapped[str] = mapped_column(String(100))
    name: Mapped[str] = mapped_column(String(100))
    scope: Mapped[str] = mapped_column(String(10))  # read | submit | admin
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    last_used_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    revoked_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class LoginSession(Base):
    """The table of browsers that are logged in by an API key. Of the cookie only a hash is kept."""

    __tablename__ = "login_sessions"

    hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    key_id: Mapped[str] = mapped_column(ForeignKey("api_keys.id", ondelete="CASCADE"), index=True)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime)


# The same tables without the classes around them, for queries that are made once, with named parameters, and run often:
# of a query for a few rows SQLAlchemy takes most of the time, and of that, the classes the larger part.
JOBS, ATTEMPTS, RUNS, TRIALS, EPOCHS, BRANCHES, EVENTS, DELIVERIES = (
    Base.metadata.tables[one.__tablename__] for one in (Job, Attempt, Run, Trial, Epoch, Branch, Event, Delivery)
)
