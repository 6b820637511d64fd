import json
from pathlib import Path

import httpx

from tests.unit.forerun.cli.command_line import SPEC, Forerun
from tests.unit.forerun.service_double import (
    answer,
    branch,
    branch_of_epoch,
    epoch,
    epoch_event,
    job,
    sent,
    state_event,
    stream,
    succeeded,
)

EPOCH = epoch_event(2, 1, branch(1, 0.1, 0.5, "chosen"))
EVENTS = [state_event(1, "queued"), EPOCH]


def test_submit_prints_the_id_alone_and_the_hint_elsewhere(forerun: Forerun, spec_file: Path) -> None:
    result = forerun("submit", str(spec_file), answers=[answer(job(), 202)])
    assert (result.exit_code, result.stdout) == (0, "job-1\n")
    assert result.stderr == "Watch it with: forerun job watch job-1\n"
    assert json.loads(forerun.script.requests[0].content) == SPEC


def test_submit_with_terms(forerun: Forerun, spec_file: Path) -> None:
    forerun("submit", str(spec_file), "--priority", "-5", "--time-limit", "60", answers=[answer(job(), 202)])
    assert forerun.script.asked == ["POST /v1/jobs?priority=-5&time_limit=60"]


def test_pause_resume_and_change(forerun: Forerun) -> None:
    for command, asked in (("pause", "POST /v1/jobs/job-1/pause"), ("resume", "POST /v1/jobs/job-1/resume")):
        result = forerun("job", command, "job-1", answers=[answer(job(state="paused"), 202)])
        assert (result.exit_code, result.stdout) == (0, "job-1 paused\n")
        assert forerun.script.asked == [asked]
    forerun("job", "change", "job-1", "--priority", "3", "--no-time-limit", answers=[answer(job())])
    assert forerun.script.asked == ["PATCH /v1/jobs/job-1"]
    assert json.loads(forerun.script.requests[0].content) == {"priority": 3, "time_limit": None}
    result = forerun("job", "change", "job-1", answers=[])
    assert result.exit_code == 2
    assert "--priority, --time-limit or --no-time-limit" in result.stderr


def test_retry_prints_the_new_job(forerun: Forerun) -> None:
    result = forerun("job", "retry", "job-1", answers=[answer(job(id="job-2", retry_of="job-1"), 202)])
    assert (result.exit_code, result.stdout) == (0, "job-2\n")
    assert result.stderr == "Watch it with: forerun job watch job-2\n"
    assert forerun.script.asked == ["POST /v1/jobs/job-1/retry"]
    assert forerun.script.requests[0].headers["Idempotency-Key"]


def test_delete_asks_first(forerun: Forerun) -> None:
    result = forerun("job", "delete", "job-1", answers=[])
    assert result.exit_code == 1
    result = forerun("job", "delete", "job-1", "--yes", answers=[httpx.Response(204)])
    assert (result.exit_code, result.stderr) == (0, "job-1 is deleted\n")
    assert forerun.script.asked == ["DELETE /v1/jobs/job-1"]


def test_submit_as_json(forerun: Forerun, spec_file: Path) -> None:
    result = forerun("submit", str(spec_file), "--json", answers=[answer(job(), 202)])
    assert json.loads(result.stdout) == job()


def test_submit_and_watch_until_success(forerun: Forerun, spec_file: Path) -> None:
    parts = [sent(event) for event in (*EVENTS, state_event(3, "succeeded"))]
    result = forerun(
        "submit",
        str(spec_file),
        "--watch",
        answers=[answer(job(), 202), answer(job()), stream(*parts), answer(succeeded())],
    )
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0] == "job-1: lenet5 on digits, 2 workers, batch 64, seed 0"
    assert lines[3:] == [
        "queued",
        "  1/3  stpt              0.1   0.7500    0.7000       2.5",
        "    *0.1 0.5000",
        "succeeded",
    ]


def test_watch_of_a_job_that_fails_exits_1_and_says_why(forerun: Forerun) -> None:
    error = {"code": "diverged", "message": "every branch diverged in epoch 2"}
    end = state_event(3, "failed", **error)
    failed = job(state="failed", error=error)
    answers = [answer(job()), answer(job()), stream(*map(sent, [*EVENTS, end])), answer(failed)]
    result = forerun("job", "watch", "job-1", answers=answers)
    assert result.exit_code == 1
    assert result.stdout.splitlines()[-1] == "failed"
    assert result.stderr == "forerun: job-1 failed (diverged): every branch diverged in epoch 2\n"


def test_watch_as_json_has_an_event_a_line(forerun: Forerun) -> None:
    events = [*EVENTS, state_event(3, "cancelled")]
    answers = [answer(job()), answer(job()), stream(*map(sent, events)), answer(job(state="cancelled"))]
    result = forerun("job", "watch", "job-1", "--json", answers=answers)
    assert [json.loads(line) for line in result.stdout.splitlines()] == events
    assert (result.exit_code, result.stderr) == (1, "forerun: job-1 was cancelled\n")


def test_ctrl_c_in_watch_leaves_the_job_and_says_how_to_go_on(forerun: Forerun) -> None:
    events = stream(sent(EVENTS[0]), KeyboardInterrupt())
    url = "http://somewhere:8123"
    result = forerun("--url", url, "job", "watch", "job-1", answers=[answer(job()), answer(job()), events])
    assert result.exit_code == 130
    assert f"job-1 goes on. Watch it again with: forerun --url {url} job watch job-1\n" in result.stderr
    assert f"End it with: forerun --url {url} job cancel job-1\n" in result.stderr
    assert [request.method for request in forerun.script.requests] == ["GET"] * 3


def test_jobs_as_a_table_with_filters_and_a_limit(forerun: Forerun) -> None:
    page = answer({"items": [job(id="job-3"), job(id="job-2"), job(id="job-1")], "next_cursor": "more"})
    words = (
        "jobs --state running --state queued --model lenet5 --dataset digits --name n --experiment e --limit 2".split()
    )
    result = forerun(*words, answers=[page])
    assert (result.exit_code, result.stderr) == (0, "")
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["job", "job-3", "job-2"]
    query = "state=running&state=queued&model=lenet5&dataset=digits&limit=2&name=n&experiment=e"
    assert forerun.script.asked == [f"GET /v1/jobs?{query}"]


def test_jobs_as_json(forerun: Forerun) -> None:
    result = forerun("jobs", "--json", answers=[answer({"items": [job()], "next_cursor": None})])
    assert json.loads(result.stdout) == [job()]


def test_show(forerun: Forerun) -> None:
    branches = [branch_of_epoch(1, state="chosen")]
    lists = [answer({"job_id": "job-1", "items": items}) for items in ([], [epoch(1, phase="stpt")], branches)]
    result = forerun("show", "job-1", answers=[answer(succeeded()), *lists])
    assert result.exit_code == 0
    assert "    epochs         3 of 3\n" in result.stdout
    assert result.stdout.endswith("  1/3  stpt              0.1   0.7500    0.7000       2.5\n    *0.1 0.5000\n")
    assert json.loads(forerun("show", "job-1", "--json", answers=[answer(job())]).stdout) == job()


def test_cancel(forerun: Forerun) -> None:
    cancelling = job(state="cancelling")
    result = forerun("job", "cancel", "job-1", answers=[answer(cancelling, 202)])
    assert (result.exit_code, result.stdout) == (0, "job-1 cancelling\n")
    assert forerun.script.asked == ["POST /v1/jobs/job-1/cancel"]
    assert (
        json.loads(forerun("job", "cancel", "job-1", "--json", answers=[answer(cancelling, 202)]).stdout) == cancelling
    )


def test_logs(forerun: Forerun) -> None:
    text = "\x1b[36mit trains\x1b[0m\nbell \x07\n"
    log = [httpx.Response(200, text=text) for _ in range(2)]
    result = forerun("job", "logs", "job-1", answers=log[:1])
    assert (result.exit_code, result.stdout) == (0, "it trains\nbell \ufffd\n")
    assert forerun.script.asked == ["GET /v1/jobs/job-1/logs"]
    forerun("job", "logs", "job-1", "--attempt", "2", answers=log[1:])
    assert forerun.script.asked == ["GET /v1/jobs/job-1/logs?attempt=2"]


def test_groups_have_the_frequent_commands_too(forerun: Forerun, spec_file: Path) -> None:
    assert forerun("job", "submit", str(spec_file), answers=[answer(job(), 202)]).stdout == "job-1\n"
    page = {"items": [job()], "next_cursor": None}
    assert json.loads(forerun("job", "list", "--json", answers=[answer(page)]).stdout) == [job()]
    assert json.loads(forerun("job", "show", "job-1", "--json", answers=[answer(job())]).stdout) == job()
