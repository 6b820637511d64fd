"""Webhooks told of events, on both databases, by a receiver that is really there."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from unittest.mock import patch

import pytest
from sqlalchemy import delete, func, select

from service.errors import InvalidInput, NotFound
from service.jobs import lifecycle as jobs
from service.jobs import reports, webhooks
from service.jobs.retry import retry
from service.store.engine import Store
from service.store.tables import Delivery, Job
from service.store.webhooks import WebhookRecord
from service.webhooks import dispatcher, sender
from service.webhooks.dispatcher import Dispatcher
from service.webhooks.hosts import AllowedHosts
from service.webhooks.sender import Sender
from tests.builders import train
from tests.integration.jobs_in_sql import events_of, start, submit
from tests.receiver import Receiver, receiving, wait_until
from tests.unit.service.reports import epoch

pytest_plugins = ["tests.databases"]

ENDS = ("job.succeeded", "job.failed", "job.cancelled")


class Clock:
    """Stands in for the time that webhooks go by."""

    def __init__(self) -> None:
        self.time = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.time


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(webhooks, "now", clock)
    monkeypatch.setattr(dispatcher, "now", clock)
    return clock


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


def to(receiver: Receiver, *more: str, seconds: float = 10.0) -> Sender:
    """A sender to that receiver, and to what else a setting allows."""
    return Sender(AllowedHosts.parse([f"http://127.0.0.1:{receiver.port}", *more]), seconds)


def dispatch(store: Store, by: Sender, *, leads: bool = True) -> None:
    """Tell webhooks of all that is due."""

    async def until_nothing_is_due() -> None:
        teller = Dispatcher(store, by, lambda: leads)
        await teller.begin_what_is_due()
        while teller._told:
            await asyncio.gather(*teller._told.values())
            await asyncio.sleep(0)
            await teller.begin_what_is_due()

    asyncio.run(until_nothing_is_due())


def outbox(store: Store) -> int:
    with store.read() as session:
        return session.scalar(select(func.count()).select_from(Delivery)) or 0


def read(store: Store, webhook: WebhookRecord) -> WebhookRecord:
    return webhooks.get_webhook(store, webhook.id)


def test_a_jobs_events_come_in_order_signed_and_once(store: Store, receiver: Receiver) -> None:
    hook = webhooks.register(store, receiver.url, ["job.queued", "job.running", "epoch", "job.cancelling"])
    job_id, _ = train(store, [epoch(1), epoch(2)])
    jobs.cancel(store, job_id)
    dispatch(store, to(receiver))
    dispatch(store, to(receiver))
    messages = receiver.messages(hook.secret)
    told = [(message["type"], message["data"]["number"]) for message in messages]
    assert told == [("job.queued", 1), ("job.running", 3), ("epoch", 4), ("epoch", 5), ("job.cancelling", 6)]
    assert {message["data"]["job_id"] for message in messages} == {job_id}
    assert [message["data"]["epoch"] for message in messages if message["type"] == "epoch"] == [1, 2]
    assert receiver.ids == [f"event-{job_id}-{number}" for number in (1, 3, 4, 5, 6)]
    path, headers, _ = receiver.requests[0]
    assert path == "/hook"
    assert headers["host"] == f"127.0.0.1:{receiver.port}"
    assert headers["content-type"] == "application/json"
    assert outbox(store) == 0
    assert read(store, hook).delivered_at is not None


def test_what_a_retry_takes_over_is_not_told_again(store: Store, receiver: Receiver) -> None:
    job_id, token = start(store, epochs=2)
    reports.record_epoch(store, job_id, token, epoch(1))
    jobs.cancel(store, job_id)
    jobs.confirm_cancelled(store, job_id)
    webhooks.register(store, receiver.url, ["job.queued", "epoch"])
    again = retry(store, job_id)
    told = [(kind, number) for number, kind, _ in events_of(store, again)]
    assert told == [("state", 1), ("epoch", 2)]
    assert outbox(store) == 1


def test_only_what_it_asked_for_and_each_webhook_for_itself(store: Store, receiver: Receiver) -> None:
    webhooks.register(store, receiver.url, ["job.cancelled"])
    webhooks.register(store, f"{receiver.url}/other", ["job.queued", "job.cancelled"])
    jobs.cancel(store, submit(store))
    dispatch(store, to(receiver))
    told = sorted((path, headers["webhook-id"][-1]) for path, headers, _ in receiver.requests)
    assert told == [("/hook", "2"), ("/hook/other", "1"), ("/hook/other", "2")]


def test_what_is_rolled_back_is_told_to_nobody(store: Store, receiver: Receiver) -> None:
    webhooks.register(store, receiver.url, ["job.queued"])

    def power_cut(*_: object) -> None:
        raise RuntimeError("power cut")

    with patch("service.jobs.submit.tell_of_submission", power_cut), pytest.raises(RuntimeError, match="power cut"):
        submit(store)
    assert outbox(store) == 0


def test_a_receiver_that_is_down_is_told_later_with_the_same_ids(store: Store, clock: Clock) -> None:
    with receiving() as receiver:
        url, by = receiver.url, to(receiver)
    hook = webhooks.register(store, url, ["job.queued", "job.cancelled"])
    job_id = submit(store)
    jobs.cancel(store, job_id)
    pauses = []
    for _ in range(4):
        dispatch(store, by)
        failing = read(store, hook)
        assert failing.next_try_at is not None
        pauses.append((failing.next_try_at - clock.time).total_seconds())
        dispatch(store, by)  # too early: nothing happens
        clock.time = failing.next_try_at
    assert pauses == [5, 10, 20, 40]
    assert failing.failures == 4
    assert failing.last_failure is not None
    assert failing.last_failure.startswith("no answer: ")
    with receiving(port=int(url.split(":")[2].split("/")[0])) as receiver:
        dispatch(store, by)
        assert receiver.ids == [f"event-{job_id}-1", f"event-{job_id}-2"]
    well = read(store, hook)
    assert (well.failures, well.last_failure, well.failing_since, well.next_try_at) == (0, None, None, None)


def test_what_fails_holds_up_what_comes_behind_it(store: Store, receiver: Receiver, clock: Clock) -> None:
    hook = webhooks.register(store, receiver.url, ["job.queued", "job.cancelled"])
    receiver.statuses = [500, 503]
    jobs.cancel(store, submit(store))
    for _ in range(3):
        dispatch(store, to(receiver))
        clock.time += timedelta(seconds=30)
    first, second, third, last = receiver.ids
    assert first == second == third != last
    bodies = {body for _, headers, body in receiver.requests if headers["webhook-id"] == first}
    assert len(bodies) == 1
    assert len(receiver.messages(hook.secret)) == 4


def test_a_service_that_is_killed_between_sending_and_marking_sends_again_with_the_same_id(
    store: Store, receiver: Receiver
) -> None:
    hook = webhooks.register(store, receiver.url, ["job.queued"])
    job_id = submit(store)

    class Killed(BaseException):
        pass

    with patch.object(webhooks, "delivered", side_effect=Killed), pytest.raises(Killed):
        dispatch(store, to(receiver))
    dispatch(store, to(receiver))
    assert receiver.ids == [f"event-{job_id}-1"] * 2
    assert len(receiver.messages(hook.secret)) == 2
    assert outbox(store) == 0


def test_after_a_day_of_failures_it_is_disabled_until_it_is_registered_again(
    store: Store, receiver: Receiver, clock: Clock
) -> None:
    hook = webhooks.register(store, receiver.url, ["job.queued"])
    receiver.statuses = [500] * 1000
    submit(store)
    began, tries = clock.time, 0
    while (now := read(store, hook)).disabled_at is None:
        dispatch(store, to(receiver))
        tries += 1
        clock.time = read(store, hook).next_try_at or clock.time
    assert timedelta(days=1) <= now.disabled_at - began < timedelta(days=1, hours=1)
    assert tries == 34
    assert now.last_failure == "it answered with 500"
    submit(store)
    assert outbox(store) == 0
    receiver.statuses = []
    again = webhooks.register(store, receiver.url, ["job.queued"])
    assert (again.id, again.disabled_at, again.failures) == (hook.id, None, 0)
    assert again.secret != hook.secret
    submit(store)
    receiver.requests.clear()
    dispatch(store, to(receiver))
    assert len(receiver.messages(again.secret)) == 1


def test_gone_disables_it_at_once(store: Store, receiver: Receiver) -> None:
    hook = webhooks.register(store, receiver.url, ["job.queued"])
    receiver.statuses = [410]
    submit(store)
    dispatch(store, to(receiver))
    assert read(store, hook).disabled_at is not None
    assert read(store, hook).last_failure == "it answered with 410"


def test_a_redirect_is_not_followed(store: Store, receiver: Receiver) -> None:
    hook = webhooks.register(store, receiver.url, ["job.queued"])
    receiver.statuses, receiver.location = [302], f"{receiver.url}/elsewhere"
    submit(store)
    dispatch(store, to(receiver))
    assert [path for path, *_ in receiver.requests] == ["/hook"]
    assert "redirects are not followed" in str(read(store, hook).last_failure)


def addresses(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> list[str]:
    """Let names resolve to these addresses, a list for each time that one is resolved; return what was asked for."""
    asked: list[str] = []

    async def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        return answers[len(asked) - 1]

    monkeypatch.setattr(sender, "resolve", resolve)
    return asked


@pytest.mark.parametrize("found", [["10.0.0.8"], ["8.8.8.8", "127.0.0.2"], ["169.254.169.254"], ["::1"]])
def test_a_name_that_leads_to_a_private_address_is_not_connected_to(
    store: Store, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, found: list[str]
) -> None:
    monkeypatch.setattr("httpcore.AnyIOBackend.connect_tcp", lambda *_, **__: pytest.fail("it connects"))
    addresses(monkeypatch, found)
    host = f"hooks.example.com:{receiver.port}"
    hook = webhooks.register(store, f"http://{host}/", ["job.queued"])
    submit(store)
    dispatch(store, to(receiver, f"http://{host}"))
    assert "leads to an address that is not public" in str(read(store, hook).last_failure)


def test_the_name_localhost_is_not_the_address(store: Store, receiver: Receiver) -> None:
    hook = webhooks.register(store, f"http://localhost:{receiver.port}/", ["job.queued"])
    submit(store)
    dispatch(store, Sender(AllowedHosts.parse([f"http://localhost:{receiver.port}"])))
    assert "leads to an address that is not public" in str(read(store, hook).last_failure)
    assert receiver.requests == []


def test_the_address_that_was_checked_is_the_one_that_is_connected_to(
    store: Store, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name server that gives another address the second time (DNS rebinding) is not asked a second time."""
    asked = addresses(monkeypatch, ["127.0.0.1"], ["10.0.0.8"])
    host = f"hooks.example.com:{receiver.port}"
    webhooks.register(store, f"http://{host}/", ["job.queued"])
    submit(store)
    dispatch(store, to(receiver, f"http://{host}"))
    assert asked == ["hooks.example.com"]
    assert [headers["host"] for _, headers, _ in receiver.requests] == [host]


def test_a_host_that_is_allowed_no_longer(store: Store, receiver: Receiver) -> None:
    hook = webhooks.register(store, receiver.url, ["job.queued"])
    submit(store)
    dispatch(store, Sender(AllowedHosts.parse(["hooks.example.com"])))
    assert receiver.requests == []
    assert "is not among the hosts in FORERUN_WEBHOOK_HOSTS" in str(read(store, hook).last_failure)


def test_an_answer_that_does_not_end_is_cut_off(store: Store, clock: Clock) -> None:
    with receiving(drips=0.02) as receiver:
        hook = webhooks.register(store, receiver.url, ["job.queued"])
        submit(store)
        dispatch(store, to(receiver, seconds=0.3))
        assert read(store, hook).last_failure == "no answer within 0.3 s"


def test_what_speaks_no_tls(store: Store, receiver: Receiver) -> None:
    url = receiver.url.replace("http:", "https:")
    hook = webhooks.register(store, url, ["job.queued"])
    submit(store)
    dispatch(store, Sender(AllowedHosts.parse([f"127.0.0.1:{receiver.port}"])))
    assert str(read(store, hook).last_failure).startswith("no answer: ")
    assert receiver.requests == []


def test_a_slow_webhook_does_not_hold_up_another(store: Store, receiver: Receiver, clock: Clock) -> None:
    with receiving(drips=0.02) as slow:
        webhooks.register(store, slow.url, ["job.queued"])
        webhooks.register(store, receiver.url, ["job.queued"])
        submit(store)
        submit(store)
        dispatch(store, to(receiver, f"http://127.0.0.1:{slow.port}", seconds=0.5))
        assert len(receiver.requests) == 2
        assert len(slow.requests) == 1


def test_who_does_not_lead_tells_nobody(store: Store, receiver: Receiver) -> None:
    webhooks.register(store, receiver.url, ["job.queued"])
    submit(store)
    dispatch(store, to(receiver), leads=False)
    assert receiver.requests == []
    dispatch(store, to(receiver))
    assert len(receiver.requests) == 1


def test_a_webhook_or_job_that_is_deleted_takes_its_deliveries_along(store: Store, receiver: Receiver) -> None:
    hook = webhooks.register(store, receiver.url, ["job.queued"])
    job_id = submit(store)
    with store.write() as session:
        session.execute(delete(Job).where(Job.id == job_id))
    assert outbox(store) == 0
    submit(store)
    assert outbox(store) == 1
    webhooks.delete(store, hook.id)
    webhooks.delete(store, hook.id)
    assert outbox(store) == 0
    with pytest.raises(NotFound, match="there is no webhook"):
        read(store, hook)


def test_there_is_an_end_to_how_many_there_may_be(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "MAX_WEBHOOKS", 2)
    for name in ("a", "b", "a"):  # one that is there already is no other one
        webhooks.register(store, f"https://h/{name}", ["epoch"])
    with pytest.raises(InvalidInput, match="there are 2 webhooks already"):
        webhooks.register(store, "https://h/c", ["epoch"])
    assert [one.url for one in webhooks.list_webhooks(store)] == ["https://h/b", "https://h/a"]


def test_its_own_thread_tells_and_ends(store: Store, receiver: Receiver) -> None:
    teller = Dispatcher(store, to(receiver), lambda: True, poll_seconds=0.01)
    webhooks.register(store, receiver.url, ["job.queued"])
    teller.start()
    try:
        submit(store)
        wait_until(lambda: receiver.requests and outbox(store) == 0)
    finally:
        teller.stop()
    submit(store)
    assert outbox(store) == 1


def test_a_thread_that_ends_cuts_off_what_is_under_way(store: Store) -> None:
    with receiving(drips=0.05) as receiver:
        teller = Dispatcher(store, to(receiver, seconds=60), lambda: True, poll_seconds=0.01)
        webhooks.register(store, receiver.url, ["job.queued"])
        submit(store)
        teller.start()
        wait_until(lambda: receiver.requests)
        teller.stop()
        assert outbox(store) == 1


def test_a_secret_is_not_in_what_a_record_says_of_itself(store: Store) -> None:
    hook = webhooks.register(store, "https://h/x", ["epoch"])
    assert hook.secret.startswith("whsec_")
    assert hook.secret not in repr(hook)
