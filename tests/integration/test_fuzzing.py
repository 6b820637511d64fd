"""What schemathesis makes of the OpenAPI document is asked of a real server on loopback: whatever it is, nothing may be
answered with a server error. A 503 with Retry-After is none: the document names the states in which it is the answer.

`FORERUN_EXAMPLES=20000 pytest -m long tests/integration/test_fuzzing.py` asks for longer.
"""

import os
from collections import Counter
from collections.abc import Callable
from typing import cast

import psutil
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import Case
from schemathesis.generation import GenerationMode

from api.app import create_app
from api.deps import Services
from service.access.keys import create_key
from service.jobs.lifecycle import attempt_lost, cancel
from service.jobs.pause import pause
from service.jobs.reports import exchange_ticket
from service.store.engine import Store
from service.wire.worker import EpochRecord
from tests.builders import claim, epoch_record, train
from tests.integration.jobs_in_sql import submit
from tests.integration.test_load import door

pytest_plugins = ["tests.databases"]
__all__ = ["door"]  # a fixture

CASES = int(os.environ.get("FORERUN_EXAMPLES", "2000"))
PATIENCE = 120  # seconds that a request may take: a forecast of 100,000 epochs on a busy machine takes more than ten
EVENTS = "/v1/jobs/{job_id}/events"  # which end with their job
SCHEMA = schemathesis.openapi.from_dict(create_app(cast(Services, None)).openapi())
OPERATIONS = [found.ok() for found in SCHEMA.get_all_operations()]


def cases() -> st.SearchStrategy[Case]:
    """Requests as the document describes them, and others; each operation as often as the next."""

    def of(operation: schemathesis.APIOperation) -> st.SearchStrategy[Case]:
        right = operation.as_strategy(generation_mode=GenerationMode.POSITIVE)
        if not (operation.body or any(operation.iter_parameters())):
            return right  # there is nothing that could be wrong
        return st.one_of(right, operation.as_strategy(generation_mode=GenerationMode.NEGATIVE))

    return st.one_of([of(operation) for operation in OPERATIONS])


class Jobs:
    """A job in each of many states, made anew when it was deleted. The first one has ended, and stays."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._makers: list[Callable[[], str]] = [
            self._failed,
            self._running,
            self._queued,
            self._paused,
            self._cancelled,
        ]
        self.ids = [make() for make in self._makers]

    def make_anew(self, number: int) -> None:
        self.ids[number] = self._makers[number]()

    def _failed(self) -> str:
        """With epochs."""
        job_id, _ = train(self._store, [EpochRecord.model_validate(epoch_record(epoch)) for epoch in (1, 2)])
        attempt_lost(self._store, job_id, 1, "no memory", max_attempts=0)
        return job_id

    def _running(self) -> str:
        self._queued()
        claimed = claim(self._store)  # some job that waits
        exchange_ticket(self._store, claimed.job_id, claimed.ticket)
        return claimed.job_id

    def _queued(self) -> str:
        return submit(self._store)

    def _paused(self) -> str:
        job_id = self._queued()
        pause(self._store, job_id)
        return job_id

    def _cancelled(self) -> str:
        job_id = self._queued()
        cancel(self._store, job_id)
        return job_id


@pytest.mark.long
@pytest.mark.timeout(4 * 3600)
def test_no_request_is_answered_with_a_server_error(door: tuple[int, psutil.Process], sqlite_store: Store) -> None:
    port, process = door
    _, admin = create_key(sqlite_store, "admin", scope="admin")
    jobs, answers, wrong = Jobs(sqlite_store), Counter[int](), []

    @given(case=cases(), number=st.integers(-1, 4))
    @settings(
        max_examples=CASES,
        phases=[Phase.generate],
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    def ask(case: Case, number: int) -> None:
        known = number >= 0 and "job_id" in case.path_parameters
        if known:
            number = 0 if case.path == EVENTS else number
            case.path_parameters["job_id"] = jobs.ids[number]
        headers = {"Authorization": f"Bearer {admin}"}  # as soon as a request has made a key, one is asked for
        if known and not case.operation.body:
            headers["Content-Type"] = "application/json"
        response = case.call(f"http://127.0.0.1:{port}", session=session, headers=headers, timeout=PATIENCE)
        answers[response.status_code] += 1
        if answers.total() % 1000 == 0:
            print(f"{answers.total()} answers: {dict(sorted(answers.items()))}", flush=True)
        waits = response.status_code == 503 and "Retry-After" in response.headers
        if response.status_code >= 500 and not waits:
            wrong.append((response.status_code, case.as_curl_command(), response.text[:1000]))
        if known and case.method == "DELETE" and response.status_code < 300:
            jobs.make_anew(number)

    with requests.Session() as session:
        session.trust_env = False
        ask()
    assert not wrong, f"{len(wrong)} of {answers.total()}: {wrong[:5]}"
    assert answers.total() >= CASES
    assert process.is_running()
