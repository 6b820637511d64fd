"""A database of many jobs, as if the service had run them for a long time, for benchmarks of what reads it.

Every fourth job has succeeded: it has 40 epochs of short-term pre-training (STPT, Yamada et al.) with ten branches
each, and 40 epochs of a baseline. The others failed or were cancelled before their first epoch. Rows are written in
bulk, past the use cases. Events of epochs are left out: nothing that is measured reads them.
"""

import json
import random
import statistics
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice, product
from typing import Any

from sqlalchemy import func, select

from migrations import migrate
from service.spec.job import JobSpec
from service.store.engine import Store
from service.store.tables import Base, Job

EPOCHS = 40
BRANCHES = 10
EVERY_SUCCEEDED = 4  # every so many-th job
MODELS = ("lenet5", "lenet5-bn", "mlp", "resnet18-cifar")
DATASETS = ("mnist", "fashion-mnist")
FIRST = datetime(2025, 1, 1, tzinfo=UTC)
_NONE = {"epochs_done": 0, "samples": 0, "best_epoch": None, "settled_learning_rate": None}
CHUNK = 500  # jobs whose rows are in memory at a time

Rows = dict[str, list[dict[str, Any]]]  # by table


def fill(store: Store, jobs: int) -> None:
    """Bring a database to the newest schema and, where it is empty, fill it with `jobs` jobs, always the same ones: 100
    branches for each. It is left as one that has been in use: PostgreSQL's autovacuum has analyzed it; SQLite never
    does."""
    migrate(store)
    with store.read() as session:
        if session.scalar(select(func.count()).select_from(Job)):
            return
    numbers, made = iter(range(1, jobs + 1)), _Maker(random.Random(0), list(_specs()))  # noqa: S311 - the same rows each time
    while chunk := list(islice(numbers, CHUNK)):
        _insert(store, made.rows(chunk))
    _finish(store)


def job_id_of(number: int) -> str:
    """The id of the job of that number, from 1."""
    return f"job-{number:016x}"


def _specs() -> Iterator[dict[str, Any]]:
    """The specs that the jobs take in turn, with every default filled in."""
    for model, dataset, optimizer, batch in product(MODELS, DATASETS, ("sgd", "adam"), (64, 128)):
        document = {"model": model, "dataset": dataset, "optimizer": optimizer, "global_batch_size": batch}
        document |= {"epochs": EPOCHS, "methods": ["stpt", "cosine"]}
        yield JobSpec.model_validate(document).model_dump(mode="json")


class _Maker:
    """Makes the rows of jobs, and counts their ids."""

    def __init__(self, chance: random.Random, specs: Sequence[dict[str, Any]]) -> None:
        self._chance, self._specs = chance, specs
        self._epoch = 0
        self._rows: Rows = {}

    def rows(self, numbers: Sequence[int]) -> Rows:
        self._rows = {name: [] for name in ("jobs", "attempts", "runs", "trials", "epochs", "branches", "events")}
        for number in numbers:
            self._job(number)
        return self._rows

    def _job(self, number: int) -> None:
        spec = self._specs[self._chance.randrange(len(self._specs))]
        state = "succeeded" if number % EVERY_SUCCEEDED == 0 else self._chance.choice(("failed", "cancelled"))
        job_id, at = job_id_of(number), FIRST + timedelta(minutes=number)
        ended = at + timedelta(hours=1)
        job = {"number": number, "id": job_id, "name": f"job {number}", "experiment": "", "model": spec["model"]}
        job |= {"dataset": spec["dataset"]["name"], "optimizer": spec["optimizer"]["name"]}
        job |= {"global_batch_size": spec["global_batch_size"], "workers": 1, "trials": 2, "spec": spec}
        failed = {"error_code": "diverged", "error_message": "every branch diverged"} if state == "failed" else {}
        job |= {"error_code": None, "error_message": None, "attempt": 1, "last_event": 4, **failed}
        self._add("jobs", **job, state=state, created_at=at, started_at=at, finished_at=ended)
        attempt = {"id": number, "job_id": job_id, "number": 1, "submission_id": f"{job_id}-a1", "log": "done\n"}
        self._add("attempts", **attempt, token_hash="0" * 64, created_at=at, ended_at=ended, lost=False)
        for event, state_then in enumerate(("queued", "submitting", "running", state), start=1):
            values = {"id": 4 * number + event - 4, "job_id": job_id, "number": event, "kind": "state"}
            self._add("events", **values, data={"state": state_then}, created_at=at)
        for which, method in enumerate(("stpt", "cosine")):
            self._run(2 * number + which - 1, job_id, method, state, at)

    def _run(self, run_id: int, job_id: str, method: str, state: str, at: datetime) -> None:
        """A run of one trial, which has the id of the run."""
        self._add("runs", id=run_id, job_id=job_id, label=method, method=method)
        ended = "completed" if state == "succeeded" else "stopped"
        trial = {"id": run_id, "run_id": run_id, "number": 1, "seed": 0, "length": EPOCHS, "lost_samples": 0}
        kept = self._epochs(run_id, method, at) if state == "succeeded" else _NONE
        self._add("trials", **trial, **kept, state=ended)

    def _epochs(self, trial_id: int, method: str, at: datetime) -> dict[str, Any]:
        """The epochs of a trial; what the trial keeps of them."""
        rates, accuracies = [], []
        for epoch in range(1, EPOCHS + 1):
            self._epoch += 1
            rate = 0.1 * self._chance.random()
            gained = 1 - self._chance.random() / epoch
            row: dict[str, Any] = {
                "id": self._epoch,
                "trial_id": trial_id,
                "epoch": epoch,
                "attempt": 1,
                "fingerprint": "0" * 64,
            }
            row |= {"phase": "stpt" if method == "stpt" else "scheduled", "learning_rate": rate}
            row |= {"first_learning_rate": rate, "last_learning_rate": rate * 0.975, "train_loss": 1.1 - gained}
            row |= {"val_loss": 1.2 - gained, "val_accuracy": 0.99 * gained, "test_accuracy": 0.98 * gained}
            row |= {"retries": 0, "rollbacks": 0, "iterations": 850, "samples": 54_400, "evaluation_samples": 16_000}
            row |= {"seconds": 2.5, "pretrain_seconds": 1.0, "main_train_seconds": 1.5, "audit": None}
            row |= {"checkpoint": {"name": f"epoch-{epoch:06}-a1", "manifest_sha256": "0" * 64}}
            self._add("epochs", **row, recorded_at=at + timedelta(seconds=10 * epoch))
            for branch in range(1, BRANCHES + 1 if method == "stpt" else 1):
                values: dict[str, Any] = {
                    "id": (self._epoch - 1) * BRANCHES + branch,
                    "epoch_id": self._epoch,
                    "number": branch,
                }
                values |= {"retry": 0, "learning_rate": rate if branch == 1 else rate * 2 * self._chance.random()}
                values |= {"metric": gained / branch, "end_metric": None, "state": "lost" if branch > 1 else "chosen"}
                self._add("branches", **values, iterations=8, samples=512, seconds=0.1)
            rates.append(rate)
            accuracies.append(0.99 * gained)
        best = 1 + accuracies.index(max(accuracies))
        settled = statistics.median_low(rates) if method == "stpt" else None
        return {
            "epochs_done": EPOCHS,
            "samples": 54_400 * EPOCHS,
            "best_epoch": best,
            "settled_learning_rate": settled,
        }

    def _add(self, table: str, **values: Any) -> None:
        self._rows[table].append(values)


def _insert(store: Store, rows: Rows) -> None:
    """Write rows as each database takes them fastest: by COPY, or many to a statement."""
    with store.connect() as connection, connection.begin():
        for name, its in rows.items():
            if not its:
                continue
            table = Base.metadata.tables[name]
            if connection.dialect.name == "sqlite":
                connection.execute(table.insert(), its)
                continue
            columns = list(its[0])
            cursor = connection.connection.cursor()
            with cursor.copy(f"COPY {name} ({', '.join(columns)}) FROM STDIN") as copy:
                for row in its:
                    values = (row[column] for column in columns)
                    copy.write_row([json.dumps(one) if isinstance(one, dict) else one for one in values])


def _finish(store: Store) -> None:
    """Have PostgreSQL count on behind these rows, and know what is in its tables."""
    with store.connect() as connection:
        if connection.dialect.name == "sqlite":
            return
        for table in Base.metadata.sorted_tables:
            key, *others = table.primary_key.columns
            if not others and key.type.python_type is int:
                last = f"(SELECT coalesce(max({key.name}), 1) FROM {table.name})"  # noqa: S608 - names of our tables
                sequence = f"pg_get_serial_sequence('{table.name}', '{key.name}')"
                connection.exec_driver_sql(f"SELECT setval({sequence}, {last})")
        connection.commit()
    vacuum(store)


def vacuum(store: Store) -> None:
    """Have PostgreSQL know what is in its tables, and forget what is not there any more, as its autovacuum does after a
    while; SQLite leaves nothing behind."""
    if store.file is not None:
        return
    with store.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM ANALYZE")
