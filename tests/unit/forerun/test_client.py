import json
from itertools import pairwise

import httpx
import pytest
from pydantic import ValidationError

from forerun.client import (
    ApiError,
    Client,
    JobFailed,
    ServiceUnreachable,
    raise_unless_succeeded,
)
from forerun.exchange import PAUSES
from service.errors import ForerunError
from service.spec.job import JobSpec
from service.spec.lr_set import NamedLrSet
from service.wire.answers import Job, OtherEvent
from tests.unit.forerun.conftest import Connect
from tests.unit.forerun.service_double import (
    Document,
    Script,
    answer,
    branch,
    branch_of_epoch,
    compared_run,
    decided,
    documents,
    epoch,
    epoch_event,
    experiment_facts,
    history_step,
    job,
    layer_epoch,
    lr_step,
    planned,
    problem,
    recommended,
    replayed,
    schedule,
    sent,
    state_event,
    stream,
    study_row,
    succeeded,
    trial_result,
)

SPEC = {"model": "lenet5", "dataset": "digits", "epochs": 3, "lr_set": "middle"}
REFUSED = httpx.ConnectError("[Errno 111] Connection refused")
CUT = httpx.RemoteProtocolError("Server disconnected without sending a response.")


# --- requests ----------------------------------------------------------------------------------------


def test_submit_sends_the_spec_with_a_key_of_its_own_each_time(connect: Connect) -> None:
    script = Script(answer(job(), 202), answer(job(), 202))
    with connect(script) as client:
        assert client.submit(SPEC).id == "job-1"
        client.submit(SPEC)
    assert script.asked == ["POST /v1/jobs", "POST /v1/jobs"]
    assert json.loads(script.requests[0].content) == SPEC
    assert script.requests[0].headers["Content-Type"] == "application/json"
    keys = [request.headers["Idempotency-Key"] for request in script.requests]
    assert len(set(keys)) == 2
    assert all(keys)


def test_submit_takes_a_job_spec_and_a_key(connect: Connect) -> None:
    spec = JobSpec(model="lenet5", dataset={"name": "digits"}, epochs=3, lr_set=NamedLrSet(name="middle"))
    script = Script(answer(job(), 202))
    connect(script).submit(spec, idempotency_key="mine")
    assert JobSpec.model_validate_json(script.requests[0].content) == spec
    assert script.requests[0].headers["Idempotency-Key"] == "mine"


def test_a_submit_whose_answer_was_lost_is_sent_again_with_the_same_key(connect: Connect, pauses: list[float]) -> None:
    script = Script(CUT, httpx.ReadTimeout("timed out"), answer(job(), 202))
    assert connect(script).submit(SPEC).id == "job-1"
    first, second, third = script.requests
    assert first.headers["Idempotency-Key"] == second.headers["Idempotency-Key"] == third.headers["Idempotency-Key"]
    assert first.content == third.content
    assert pauses == [0.5, 1.0]


def test_a_request_is_sent_three_times_at_most(connect: Connect) -> None:
    script = Script(CUT, CUT, CUT)
    with pytest.raises(ServiceUnreachable, match="Server disconnected"):
        connect(script).job("job-1")
    assert len(script.requests) == 3


def test_a_request_that_the_database_cannot_take_is_sent_again(connect: Connect, pauses: list[float]) -> None:
    locked = problem(503, "database_unavailable", "The database cannot be used", "it is locked")
    later = httpx.Response(503, json=json.loads(locked.content), headers={"Retry-After": "5"})
    script = Script(later, locked, answer(job(), 202))
    assert connect(script).submit(SPEC).id == "job-1"
    assert pauses == [5.0, 1.0]
    assert len({request.headers["Idempotency-Key"] for request in script.requests}) == 1


def test_a_database_that_stays_away_is_told_in_the_end(connect: Connect, pauses: list[float]) -> None:
    locked = problem(503, "database_unavailable", "The database cannot be used", "it is locked")
    with pytest.raises(ApiError, match="it is locked") as caught:
        connect(Script(locked, locked, locked)).job("job-1")
    assert (caught.value.code, pauses) == ("database_unavailable", [0.5, 1.0])


def test_what_is_short_for_another_reason_is_not_asked_for_again(connect: Connect, pauses: list[float]) -> None:
    with pytest.raises(ApiError, match="Ray is away"):
        connect(Script(problem(503, "cluster_unreachable", "Ray", "Ray is away"))).job("job-1")
    assert pauses == []


def test_jobs_reads_page_after_page_as_they_are_needed(connect: Connect) -> None:
    script = Script(
        answer({"items": [job(id="job-3"), job(id="job-2")], "next_cursor": "Mg"}),
        answer({"items": [job(id="job-1")], "next_cursor": None}),
    )
    found = connect(script).jobs(state=["running", "queued"], model="lenet5", page_size=2)
    assert [next(found).id, next(found).id] == ["job-3", "job-2"]
    assert script.asked == ["GET /v1/jobs?state=running&state=queued&model=lenet5&limit=2"]
    assert [item.id for item in found] == ["job-1"]
    assert script.asked[1:] == ["GET /v1/jobs?state=running&state=queued&model=lenet5&limit=2&cursor=Mg"]


def test_the_other_calls(connect: Connect) -> None:
    script = Script(
        answer(job(state="cancelling"), 202),
        answer({"job_id": "job-1", "items": [epoch(1)]}),
        answer({"job_id": "job-1", "items": [branch_of_epoch(1)]}),
        answer({"job_id": "job-1", "items": [branch_of_epoch(2)]}),
        answer({"job_id": "job-1", "items": [lr_step(1)]}),
        httpx.Response(200, headers={"Content-Type": "text/csv"}, text="epoch\r\n1\r\n"),
        answer(schedule()),
        answer(schedule(learning_rates=[0.2])),
        answer(replayed(agreement=1.0)),
        answer(planned()),
        answer({"items": [experiment_facts()]}),
    )
    client = connect(script)
    assert client.cancel("job-1").state == "cancelling"
    assert documents(client.epochs("job-1")) == [epoch(1)]
    assert documents(client.branches("job-1")) == [branch_of_epoch(1)]
    assert documents(client.branches("job-1", epoch=2)) == [branch_of_epoch(2)]
    assert documents(client.lr_history("job-1")) == [lr_step(1)]
    assert client.lr_history_csv("job-1") == "epoch\r\n1\r\n"
    assert client.schedule("job-1").learning_rates == [0.1]
    assert client.schedule("job-1", label="sweep", trial=2).learning_rates == [0.2]
    assert client.selector_replay("job-1", "tolerance", tolerance=0.1).agreement == 1.0
    assert documents([client.plan(SPEC)]) == [planned()]
    assert documents(client.experiments()) == [experiment_facts()]
    assert json.loads(script.requests[9].content) == SPEC
    assert script.asked == [
        "POST /v1/jobs/job-1/cancel",
        "GET /v1/jobs/job-1/epochs",
        "GET /v1/jobs/job-1/branches",
        "GET /v1/jobs/job-1/branches?epoch=2",
        "GET /v1/jobs/job-1/lr-history?format=json",
        "GET /v1/jobs/job-1/lr-history?format=csv",
        "GET /v1/jobs/job-1/schedule?trial=1",
        "GET /v1/jobs/job-1/schedule?trial=2&label=sweep",
        "GET /v1/jobs/job-1/selector-replay?selector=tolerance&tolerance=0.1",
        "POST /v1/plan",
        "GET /v1/experiments",
    ]


def test_decisions_and_their_figure(connect: Connect) -> None:
    script = Script(answer(decided()), answer(decided(trial=2)), httpx.Response(200, content=b"\x89PNG"))
    client = connect(script)
    assert documents([client.decisions("job-1")]) == [decided()]
    assert client.decisions("job-1", label="short", trial=2).trial == 2
    assert client.decisions_figure("job-1", "png", label="short") == b"\x89PNG"
    assert script.asked == [
        "GET /v1/jobs/job-1/decisions?trial=1&format=json",
        "GET /v1/jobs/job-1/decisions?trial=2&label=short&format=json",
        "GET /v1/jobs/job-1/decisions?trial=1&label=short&format=png",
    ]


def test_a_study_whose_answer_was_lost_is_asked_for_under_the_same_name(connect: Connect, pauses: list[float]) -> None:
    script = Script(
        CUT, answer({"experiment": "mix-1", "items": []}, 202), answer({"experiment": "x", "items": []}, 202)
    )
    client = connect(script)
    client.run_experiment("mix", "cifar10", epochs=3, name="mine")
    client.run_experiment("mix", priority=-3, time_limit=60)
    first, again, other = [json.loads(request.content) for request in script.requests]
    group = first["experiment"]
    assert group.startswith("mix-")
    assert first == {"name": "mix", "scale": "cifar10", "spec": {"epochs": 3, "name": "mine"}, "experiment": group}
    assert again == first
    assert (other["scale"], other["spec"]) == ("fashion-mnist", {})
    assert (other["priority"], other["time_limit"]) == (-3, 60)
    assert other["experiment"] != group


def test_a_job_id_stays_one_part_of_the_path(connect: Connect) -> None:
    script = Script(answer(job()))
    connect(script, "http://host/forerun/").job("a/b?c#d")
    assert script.asked == ["GET /forerun/v1/jobs/a%2Fb%3Fc%23d"]


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://host", "http://", "", "http://[::1"])
def test_what_is_not_the_url_of_a_service_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="write it like http://"):
        Client(url)


def test_what_only_a_newer_service_knows_is_left_out(connect: Connect) -> None:
    audit = {"branches": 1, "samples": 64, "regret": 0, "rank_correlation": None}
    newer = epoch(1, audit=audit | {"newer": 1}, newer=1)
    [found] = connect(Script(answer({"items": [newer], "newer": 1}))).epochs("job-1")
    assert documents([found]) == [epoch(1, audit=audit)]
    with pytest.raises(ValidationError, match="frozen"):
        found.epoch = 2  # type: ignore[misc]


def test_a_handle_asks_about_its_job(connect: Connect) -> None:
    items = [answer({"items": items}) for items in ([epoch(1)], [lr_step(1)], [compared_run("stpt")])]
    end = stream(sent(state_event(1, "queued")), sent(state_event(2, "succeeded")))
    script = Script(
        answer(job(), 202), *items, httpx.Response(200, text="it trains"), answer(job()), end, answer(succeeded())
    )
    handle = connect(script).submit(SPEC)
    assert (handle.id, handle.answer.state) == ("job-1", "queued")
    assert documents(handle.epochs()) == [epoch(1)]
    assert handle.lr_history()[0].learning_rate == 0.085
    assert handle.comparison()[0].method == "stpt"
    assert handle.logs() == "it trains"
    assert handle.wait() == handle.answer == Job.model_validate(succeeded())
    paths = ["/epochs", "/lr-history?format=json", "/comparison?format=json", "/logs", "", "/events", ""]
    assert script.asked == ["POST /v1/jobs", *(f"GET /v1/jobs/job-1{path}" for path in paths)]


def test_a_handle_of_a_known_job_can_be_followed_refreshed_and_cancelled(connect: Connect) -> None:
    script = Script(answer(job()), answer(job()), stream(sent(DONE)), answer(job(state="running")))
    handle = connect(script).job("job-1")
    assert documents(handle.follow(after=3)) == [DONE]
    assert last_event_ids(script) == ["3"]
    assert handle.refresh() == handle.answer == Job.model_validate(job(state="running"))
    script.steps = [answer(job(state="cancelling"), 202)]
    assert handle.cancel().state == handle.answer.state == "cancelling"
    assert repr(handle) == "JobHandle('job-1', state='cancelling')"


def test_rows_become_a_table_of_pandas(connect: Connect) -> None:
    pandas = pytest.importorskip("pandas")
    script = Script(*(answer({"items": items}) for items in ([lr_step(1), lr_step(2)], [compared_run("stpt")])))
    client = connect(script)
    frame = client.lr_history("job-1").to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert frame[["epoch", "learning_rate"]].to_dict("list") == {"epoch": [1, 2], "learning_rate": [0.085, 0.085]}
    [row] = client.comparison("job-1").to_pandas().to_dict("records")
    assert (row["method"], row["samples"], row["samples_spread"]) == ("stpt", 1536.5, 0.0)
    assert "by_seed" not in row


@pytest.mark.parametrize("document", [[], {"items": 1}, {"items": [{"epoch": "first"}]}])
def test_an_answer_of_another_shape_is_refused(connect: Connect, document: object) -> None:
    with pytest.raises(ApiError) as raised:
        connect(Script(answer(document))).epochs("job-1")
    assert raised.value.code == "unexpected_answer"


# --- errors ------------------------------------------------------------------------------------------


def test_a_problem_document_becomes_an_api_error(connect: Connect) -> None:
    script = Script(problem(404, "not_found", "Not found", "there is no job job-1; GET /v1/jobs lists the jobs"))
    with pytest.raises(ApiError) as raised:
        connect(script).job("job-1")
    error = raised.value
    assert isinstance(error, ForerunError)
    assert (error.code, error.status, error.title, error.errors) == ("not_found", 404, "Not found", ())
    assert str(error) == error.detail == "there is no job job-1; GET /v1/jobs lists the jobs"


def test_field_errors_are_one_line_each(connect: Connect) -> None:
    errors = [
        {"field": "lr_set.factors[1]", "value": -0.5, "message": "Input should be greater than 0"},
        {"field": "model", "value": "lenet", "message": "no model of this name; did you mean lenet5?"},
        {"field": "epochs", "value": "{'model': 'lenet'}", "message": "Field required"},
    ]
    script = Script(problem(422, "invalid_input", "Invalid input", "three of them", errors=errors))
    with pytest.raises(ApiError) as raised:
        connect(script).submit(SPEC)
    assert str(raised.value) == (
        "Invalid input:\n"
        "  lr_set.factors[1] = -0.5: Input should be greater than 0\n"
        '  model = "lenet": no model of this name; did you mean lenet5?\n'
        "  epochs: Field required"
    )
    assert [(e.field, e.value) for e in raised.value.errors][:2] == [("lr_set.factors[1]", -0.5), ("model", "lenet")]


def test_field_errors_that_were_left_out_are_counted(connect: Connect) -> None:
    errors = [{"field": "epochs", "value": 0, "message": "Input should be greater than 0"}]
    script = Script(problem(422, "invalid_input", "Invalid input", "many", errors=errors, more_errors=880))
    with pytest.raises(ApiError) as raised:
        connect(script).submit(SPEC)
    assert str(raised.value) == "Invalid input:\n  epochs = 0: Input should be greater than 0\n  and 880 more"


def test_what_changes_something_is_sent_as_json(connect: Connect) -> None:
    script = Script(answer(job()), answer(job(state="cancelling")))
    client = connect(script)
    client.submit(SPEC)
    client.cancel("job-1")
    assert [request.headers["Content-Type"] for request in script.requests] == ["application/json"] * 2


@pytest.mark.parametrize(
    ("status", "content", "what"),
    [
        (502, {"html": "<h1>Bad Gateway</h1>"}, "502 Bad Gateway"),
        (404, {"json": ["nothing"]}, "404 Not Found"),
        (500, {"json": {"detail": "oops"}}, "500 Internal Server Error"),
        (307, {"headers": {"Location": "/login"}}, "307 Temporary Redirect"),
        (200, {"html": "<h1>Welcome</h1>"}, "with something other than JSON"),
    ],
)
def test_an_answer_that_is_not_forerun_s(connect: Connect, status: int, content: Document, what: str) -> None:
    with pytest.raises(ApiError) as raised:
        connect(Script(httpx.Response(status, **content))).job("job-1")
    assert raised.value.code == "unexpected_answer"
    assert str(raised.value).startswith(f"http://127.0.0.1:8000/v1/jobs/job-1 answered {what}, ")


def test_when_nobody_listens_the_error_says_how_to_start_the_service(connect: Connect, pauses: list[float]) -> None:
    with pytest.raises(ServiceUnreachable) as raised:
        connect(Script(REFUSED)).submit(SPEC)
    assert str(raised.value) == (
        "no answer from http://127.0.0.1:8000 ([Errno 111] Connection refused); start the service with "
        "`forerun serve`, or, if it runs elsewhere, give its URL with --url or FORERUN_URL"
    )
    assert pauses == []


@pytest.mark.parametrize(
    ("ended", "why"),
    [
        (
            job(state="failed", error={"code": "diverged", "message": "every branch diverged"}),
            "job-1 failed (diverged): every branch diverged",
        ),
        (job(state="cancelled"), "job-1 was cancelled"),
    ],
)
def test_a_job_that_did_not_succeed(ended: Document, why: str) -> None:
    with pytest.raises(JobFailed) as raised:
        raise_unless_succeeded(Job.model_validate(ended))
    assert str(raised.value) == why


# --- events ------------------------------------------------------------------------------------------

QUEUED, RUNNING = state_event(1, "queued"), state_event(2, "running", attempt=1)
EPOCH, DONE = epoch_event(3, 1, branch(1, 0.1, 0.5, "chosen")), state_event(4, "succeeded", attempt=1)


def last_event_ids(script: Script) -> list[str | None]:
    return [r.headers["Last-Event-ID"] for r in script.requests if r.url.path.endswith("/events")]


def test_events_until_the_terminal_one(connect: Connect) -> None:
    never = AssertionError("read on behind the last event")
    parts = [sent(QUEUED) + sent(RUNNING)[:20], sent(RUNNING)[20:], ": ping\r\n\r\n", sent(EPOCH), sent(DONE), never]
    script = Script(answer(job()), stream(*parts))
    assert documents(connect(script).events("job-1")) == [QUEUED, RUNNING, EPOCH, DONE]
    assert script.asked == ["GET /v1/jobs/job-1", "GET /v1/jobs/job-1/events"]
    assert script.requests[1].headers["Accept"] == "text/event-stream"
    assert last_event_ids(script) == ["0"]


def test_a_broken_stream_is_taken_up_behind_the_last_event(connect: Connect, pauses: list[float]) -> None:
    script = Script(
        answer(job()),
        stream(sent(QUEUED), sent(RUNNING), sent(EPOCH)[:30], httpx.ReadError("Connection reset by peer")),
        REFUSED,
        problem(503, "not_ready", "Not ready", "the database does not answer"),
        stream(sent(EPOCH)),  # ends without the job's end: the service is being restarted
        httpx.ReadTimeout("timed out"),
        stream(sent(DONE)),
    )
    assert documents(connect(script).events("job-1")) == [QUEUED, RUNNING, EPOCH, DONE]
    assert last_event_ids(script) == ["0", "2", "2", "2", "3", "3"]
    assert pauses == [0.5, 1.0, 2.0, 0.5, 1.0]  # an event begins the pauses anew


def test_a_service_that_does_not_come_back_is_given_up(connect: Connect, pauses: list[float]) -> None:
    script = Script(answer(job()), stream(sent(QUEUED), CUT), *[REFUSED] * len(PAUSES))
    events = connect(script).events("job-1")
    assert documents([next(events)]) == [QUEUED]
    with pytest.raises(ServiceUnreachable, match="Connection refused"):
        next(events)
    assert pauses == list(PAUSES)
    assert all(shorter <= longer for shorter, longer in pairwise(PAUSES))


def test_events_of_a_job_that_has_ended_and_was_seen(connect: Connect) -> None:
    script = Script(answer(succeeded()), httpx.Response(204))
    assert list(connect(script).events("job-1", after=4)) == []
    assert last_event_ids(script) == ["4"]


def test_events_of_no_service_and_of_no_job_are_told_at_once(connect: Connect, pauses: list[float]) -> None:
    with pytest.raises(ServiceUnreachable):
        next(connect(Script(REFUSED)).events("job-1"))
    with pytest.raises(ApiError) as raised:
        next(connect(Script(problem(404, "not_found", "Not found", "no job"))).events("job-1"))
    assert raised.value.code == "not_found"
    assert pauses == []


def test_an_event_of_a_kind_that_is_not_known_keeps_all_it_has(connect: Connect) -> None:
    newer = {"number": 2, "kind": "telemetry", "created_at": "", "layers": [1]}
    script = Script(answer(job()), stream(sent(QUEUED), sent(newer), sent(state_event(3, "succeeded"))))
    _, other, _ = connect(script).events("job-1")
    assert isinstance(other, OtherEvent)
    assert documents([other]) == [newer]


@pytest.mark.parametrize("data", ["no JSON", "[]", '{"number": 1, "kind": "state"}'])
def test_an_event_that_is_none_is_refused(connect: Connect, data: str) -> None:
    script = Script(answer(job()), stream(f"data: {data}\r\n\r\n"))
    with pytest.raises(ApiError, match="with something other than events"):
        list(connect(script).events("job-1"))


def test_a_job_that_is_gone_after_a_restart_is_not_waited_for(connect: Connect, pauses: list[float]) -> None:
    script = Script(answer(job()), stream(sent(QUEUED)), problem(404, "not_found", "Not found", "there is no job"))
    with pytest.raises(ApiError, match="there is no job"):
        list(connect(script).events("job-1"))
    assert pauses == [0.5]


def test_what_is_not_a_stream_of_events_is_refused(connect: Connect) -> None:
    script = Script(answer(job()), httpx.Response(200, html="<h1>Welcome</h1>"))
    with pytest.raises(ApiError, match="with something other than events"):
        list(connect(script).events("job-1"))


def test_wait_gives_the_job_as_it_ended(connect: Connect) -> None:
    script = Script(
        answer(job()), stream(sent(QUEUED), sent(state_event(2, "cancelled"))), answer(job(state="cancelled"))
    )
    assert connect(script).wait("job-1").state == "cancelled"


def test_layers_are_fetched_page_by_page(connect: Connect) -> None:
    pages = [{"items": [layer_epoch(1)], "next_cursor": "more"}, {"items": [layer_epoch(2)], "next_cursor": None}]
    script = Script(*map(answer, pages), httpx.Response(200, content=b"<?xml"))
    client = connect(script)
    found = client.layers("job-1", label="stpt", trial=1, layer="a.b", first_epoch=2, last_epoch=3, page_size=1)
    assert script.asked == []
    assert documents(found) == [layer_epoch(1), layer_epoch(2)]
    filters = "label=stpt&trial=1&layer=a.b&first_epoch=2&last_epoch=3"
    assert script.asked[0] == f"GET /v1/jobs/job-1/layers?{filters}&limit=1&format=json"
    assert script.asked[1].endswith("&cursor=more")
    assert client.layers_figure("job-1", "svg", layer="a.b", trial=None) == b"<?xml"
    assert script.asked[2] == "GET /v1/jobs/job-1/layers?layer=a.b&format=svg"


# --- methods side by side, and all jobs together -----------------------------------------------------


def test_trials_and_comparison(connect: Connect) -> None:
    items, runs = [trial_result()], [compared_run("stpt")]
    figure = httpx.Response(200, content=b"<?xml")
    script = Script(answer({"items": items}), answer({"items": items}), answer({"items": runs}), figure)
    client = connect(script)
    assert documents(client.trials("job-1")) == items
    assert documents(client.trials("job-1", label="tpe", state=["stopped", "failed"])) == items
    assert documents(client.comparison("job-1")) == runs
    assert client.comparison_file("job-1", "svg") == b"<?xml"
    assert script.asked == [
        "GET /v1/jobs/job-1/trials",
        "GET /v1/jobs/job-1/trials?label=tpe&state=stopped&state=failed",
        "GET /v1/jobs/job-1/comparison?format=json",
        "GET /v1/jobs/job-1/comparison?format=svg",
    ]


def test_a_study_and_a_ramp(connect: Connect) -> None:
    items, ramp = [study_row()], {"seed": 0, "by_learning_rate": None, "by_momentum": None}
    table = (answer({"items": items}), httpx.Response(200, content=b"variant"))
    script = Script(*table, *table, answer({"items": [ramp]}))
    client = connect(script)
    assert documents(client.study("job-1")) == items
    assert client.study_file("job-1", "csv") == b"variant"
    assert documents(client.study_of_experiment("a/b c")) == items
    assert client.study_of_experiment_file("a/b c", "csv") == b"variant"
    assert documents(client.ramp("job-1")) == [ramp]
    assert script.asked == [
        "GET /v1/jobs/job-1/study?format=json",
        "GET /v1/jobs/job-1/study?format=csv",
        "GET /v1/study?experiment=a%2Fb+c&format=json",
        "GET /v1/study?experiment=a%2Fb+c&format=csv",
        "GET /v1/jobs/job-1/ramp",
    ]


def test_history_of_all_jobs_fetches_pages_as_they_are_needed(connect: Connect) -> None:
    pages = [{"items": [history_step(1)], "next_cursor": "more"}, {"items": [history_step(2)], "next_cursor": None}]
    script = Script(*map(answer, pages))
    found = connect(script).history(optimizer="adam", page_size=1)
    assert script.asked == []
    assert next(found).epoch == 1
    assert script.asked == ["GET /v1/lr-history?optimizer=adam&limit=1&format=json"]
    assert documents(found) == [history_step(2)]
    assert script.asked[1].endswith("&cursor=more")


def test_recommendation_leaves_out_what_is_not_said(connect: Connect) -> None:
    script = Script(answer(recommended(learning_rate=0.1)))
    found = connect(script).recommendation("resnet50", "image-folder", path="birds")
    assert found.learning_rate == 0.1
    assert script.asked == ["GET /v1/recommendation?model=resnet50&dataset=image-folder&path=birds"]


# --- API keys -------------------------------------------------------------------------------------------


KEY = "frn_3f9c0a51d2e8_" + 43 * "x"


def test_a_key_goes_with_every_request(monkeypatch: pytest.MonkeyPatch) -> None:
    page = {"items": [], "next_cursor": None}

    def sent(**options: str) -> str | None:
        script = Script(answer(page))
        with Client(transport=script, **options) as client:  # type: ignore[arg-type]
            list(client.jobs())
            assert KEY not in f"{client!r}{vars(client)}"
        return script.requests[0].headers.get("Authorization")

    monkeypatch.delenv("FORERUN_API_KEY", raising=False)
    assert sent() is None
    assert sent(api_key=KEY) == f"Bearer {KEY}"
    monkeypatch.setenv("FORERUN_API_KEY", KEY)
    assert sent() == f"Bearer {KEY}"
    assert sent(api_key="") is None
    for wrong in ("a b", "é", f"{KEY}\r\nX-Injected: 1"):
        with pytest.raises(ValueError, match="cannot be an API key") as caught:
            Client(api_key=wrong)
        assert wrong not in str(caught.value)


def test_who_is_told_to_send_less_waits_a_little(connect: Connect, pauses: list[float]) -> None:
    def too_early(seconds: int) -> httpx.Response:
        response = problem(429, "too_many_requests", "Too many requests", f"try again in {seconds} s")
        response.headers["Retry-After"] = str(seconds)
        return response

    script = Script(too_early(2), too_early(1), answer({"items": []}))
    connect(script).keys()
    assert pauses == [2.0, 1.0]
    script = Script(too_early(1), too_early(1), too_early(1))
    with pytest.raises(ApiError, match="try again in 1 s"):
        connect(script).keys()
    with pytest.raises(ApiError, match="try again in 3600 s"):
        connect(Script(too_early(3600))).keys()
    assert pauses == [2.0, 1.0, 1.0, 1.0]
