import json
import os
import sys
from functools import partial
from importlib.metadata import version
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner, Result

from forerun import cli
from forerun.client import Client
from tests.unit.forerun.service_double import (
    Script,
    Step,
    answer,
    branch,
    branch_of_epoch,
    compared_run,
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
EPOCH = epoch_event(2, 1, branch(1, 0.1, 0.5, "chosen"))
EVENTS = [state_event(1, "queued"), EPOCH]


class Forerun:
    """The command line, over a scripted service."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch
        self.script = Script()

    def __call__(self, *words: str, answers: list[Step] | None = None, env: dict[str, str] | None = None) -> Result:
        self.script = Script(*(answers or []))
        self._patch.setattr(cli, "Client", partial(Client, transport=self.script))
        return CliRunner().invoke(cli.app, words, env=env)


@pytest.fixture
def forerun(monkeypatch: pytest.MonkeyPatch) -> Forerun:
    monkeypatch.delenv("FORERUN_URL", raising=False)
    return Forerun(monkeypatch)


@pytest.fixture
def spec_file(tmp_path: Path) -> Path:
    path = tmp_path / "spec.yaml"
    path.write_text("model: lenet5\ndataset: digits\nepochs: 3\nlr_set: middle\n")
    return path


def test_submit_prints_the_id_alone_and_the_hint_elsewhere(forerun: Forerun, spec_file: Path) -> None:
    result = forerun("submit", str(spec_file), answers=[answer(job(), 202)])
    assert (result.exit_code, result.stdout) == (0, "job-1\n")
    assert result.stderr == "Watch it with: forerun watch job-1\n"
    assert json.loads(forerun.script.requests[0].content) == SPEC


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
    result = forerun("watch", "job-1", answers=answers)
    assert result.exit_code == 1
    assert result.stdout.splitlines()[-1] == "failed"
    assert result.stderr == "forerun: job-1 failed (diverged): every branch diverged in epoch 2\n"


def test_watch_as_json_has_an_event_a_line(forerun: Forerun) -> None:
    events = [*EVENTS, state_event(3, "cancelled")]
    answers = [answer(job()), answer(job()), stream(*map(sent, events)), answer(job(state="cancelled"))]
    result = forerun("watch", "job-1", "--json", answers=answers)
    assert [json.loads(line) for line in result.stdout.splitlines()] == events
    assert (result.exit_code, result.stderr) == (1, "forerun: job-1 was cancelled\n")


def test_ctrl_c_in_watch_leaves_the_job_and_says_how_to_go_on(forerun: Forerun) -> None:
    events = stream(sent(EVENTS[0]), KeyboardInterrupt())
    url = "http://somewhere:8123"
    result = forerun("--url", url, "watch", "job-1", answers=[answer(job()), answer(job()), events])
    assert result.exit_code == 130
    assert f"job-1 goes on. Watch it again with: forerun --url {url} watch job-1\n" in result.stderr
    assert f"End it with: forerun --url {url} cancel job-1\n" in result.stderr
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
    lists = [answer({"job_id": "job-1", "items": items}) for items in ([epoch(1, phase="stpt")], branches)]
    result = forerun("show", "job-1", answers=[answer(succeeded()), *lists])
    assert result.exit_code == 0
    assert "    epochs         3 of 3\n" in result.stdout
    assert result.stdout.endswith("  1/3  stpt              0.1   0.7500    0.7000       2.5\n    *0.1 0.5000\n")
    assert json.loads(forerun("show", "job-1", "--json", answers=[answer(job())]).stdout) == job()


def test_cancel(forerun: Forerun) -> None:
    cancelling = job(state="cancelling")
    result = forerun("cancel", "job-1", answers=[answer(cancelling, 202)])
    assert (result.exit_code, result.stdout) == (0, "job-1 cancelling\n")
    assert forerun.script.asked == ["POST /v1/jobs/job-1/cancel"]
    assert json.loads(forerun("cancel", "job-1", "--json", answers=[answer(cancelling, 202)]).stdout) == cancelling


def test_logs(forerun: Forerun) -> None:
    text = "\x1b[36mit trains\x1b[0m\nbell \x07\n"
    log = [httpx.Response(200, text=text) for _ in range(2)]
    result = forerun("logs", "job-1", answers=log[:1])
    assert (result.exit_code, result.stdout) == (0, "it trains\nbell \ufffd\n")
    assert forerun.script.asked == ["GET /v1/jobs/job-1/logs"]
    forerun("logs", "job-1", "--attempt", "2", answers=log[1:])
    assert forerun.script.asked == ["GET /v1/jobs/job-1/logs?attempt=2"]


def test_lr_history_in_its_three_formats(forerun: Forerun) -> None:
    step = lr_step(1)
    steps = answer({"job_id": "job-1", "items": [step]})
    assert forerun("lr-history", "job-1", answers=[steps]).stdout == (
        "epoch  attempt  phase  learning rate  of  val acc  test acc  samples so far  seconds\n"
        "1      2        stpt   0.085          2   0.7500   0.7000    1536            2.5\n"
    )
    several = answer({"job_id": "job-1", "items": [step, step | {"method": "study", "trial": 12}]})
    assert forerun("lr-history", "job-1", answers=[several]).stdout == (
        "method  trial  epoch  attempt  phase  learning rate  of  val acc  test acc  samples so far  seconds\n"
        "stpt    1      1      2        stpt   0.085          2   0.7500   0.7000    1536            2.5\n"
        "study   12     1      2        stpt   0.085          2   0.7500   0.7000    1536            2.5\n"
    )
    steps = answer({"job_id": "job-1", "items": [step]})
    assert json.loads(forerun("lr-history", "job-1", "--format", "json", answers=[steps]).stdout) == [step]
    csv = httpx.Response(200, headers={"Content-Type": "text/csv"}, content=b"epoch,phase\r\n1,stpt\r\n")
    result = forerun("lr-history", "job-1", "--format", "csv", answers=[csv])
    assert result.stdout_bytes == b"epoch,phase\r\n1,stpt\r\n"


def test_schedule_is_json_for_a_file(forerun: Forerun) -> None:
    known = schedule()
    result = forerun("schedule", "job-1", answers=[answer(known)])
    assert json.loads(result.stdout) == known
    forerun("schedule", "job-1", "--method", "sweep", "--trial", "2", answers=[answer(known)])
    assert forerun.script.asked == ["GET /v1/jobs/job-1/schedule?trial=2&method=sweep"]


def test_selector_replay(forerun: Forerun) -> None:
    words = "selector-replay job-1 --selector tolerance --tolerance 0.1".split()
    result = forerun(*words, answers=[answer(replayed())])
    assert result.stdout == "epoch  recorded  tolerance  regret\nno epoch yet\n"
    assert forerun.script.asked == ["GET /v1/jobs/job-1/selector-replay?selector=tolerance&tolerance=0.1"]
    assert json.loads(forerun(*words, "--json", answers=[answer(replayed())]).stdout) == replayed()


def test_trials(forerun: Forerun) -> None:
    pending = {"val_accuracy": None, "test_accuracy": None, "learning_rate": None, "config": {}, "state": "pending"}
    items = answer({"job_id": "job-1", "items": [trial_result(), trial_result(method="cosine", **pending)]})
    result = forerun("trials", "job-1", answers=[items])
    assert result.stdout.splitlines() == [
        "method  trial  seed  state    epochs  samples  last rate  val acc  test acc  config",
        "tpe     2      0     stopped  1/3     1536     0.2123     0.7500   0.7000    "
        "learning_rate=0.2123 optimizer=adam",
        "cosine  2      0     pending  1/3     1536",
    ]
    items = answer({"job_id": "job-1", "items": [trial_result()]})
    words = "trials job-1 --method tpe --state stopped --state failed --json".split()
    assert json.loads(forerun(*words, answers=[items]).stdout) == [trial_result()]
    assert forerun.script.asked == ["GET /v1/jobs/job-1/trials?method=tpe&state=stopped&state=failed"]


def test_comparison_as_a_table_and_as_json(forerun: Forerun) -> None:
    runs = [compared_run("stpt", samples_to_stpt={"mean": 1024.0, "spread": 0.0}), compared_run("tpe")]
    result = forerun("comparison", "job-1", answers=[answer({"job_id": "job-1", "items": runs})])
    header, stpt, tpe = result.stdout.splitlines()
    assert header.split("  ")[0] == "method"
    assert stpt.split() == ("stpt 2 2 0.7500 ± 0.0100 0.7000 ± 0.0200 1536 ± 0 504 2.5 ± 0.2 1024 ± 0 1.00".split())
    assert tpe.split()[-4:] == ["2.5", "±", "0.2", "1.00"]
    answers: list[Step] = [answer({"job_id": "job-1", "items": runs})]
    assert json.loads(forerun("comparison", "job-1", "--format", "json", answers=answers).stdout) == runs


def test_comparison_as_a_file(forerun: Forerun, tmp_path: Path) -> None:
    figure = b"\x89PNG\r\n\x1a\n\x00"
    png = [httpx.Response(200, content=figure) for _ in range(3)]
    path = tmp_path / "figure.png"
    result = forerun("comparison", "job-1", "--format", "png", "--output", str(path), answers=[png[0]])
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", f"Written to {path}\n")
    assert path.read_bytes() == figure
    assert forerun.script.asked == ["GET /v1/jobs/job-1/comparison?format=png"]
    assert forerun("comparison", "job-1", "--format", "png", answers=[png[1]]).stdout_bytes == figure
    nowhere = str(tmp_path / "none" / "figure.png")
    result = forerun("comparison", "job-1", "--format", "png", "--output", nowhere, answers=[png[2]])
    assert result.exit_code == 2
    assert "cannot be written" in result.stderr
    csv = httpx.Response(200, content=b"method\r\nstpt\r\n")
    assert forerun("comparison", "job-1", "--format", "csv", answers=[csv]).stdout_bytes == b"method\r\nstpt\r\n"


def test_a_study(forerun: Forerun, tmp_path: Path) -> None:
    row = study_row()
    rows = {"job_id": "job-1", "items": [row]}
    assert forerun("study", "job-1", answers=[answer(rows)]).stdout.splitlines() == [
        "variant  batch  seeds  diverged  final test acc   best test acc",
        "linear   64     2      1         0.7000 ± 0.0100  0.7500",
    ]
    assert json.loads(forerun("study", "job-1", "--format", "json", answers=[answer(rows)]).stdout) == [row]
    path = tmp_path / "study.svg"
    words = ["study", "job-1", "--format", "svg", "--output", str(path)]
    assert forerun(*words, answers=[httpx.Response(200, content=b"<?xml")]).stderr == f"Written to {path}\n"
    assert path.read_bytes() == b"<?xml"
    words = ["study", "--experiment", "tvlars-01", "--format"]
    assert json.loads(forerun(*words, "json", answers=[answer(rows)]).stdout) == [row]
    assert forerun.script.asked == ["GET /v1/study?experiment=tvlars-01&format=json"]
    assert forerun(*words, "csv", answers=[httpx.Response(200, content=b"variant")]).stdout == "variant"
    assert forerun.script.asked == ["GET /v1/study?experiment=tvlars-01&format=csv"]


@pytest.mark.parametrize("words", [[], ["job-1", "--experiment", "tvlars-01"]])
def test_a_study_is_of_a_job_or_of_an_experiment(forerun: Forerun, words: list[str]) -> None:
    result = forerun("study", *words)
    assert result.exit_code == 2
    assert "name a job or an experiment, one of the two" in result.stderr


def test_a_ramp(forerun: Forerun) -> None:
    step = {"global_batch_size": 4096, "learning_rate": 0.01414, "momentum": 0.9, "effective_learning_rate": 0.1414}
    ramps = [{"seed": 0, "by_learning_rate": step, "by_momentum": None}]
    assert forerun("ramp", "job-1", answers=[answer({"items": ramps})]).stdout.splitlines() == [
        "seed  scaled by      largest batch  learning rate  momentum  effective rate",
        "0     learning rate  4096           0.01414        0.9       0.1414",
    ]
    assert json.loads(forerun("ramp", "job-1", "--json", answers=[answer({"items": ramps})]).stdout) == ramps


def layer_pages() -> list[Step]:
    without = layer_epoch(2, layer="3.weight", trust_ratio=None)
    pages: list[dict[str, object]] = [
        {"job_id": "job-1", "items": [layer_epoch(1)], "next_cursor": "more"},
        {"job_id": "job-1", "items": [without], "next_cursor": None},
    ]
    return list(map(answer, pages))


def test_layers_as_table_csv_and_json(forerun: Forerun) -> None:
    assert forerun("layers", "job-1", answers=layer_pages()).stdout.splitlines() == [
        "method  trial  epoch  layer     step  lwn   lgn  lnr  trust ratio",
        "stpt    1      1      0.weight  10    1.25            0.01235",
        "stpt    1      2      3.weight  30    1.25",
    ]
    asked = "/v1/jobs/job-1/layers?limit=100&format=json"
    assert forerun.script.asked == [f"GET {asked}", f"GET {asked}&cursor=more"]
    result = forerun("layers", "job-1", "--format", "csv", answers=layer_pages())
    assert result.stdout_bytes.decode().split("\r\n") == [
        "method,trial,epoch,attempt,layer,step,lwn,lgn,lnr,trust_ratio",
        "stpt,1,1,1,0.weight,0,1.5,0.5,3.0,0.003",
        "stpt,1,1,1,0.weight,10,1.25,,,0.0123456",
        "stpt,1,2,1,3.weight,20,1.5,0.5,3.0,",
        "stpt,1,2,1,3.weight,30,1.25,,,",
        "",
    ]
    result = forerun("layers", "job-1", "--format", "json", answers=layer_pages())
    assert json.loads(result.stdout) == [layer_epoch(1), layer_epoch(2, layer="3.weight", trust_ratio=None)]


def test_layers_as_a_figure_of_some_of_them(forerun: Forerun, tmp_path: Path) -> None:
    path, figure = tmp_path / "layers.png", httpx.Response(200, content=b"\x89PNG")
    filters = "--method sweep --trial 2 --layer 0.weight --first-epoch 3 --last-epoch 9"
    words = f"layers job-1 {filters} --format png --output {path}"
    assert forerun(*words.split(), answers=[figure]).stderr == f"Written to {path}\n"
    assert path.read_bytes() == b"\x89PNG"
    query = "method=sweep&trial=2&layer=0.weight&first_epoch=3&last_epoch=9&format=png"
    assert forerun.script.asked == [f"GET /v1/jobs/job-1/layers?{query}"]


def test_history_of_all_jobs(forerun: Forerun) -> None:
    pages = [
        answer({"items": [history_step(1), history_step(2)], "next_cursor": "more"}),
        answer({"items": [history_step(3), history_step(4)], "next_cursor": "still"}),
    ]
    words = "history --model lenet5 --dataset digits --batch 64 --state succeeded --limit 3".split()
    result = forerun(*words, answers=[*pages])
    header, first, *_, last = result.stdout.splitlines()
    assert header.split()[:6] == ["job", "model", "dataset", "optimizer", "batch", "method"]
    assert first.split() == "job-1 lenet5 digits sgd 64 stpt 1 0 1 stpt 0.1 0.7500 0.7000 1536".split()
    assert last.split()[8] == "3"
    query = "model=lenet5&dataset=digits&batch=64&state=succeeded&limit=3&format=json"
    assert forerun.script.asked == [f"GET /v1/lr-history?{query}", f"GET /v1/lr-history?{query}&cursor=more"]


def test_history_of_all_jobs_as_csv_and_json(forerun: Forerun) -> None:
    pages = [answer({"items": [history_step(1, newer="than this client")], "next_cursor": None}) for _ in range(2)]
    lines = forerun("history", "--format", "csv", answers=[pages[0]]).stdout.splitlines()
    assert lines[0].startswith("job_id,model,dataset,optimizer,global_batch_size,method,trial,seed,epoch,phase,")
    assert lines[1:] == ["job-1,lenet5,digits,sgd,64,stpt,1,0,1,stpt,0.1,0.1,0.09,0.75,0.7,1536"]
    [step] = json.loads(forerun("history", "--format", "json", answers=[pages[1]]).stdout)
    assert step["job_id"] == "job-1"


def test_recommendation(forerun: Forerun) -> None:
    words = "recommendation lenet5 digits --batch 128 --optimizer sgd".split()
    result = forerun(*words, answers=[answer(recommended())])
    assert result.stdout.splitlines() == [
        "learning rate 0.2 (0.1 to 0.4) for sgd, batch 128",
        "Scaled.",
        "job    seed  batch  envelope  learning rate  scaled  val acc  test acc",
        "job-1  0     64     linear    0.1            0.2     0.7500   0.7000",
    ]
    asked = "GET /v1/recommendation?model=lenet5&dataset=digits&batch=128&optimizer=sgd"
    assert forerun.script.asked == [asked]
    assert json.loads(forerun(*words, "--json", answers=[answer(recommended())]).stdout) == recommended()
    refusal = problem(404, "not_found", "Not found", "no succeeded job yet")
    result = forerun("recommendation", "lenet5", "digits", answers=[refusal])
    assert (result.exit_code, result.stderr) == (1, "forerun: no succeeded job yet\n")


def test_plan(forerun: Forerun, spec_file: Path) -> None:
    plan = planned()
    result = forerun("plan", str(spec_file), answers=[answer(plan)])
    assert result.stdout.splitlines()[0] == "an epoch: 20 iterations, 2 of them Pre-train, 18 Main-train"
    assert json.loads(forerun.script.requests[0].content) == SPEC
    assert json.loads(forerun("plan", str(spec_file), "--json", answers=[answer(plan)]).stdout) == plan


def test_experiments_are_listed_without_a_name(forerun: Forerun) -> None:
    studies = {"items": [experiment_facts()], "scales": ["paper"]}
    result = forerun("experiment", answers=[answer(studies)])
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines()[1] == "mix   STPT   10, 11   1     All of it."


def test_experiment_submits_a_study_with_the_keys_of_a_file(forerun: Forerun, tmp_path: Path) -> None:
    (tmp_path / "more.yaml").write_text("name: mine\nepochs: 3\n")
    submitted = answer({"experiment": "mix-1", "items": [job(name="mix")]}, 202)
    words = ["experiment", "mix", "--scale", "cifar10", "--spec", str(tmp_path / "more.yaml")]
    result = forerun(*words, answers=[submitted])
    assert result.exit_code == 0
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["job", "job-1"]
    assert result.stderr == "List them with: forerun jobs --experiment mix-1\n"
    sent_document = json.loads(forerun.script.requests[0].content)
    assert (sent_document["name"], sent_document["scale"]) == ("mix", "cifar10")
    assert sent_document["spec"] == {"name": "mine", "epochs": 3}


def test_the_url_comes_from_the_option_or_the_environment(forerun: Forerun) -> None:
    page = {"items": [], "next_cursor": None}
    forerun("jobs", answers=[answer(page)], env={"FORERUN_URL": "http://one:1"})
    assert forerun.script.requests[0].url.netloc == b"one:1"
    forerun("--url", "http://two:2", "jobs", answers=[answer(page)], env={"FORERUN_URL": "http://one:1"})
    assert forerun.script.requests[0].url.netloc == b"two:2"


def test_a_refusal_exits_1_with_a_line_a_field(forerun: Forerun, spec_file: Path) -> None:
    errors = [{"field": "epochs", "value": 0, "message": "too\x1b[2J few"}]
    refusal = problem(422, "invalid_input", "Invalid input", "epochs: too few", errors=errors)
    result = forerun("submit", str(spec_file), answers=[refusal])
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "forerun: Invalid input:\n  epochs = 0: too\ufffd[2J few\n"


def test_no_service_exits_1_and_says_how_to_start_it(forerun: Forerun) -> None:
    result = forerun("jobs", answers=[httpx.ConnectError("[Errno 111] Connection refused")])
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("forerun: no answer from http://127.0.0.1:8000 ([Errno 111] Connection refused);")
    assert "`forerun serve`" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "words",
    [
        *("submit", "submit /does/not/exist.yaml", "jobs --limit 0", "lr-history job-1 --format xml"),
        *("--url nowhere jobs", "comparison job-1 --format pdf", "history --limit 0", "recommendation lenet5"),
    ],
)
def test_wrong_usage_exits_2(forerun: Forerun, words: str) -> None:
    result = forerun(*words.split())
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Error: " in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("spec.yaml", b"model: [lenet5\nepochs: 3\n", "line 2, column 7"),
        ("spec.json", b'{"model": "lenet5",}', "line 1 column 20"),
        ("spec.yaml", b"- lenet5\n", "must hold fields"),
        ("spec.yaml", b"", "must hold fields"),
        ("spec.yaml", b"\xff\xfe", "can't decode byte 0xff"),
        ("spec.yaml", b"model: !!python/object:os.system x\n", "could not determine a constructor"),
        ("spec.yaml", b"epochs: !!set {a, b}\n", "not JSON serializable"),
        ("spec.yaml", b"a: &a [*a]\n", "the alias *a is not taken; write it out"),
        ("spec.yaml", b"a: &a [1]\nb: [*a, *a]\n", "line 2, column 5"),
        ("spec.yaml", b"epochs: 1\nmodel: lenet5\nepochs: 2\n", "epochs stands there twice; keep one of them"),
        ("spec.yaml", b"warmup: {epochs: 1, epochs: 2}\n", "epochs stands there twice; keep one of them"),
        ("spec.yaml", b"[" * 1000, "nested too deeply"),
        ("spec.json", b'{"a":' * 5000 + b"1" + b"}" * 5000, "nested too deeply"),
        ("spec.json", b'{"warmup": {"epochs": 1, "epochs": 2}}', "epochs: stands there twice; keep one of them"),
    ],
)
def test_a_file_that_is_no_spec_exits_2_and_says_why(
    forerun: Forerun, tmp_path: Path, name: str, content: bytes, why: str
) -> None:
    (tmp_path / name).write_bytes(content)
    result = forerun("submit", str(tmp_path / name))
    assert result.exit_code == 2
    assert why in result.stderr
    assert str(tmp_path / name) in result.stderr


def test_yaml_is_read_as_people_mean_it(tmp_path: Path) -> None:
    path = tmp_path / "spec.yml"
    path.write_text("a: [5e-4, .5, 1., -3, true, null, ~, on, 2024-01-01, 1_000, 1:30]\nb:\nc: '5'\n")
    plain = ["on", "2024-01-01", "1_000", "1:30"]
    assert cli.read_spec(path) == {"a": [0.0005, 0.5, 1.0, -3, True, None, None, *plain], "b": None, "c": "5"}


def test_json_may_be_indented_with_tabs(tmp_path: Path) -> None:
    path = tmp_path / "spec.json"
    path.write_text('{\n\t"epochs": 3\n}')
    assert cli.read_spec(path) == {"epochs": 3}


def test_version(forerun: Forerun) -> None:
    result = forerun("--version")
    assert (result.exit_code, result.stdout) == (0, f"forerun {version('forerun')}\n")


def test_serve_becomes_the_service(forerun: Forerun, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, list[str]]] = []
    monkeypatch.setattr(os, "execv", lambda path, words: calls.append((path, words)))
    assert forerun("serve").exit_code == 0
    assert calls == [(sys.executable, [sys.executable, "-P", "-m", "api", "forerun"])]


@pytest.mark.parametrize(
    "command",
    [
        *([], ["submit"], ["watch"], ["jobs"], ["demo"], ["schedule"], ["selector-replay"], ["plan"], ["experiment"]),
        *(["trials"], ["comparison"], ["study"], ["ramp"], ["history"], ["recommendation"], ["layers"]),
    ],
)
def test_help(command: list[str]) -> None:
    result = CliRunner().invoke(cli.app, [*command, "--help"])
    assert result.exit_code == 0
    assert result.stdout.startswith("Usage: ")


def test_an_error_of_our_own_is_not_hidden(forerun: Forerun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli.display, "job_table", lambda jobs: 1 / 0)
    result = forerun("jobs", answers=[answer({"items": [], "next_cursor": None})])
    assert isinstance(result.exception, ZeroDivisionError)
