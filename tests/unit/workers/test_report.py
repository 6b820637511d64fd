"""The worker's side of reporting, against an API that answers, refuses and goes away.

Most tests have no thread: they post by hand what it would post (`post_what_waits`, `beat`)."""

import errno
import json
import socket
from itertools import count
from pathlib import Path

import httpx
import pytest

from service.errors import InvalidInput, RecordConflict, StaleAttempt
from service.wire.worker import Assignment, EpochRecord, Outcome
from tests.builders import epoch_record
from tests.processes import wait_until
from workers import disk, report
from workers.report import FIRST_PAUSE_S, LONGEST_PAUSE_S, PATIENCE_S, ApiAway, Reporter, exchange_ticket

URL = "http://api.invalid"
ASSIGNMENT = Assignment(job_id="job-1", attempt=2, spec='{"model": "lenet5"}', report_token="secret-token")
SUCCEEDED = Outcome(state="succeeded")
FAILED = Outcome(state="failed", code="diverged", message="all of them")


def record(epoch: int, **changes) -> EpochRecord:
    return EpochRecord.model_validate(epoch_record(epoch, **changes))


class Api:
    """Answers as `script` says, one entry a request, then 204; `accepted` are the bodies it took, in order.

    An entry is a status, a response, or an exception for the way there.
    """

    def __init__(self) -> None:
        self.script: list[int | httpx.Response | Exception] = []
        self.requests: list[httpx.Request] = []
        self.accepted: list[tuple[str, dict]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.script.pop(0) if self.script else 204
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, int):
            answer = httpx.Response(answer, json={"detail": f"status {answer}"} if answer >= 400 else None)
        if answer.is_success:
            self.accepted.append((request.url.path.rpartition("/")[2], json.loads(request.content)))
        return answer

    @property
    def epochs(self) -> list[int]:
        return [body["epoch"] for what, body in self.accepted if what == "epochs"]


class Clock:
    """A clock on which time passes by sleeping alone."""

    def __init__(self) -> None:
        self.now, self.pauses = 1000.0, []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Api:
    api, client = Api(), httpx.Client
    monkeypatch.setattr(httpx, "Client", lambda **options: client(transport=httpx.MockTransport(api), **options))
    return api


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("tenacity.time", clock)
    monkeypatch.setattr("tenacity.nap.time", clock)
    return clock


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "job-1-a2" / "spool"


def waiting(spool: Path) -> list[str]:
    return sorted(path.name for path in spool.iterdir())


AWAY = [
    httpx.ConnectError("refused"),
    httpx.ReadTimeout("slow"),
    httpx.RemoteProtocolError("cut off"),
    429,
    500,
    502,
    503,
]


# --- epochs ----------------------------------------------------------------------------------------


def test_an_epoch_is_posted_with_the_token(api, spool):
    reporter = Reporter(URL, ASSIGNMENT, spool)
    reporter.epoch(record(1))
    reporter.epoch(record(2))
    assert api.requests == []  # the training does not wait for that
    assert reporter.waiting_epochs() == 2
    reporter.post_what_waits()
    assert waiting(spool) == []
    assert reporter.waiting_epochs() == 0
    assert [(r.method, str(r.url)) for r in api.requests] == [("POST", f"{URL}/internal/jobs/job-1/epochs")] * 2
    assert {(r.headers["Authorization"], r.headers["Content-Type"]) for r in api.requests} == {
        ("Bearer secret-token", "application/json")
    }
    assert [EpochRecord.model_validate(body) for _, body in api.accepted] == [record(1), record(2)]


@pytest.mark.parametrize("trouble", AWAY, ids=str)
def test_an_api_that_is_away_does_not_hold_up_the_training(api, spool, clock, trouble):
    api.script = [trouble, trouble]
    reporter = Reporter(URL, ASSIGNMENT, spool)
    for number in (1, 2):
        reporter.epoch(record(number))
        with pytest.raises(ApiAway):
            reporter.post_what_waits()
    assert waiting(spool) == ["000000001-epochs.json", "000000002-epochs.json"]
    assert clock.pauses == []
    reporter.epoch(record(3))
    reporter.post_what_waits()  # it is back: all of them, in order
    assert api.epochs == [1, 2, 3]
    assert waiting(spool) == []


def test_epochs_are_posted_in_order_of_their_numbers(api, spool):
    reporter = Reporter(URL, ASSIGNMENT, spool)
    for number in range(8, 102):
        reporter.epoch(record(number))
    reporter.flush()
    assert api.epochs == list(range(8, 102))


def test_an_api_that_goes_away_in_the_middle_gets_the_rest_later(api, spool):
    reporter = Reporter(URL, ASSIGNMENT, spool)
    for number in (1, 2, 3):
        reporter.epoch(record(number))
    api.script = [204, 204, httpx.ReadTimeout("was it written?")]
    with pytest.raises(ApiAway):
        reporter.post_what_waits()
    assert api.epochs == [1, 2]
    reporter.epoch(record(4))
    reporter.flush()
    assert api.epochs == [1, 2, 3, 4]


def test_what_waits_survives_a_crash(api, spool):
    before = Reporter(URL, ASSIGNMENT, spool)
    before.epoch(record(1))
    before.epoch(record(2))
    (spool / ".000000001-epochs.json").write_text('{"method": "st')  # it died while it wrote the third
    reporter = Reporter(URL, ASSIGNMENT, spool)
    reporter.flush()
    assert api.epochs == [1, 2]
    reporter.epoch(record(3))
    reporter.flush()
    assert [EpochRecord.model_validate(body) for _, body in api.accepted] == [record(1), record(2), record(3)]
    assert waiting(spool) == []


def test_a_file_in_the_spool_is_whole_or_absent(api, spool, monkeypatch):
    """The last thing that happens to a file is its new name, and by then its bytes are on the disk."""
    done = []
    monkeypatch.setattr(disk.os, "fsync", lambda descriptor: done.append("fsync"))
    rename = Path.rename
    monkeypatch.setattr(Path, "rename", lambda *paths: (done.append("rename"), rename(*paths))[1])
    Reporter(URL, ASSIGNMENT, spool).epoch(record(1))
    assert done == ["fsync", "rename"]
    assert EpochRecord.model_validate_json((spool / "000000001-epochs.json").read_text()) == record(1)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (401, StaleAttempt),
        (403, StaleAttempt),
        (404, StaleAttempt),
        (409, RecordConflict),
        (400, InvalidInput),
        (422, InvalidInput),
    ],
)
def test_a_refusal_raises_and_the_record_stays(api, spool, clock, status, error):
    api.script = [status]
    reporter = Reporter(URL, ASSIGNMENT, spool)
    reporter.epoch(record(1))
    with pytest.raises(error) as caught:
        reporter.flush()
    assert type(caught.value) is error
    assert f"status {status}" in caught.value.detail
    assert waiting(spool) == ["000000001-epochs.json"]
    assert clock.pauses == []


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"title": "no"}', b""])
def test_a_refusal_in_other_words_is_understood(api, spool, body):
    api.script = [httpx.Response(403, content=body)]
    reporter = Reporter(URL, ASSIGNMENT, spool)
    reporter.epoch(record(1))
    with pytest.raises(StaleAttempt) as caught:
        reporter.flush()
    assert caught.value.detail == "/internal/jobs/job-1/epochs answers 403"


# --- the end ---------------------------------------------------------------------------------------


def test_the_end_of_a_training_waits_for_the_api(api, spool, clock):
    api.script = [503] * 9
    reporter = Reporter(URL, ASSIGNMENT, spool)
    reporter.epoch(record(1))
    reporter.flush()
    assert api.epochs == [1]
    assert clock.pauses == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 15.0, 15.0]


def test_its_patience_ends_and_the_files_stay(api, spool, clock):
    api.script = [httpx.ConnectError("refused")] * 1000
    reporter = Reporter(URL, ASSIGNMENT, spool)
    reporter.epoch(record(1))
    with pytest.raises(ApiAway) as caught:
        reporter.flush()
    assert caught.value.detail == f"no answer from {URL} (ConnectError)"
    assert PATIENCE_S - LONGEST_PAUSE_S <= clock.now - 1000 <= PATIENCE_S
    assert (clock.pauses[0], max(clock.pauses)) == (FIRST_PAUSE_S, LONGEST_PAUSE_S)
    assert waiting(spool) == ["000000001-epochs.json"]


@pytest.mark.parametrize("outcome", [SUCCEEDED, FAILED], ids=lambda o: o.state)
@pytest.mark.parametrize("trouble", AWAY, ids=str)
def test_an_outcome_is_reported_until_it_arrives(api, spool, clock, outcome, trouble):
    api.script = [trouble, trouble]
    Reporter(URL, ASSIGNMENT, spool).outcome(outcome)
    assert [str(r.url) for r in api.requests] == [f"{URL}/internal/jobs/job-1/outcome"] * 3
    assert [(what, Outcome.model_validate(body)) for what, body in api.accepted] == [("outcome", outcome)]
    assert clock.pauses == [0.2, 0.4]


def test_epochs_that_wait_go_before_the_outcome(api, spool):
    """A training that fails while the API is away: another process of the job says so, on the same spool."""
    worker = Reporter(URL, ASSIGNMENT, spool)
    for number in (1, 2):
        worker.epoch(record(number))
    api.script = [503]
    Reporter(URL, ASSIGNMENT, spool).outcome(FAILED)
    assert [what for what, _ in api.accepted] == ["epochs", "epochs", "outcome"]
    assert waiting(spool) == []


@pytest.mark.parametrize("status", [409, 422])
def test_a_refused_epoch_does_not_keep_the_outcome_back(api, spool, status):
    api.script = [status, status]
    reporter = Reporter(URL, ASSIGNMENT, spool)
    reporter.epoch(record(1))
    with pytest.raises((RecordConflict, InvalidInput)):
        reporter.flush()
    reporter.outcome(FAILED)
    assert [what for what, _ in api.accepted] == ["outcome"]
    assert waiting(spool) == ["000000001-epochs.json"]


@pytest.mark.parametrize(("status", "error"), [(403, StaleAttempt), (409, RecordConflict), (422, InvalidInput)])
def test_a_refused_outcome_raises(api, spool, clock, status, error):
    api.script = [status]
    with pytest.raises(error):
        Reporter(URL, ASSIGNMENT, spool).outcome(SUCCEEDED)
    assert len(api.requests) == 1


def test_a_superseded_attempt_with_epochs_left_says_nothing_more(api, spool):
    reporter = Reporter(URL, ASSIGNMENT, spool)
    reporter.epoch(record(1))
    api.script = [403]
    with pytest.raises(StaleAttempt):
        reporter.outcome(FAILED)
    assert api.accepted == []


# --- the ticket ------------------------------------------------------------------------------------


def test_a_ticket_buys_the_assignment(api, clock):
    api.script = [httpx.ConnectError("refused"), 503, httpx.Response(200, json=ASSIGNMENT.model_dump())]
    assert exchange_ticket(URL, "job-1", "the-ticket") == ASSIGNMENT
    assert [str(r.url) for r in api.requests] == [f"{URL}/internal/jobs/job-1/ticket"] * 3
    asked = [json.loads(request.content) for request in api.requests]
    assert asked == [{"ticket": "the-ticket", "report_token": asked[0]["report_token"]}] * 3  # by which it is known
    assert len(asked[0]["report_token"]) == 43
    assert api.accepted == [("ticket", asked[0])]
    assert clock.pauses == [0.2, 0.4]


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_stale_ticket_buys_nothing(api, clock, status):
    api.script = [status]
    with pytest.raises(StaleAttempt, match=f"^status {status}$"):
        exchange_ticket(URL, "job-1", "the-ticket")
    assert clock.pauses == []


# --- heartbeats ------------------------------------------------------------------------------------


def beats(api: Api) -> list[tuple[int | None, str | None]]:
    return [(body["iterations"], body["waits_for"]) for what, body in api.accepted if what == "heartbeat"]


def test_a_heartbeat_tells_how_far_the_training_is(api, spool):
    numbers = iter([0, 7, 7])
    reporter = Reporter(URL, ASSIGNMENT, spool, lambda: next(numbers))
    for _ in range(3):
        reporter.beat()
    assert beats(api) == [(0, None), (7, None), (7, None)]
    assert {str(r.url) for r in api.requests} == {f"{URL}/internal/jobs/job-1/heartbeat"}
    assert {r.headers["Authorization"] for r in api.requests} == {"Bearer secret-token"}


def test_a_heartbeat_tells_what_is_waited_for(api, spool):
    reporter = Reporter(URL, ASSIGNMENT, spool, lambda: 3)
    reporter.waits_for("no space left")
    reporter.beat()
    reporter.waits_for(None)
    reporter.beat()
    assert beats(api) == [(3, "no space left"), (3, None)]


def test_every_answer_says_whether_to_pause(api, spool):
    pause, go_on = httpx.Response(200, json={"pause": True}), httpx.Response(200, json={"pause": False})
    reporter = Reporter(URL, ASSIGNMENT, spool, lambda: 1)
    assert not reporter.pause_asked
    reporter.epoch(record(1))
    for answer, asked in [(pause, True), (go_on, False), (pause, True), (204, True)]:  # an old API's is empty
        api.script = [answer]
        reporter.beat()
        assert reporter.pause_asked is asked
    api.script = [go_on]
    reporter.flush()
    assert not reporter.pause_asked


def test_who_does_not_train_speaks_up_only_where_there_is_something_to_tell(api, spool):
    reporter = Reporter(URL, ASSIGNMENT, spool)
    looks = iter([None, "free workers", "free workers", None, None])
    reporter.look = lambda: next(looks)
    for _ in range(5):
        reporter.beat()
    assert beats(api) == [(None, "free workers"), (None, None)]


# --- the thread ------------------------------------------------------------------------------------


def test_the_thread_posts_what_is_handed_over(api, spool):
    with Reporter(URL, ASSIGNMENT, spool, lambda: 1) as reporter:
        for number in (1, 2, 3):
            reporter.epoch(record(number))
        wait_until(lambda: not reporter.waiting())
    assert api.epochs == [1, 2, 3]


def test_of_two_processes_only_the_one_that_trains_posts(api, spool, monkeypatch):
    """Two would overtake each other, and the older of two reports on a trial could win."""
    monkeypatch.setattr(report, "HEARTBEAT_S", 0.001)
    worker = Reporter(URL, ASSIGNMENT, spool, lambda: 1)
    with Reporter(URL, ASSIGNMENT, spool) as driver:
        worker.epoch(record(1))
        looks = count()
        driver.look = lambda: None if next(looks) % 2 else "free workers"
        wait_until(lambda: len(beats(api)) > 4)
        assert waiting(spool) == ["000000001-epochs.json"]
        driver.flush()
    assert api.epochs == [1]


@pytest.mark.parametrize("trouble", AWAY, ids=str)
def test_the_thread_asks_again_while_the_api_is_away(api, spool, monkeypatch, caplog, trouble):
    monkeypatch.setattr(report, "FIRST_PAUSE_S", 0.001)
    api.script = [trouble] * 5
    with Reporter(URL, ASSIGNMENT, spool, lambda: 1) as reporter:
        reporter.epoch(record(1))
        reporter.epoch(record(2))
        wait_until(lambda: not reporter.waiting())
    assert api.epochs == [1, 2]
    assert len(caplog.messages) == 1


@pytest.mark.parametrize(("status", "error"), [(403, StaleAttempt), (409, RecordConflict), (422, InvalidInput)])
def test_a_refusal_is_raised_at_the_next_report(api, spool, status, error):
    api.script = [status]
    reporter = Reporter(URL, ASSIGNMENT, spool, lambda: 1)
    reporter.epoch(record(1))
    with reporter:
        wait_until(lambda: reporter._refusal is not None)
        with pytest.raises(error, match=f"status {status}"):
            reporter.epoch(record(2))
    assert waiting(spool) == ["000000001-epochs.json"]
    assert api.epochs == []


def test_a_stale_heartbeat_ends_the_training_at_its_next_report(api, spool):
    api.script = [403]
    with Reporter(URL, ASSIGNMENT, spool, lambda: 1) as reporter:
        wait_until(lambda: reporter._refusal is not None)
        with pytest.raises(StaleAttempt, match="status 403"):
            reporter.epoch(record(1))
    assert len(api.requests) == 1


def test_the_thread_beats_while_nothing_is_handed_over(api, spool, monkeypatch):
    monkeypatch.setattr(report, "HEARTBEAT_S", 0.001)
    numbers = count(1)
    with Reporter(URL, ASSIGNMENT, spool, lambda: next(numbers)):
        wait_until(lambda: len(beats(api)) > 3)
    assert beats(api)[:3] == [(1, None), (2, None), (3, None)]


def test_a_heartbeat_that_fails_does_not_end_the_thread(api, spool, monkeypatch):
    monkeypatch.setattr(report, "FIRST_PAUSE_S", 0.001)
    errors = [RuntimeError("Ray is away"), ValueError("what?")]

    def look() -> None:
        if errors:
            raise errors.pop()

    with Reporter(URL, ASSIGNMENT, spool, lambda: 1) as reporter:
        reporter.look = look
        wait_until(lambda: reporter._news.set() or not errors)
        reporter.epoch(record(1))
        wait_until(lambda: not reporter.waiting())


def test_a_full_disk_is_waited_for_and_told(api, spool, clock, monkeypatch):
    full = [OSError(errno.ENOSPC, "No space left on device")] * 8
    told = []

    def fsync(_: int) -> None:
        if full:
            raise full.pop()

    monkeypatch.setattr(disk.os, "fsync", fsync)
    reporter = Reporter(URL, ASSIGNMENT, spool, lambda: 1)
    monkeypatch.setattr(reporter, "waits_for", told.append)
    reporter.epoch(record(1))
    assert clock.pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    assert told == [f"a disk that can be written: {spool} (No space left on device)"] * 8 + [None]
    assert waiting(spool) == ["000000001-epochs.json"]


# --- a real socket ---------------------------------------------------------------------------------


def test_a_port_where_nobody_listens_is_an_api_that_is_away(spool):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    reporter = Reporter(f"http://127.0.0.1:{port}", ASSIGNMENT, spool)
    reporter.epoch(record(1))
    with pytest.raises(ApiAway, match="ConnectError"):
        reporter.post_what_waits()
    assert waiting(spool) == ["000000001-epochs.json"]
