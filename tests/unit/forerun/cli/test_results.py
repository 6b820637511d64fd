import json
from pathlib import Path

import httpx
import pytest

from tests.unit.forerun.cli.command_line import Forerun
from tests.unit.forerun.service_double import (
    Step,
    answer,
    candidate,
    compared_run,
    decided,
    decision,
    history_step,
    layer_epoch,
    lr_step,
    problem,
    recommended,
    replayed,
    rule,
    schedule,
    study_row,
    trial_result,
)


def test_lr_history_in_its_three_formats(forerun: Forerun) -> None:
    step = lr_step(1)
    steps = answer({"job_id": "job-1", "items": [step]})
    assert forerun("results", "lr-history", "job-1", answers=[steps]).stdout == (
        "epoch  attempt  phase  learning rate  of  val acc  test acc  samples so far  seconds\n"
        "1      2        stpt   0.085          2   0.7500   0.7000    1536            2.5\n"
    )
    several = answer({"job_id": "job-1", "items": [step, step | {"label": "study", "trial": 12}]})
    assert forerun("results", "lr-history", "job-1", answers=[several]).stdout == (
        "run    trial  epoch  attempt  phase  learning rate  of  val acc  test acc  samples so far  seconds\n"
        "stpt   1      1      2        stpt   0.085          2   0.7500   0.7000    1536            2.5\n"
        "study  12     1      2        stpt   0.085          2   0.7500   0.7000    1536            2.5\n"
    )
    steps = answer({"job_id": "job-1", "items": [step]})
    assert json.loads(forerun("results", "lr-history", "job-1", "--format", "json", answers=[steps]).stdout) == [step]
    csv = httpx.Response(200, headers={"Content-Type": "text/csv"}, content=b"epoch,phase\r\n1,stpt\r\n")
    result = forerun("results", "lr-history", "job-1", "--format", "csv", answers=[csv])
    assert result.stdout_bytes == b"epoch,phase\r\n1,stpt\r\n"


def test_schedule_is_json_for_a_file(forerun: Forerun) -> None:
    known = schedule()
    result = forerun("results", "schedule", "job-1", answers=[answer(known)])
    assert json.loads(result.stdout) == known
    forerun("results", "schedule", "job-1", "--label", "sweep", "--trial", "2", answers=[answer(known)])
    assert forerun.script.asked == ["GET /v1/jobs/job-1/schedule?trial=2&label=sweep"]


def test_explain(forerun: Forerun, tmp_path: Path) -> None:
    choice = decision(1, candidate(1, 0.3, 0.55), candidate(2, 0.1, 0.52, "chosen"), rule=rule())
    words = "results explain job-1 --label short --trial 2".split()
    result = forerun(*words, answers=[answer(decided(choice, decision(2)))])
    assert result.stdout.splitlines() == [
        "Epoch 1: 2 candidates from 0.1 to 0.3; 0.1 was best (val_loss 0.52, next best 0.3 with 0.55).",
        "Epoch 2: the search ended after epoch 1; the learning rate stays as it is: 0.1.",
    ]
    asked = "GET /v1/jobs/job-1/decisions?trial=2&label=short&format="
    assert forerun.script.asked == [f"{asked}json"]
    result = forerun(*words, "--format", "json", answers=[answer(decided(choice))])
    assert json.loads(result.stdout) == decided(choice)
    path = tmp_path / "decisions.png"
    figure = httpx.Response(200, content=b"\x89PNG")
    result = forerun(*words, "--format", "png", "--output", str(path), answers=[figure])
    assert (result.stderr, path.read_bytes(), forerun.script.asked) == (
        f"Written to {path}\n",
        b"\x89PNG",
        [f"{asked}png"],
    )
    refusal = problem(404, "not_found", "Not found", "job job-1 has no stpt; its runs are reference")
    result = forerun("results", "explain", "job-1", answers=[refusal])
    assert (result.exit_code, result.stderr) == (1, "forerun: job job-1 has no stpt; its runs are reference\n")


def test_selector_replay(forerun: Forerun) -> None:
    words = "results selector-replay job-1 --selector tolerance --tolerance 0.1".split()
    result = forerun(*words, answers=[answer(replayed())])
    assert result.stdout == "epoch  recorded  tolerance  regret\nno epoch yet\n"
    assert forerun.script.asked == ["GET /v1/jobs/job-1/selector-replay?selector=tolerance&tolerance=0.1"]
    assert json.loads(forerun(*words, "--json", answers=[answer(replayed())]).stdout) == replayed()


def test_trials(forerun: Forerun) -> None:
    pending = {"val_accuracy": None, "test_accuracy": None, "learning_rate": None, "config": {}, "state": "pending"}
    items = answer({"job_id": "job-1", "items": [trial_result(), trial_result(label="cosine", **pending)]})
    result = forerun("results", "trials", "job-1", answers=[items])
    assert result.stdout.splitlines() == [
        "run     trial  seed  state    epochs  samples  last rate  val acc  test acc  config",
        "tpe     2      0     stopped  1/3     1536     0.2123     0.7500   0.7000    "
        "learning_rate=0.2123 optimizer=adam",
        "cosine  2      0     pending  1/3     1536",
    ]
    items = answer({"job_id": "job-1", "items": [trial_result()]})
    words = "results trials job-1 --label tpe --state stopped --state failed --json".split()
    assert json.loads(forerun(*words, answers=[items]).stdout) == [trial_result()]
    assert forerun.script.asked == ["GET /v1/jobs/job-1/trials?label=tpe&state=stopped&state=failed"]


def test_comparison_as_a_table_and_as_json(forerun: Forerun) -> None:
    runs = [compared_run("stpt", samples_to_stpt={"mean": 1024.0, "spread": 0.0}), compared_run("tpe")]
    result = forerun("results", "comparison", "job-1", answers=[answer({"job_id": "job-1", "items": runs})])
    header, stpt, tpe = result.stdout.splitlines()
    assert header.split("  ")[0] == "run"
    assert stpt.split() == ("stpt 2 2 0.7500 ± 0.0100 0.7000 ± 0.0200 1536 ± 0 504 2.5 ± 0.2 1024 ± 0 1.00".split())
    assert tpe.split()[-4:] == ["2.5", "±", "0.2", "1.00"]
    answers: list[Step] = [answer({"job_id": "job-1", "items": runs})]
    assert json.loads(forerun("results", "comparison", "job-1", "--format", "json", answers=answers).stdout) == runs


def test_comparison_as_a_file(forerun: Forerun, tmp_path: Path) -> None:
    figure = b"\x89PNG\r\n\x1a\n\x00"
    png = [httpx.Response(200, content=figure) for _ in range(3)]
    path = tmp_path / "figure.png"
    result = forerun("results", "comparison", "job-1", "--format", "png", "--output", str(path), answers=[png[0]])
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", f"Written to {path}\n")
    assert path.read_bytes() == figure
    assert forerun.script.asked == ["GET /v1/jobs/job-1/comparison?format=png"]
    assert forerun("results", "comparison", "job-1", "--format", "png", answers=[png[1]]).stdout_bytes == figure
    nowhere = str(tmp_path / "none" / "figure.png")
    result = forerun("results", "comparison", "job-1", "--format", "png", "--output", nowhere, answers=[png[2]])
    assert result.exit_code == 2
    assert "cannot be written" in result.stderr
    csv = httpx.Response(200, content=b"method\r\nstpt\r\n")
    assert (
        forerun("results", "comparison", "job-1", "--format", "csv", answers=[csv]).stdout_bytes
        == b"method\r\nstpt\r\n"
    )


def test_a_study(forerun: Forerun, tmp_path: Path) -> None:
    row = study_row()
    rows = {"job_id": "job-1", "items": [row]}
    assert forerun("results", "study", "job-1", answers=[answer(rows)]).stdout.splitlines() == [
        "variant  batch  seeds  diverged  final test acc   best test acc",
        "linear   64     2      1         0.7000 ± 0.0100  0.7500",
    ]
    assert json.loads(forerun("results", "study", "job-1", "--format", "json", answers=[answer(rows)]).stdout) == [row]
    path = tmp_path / "study.svg"
    words = ["results", "study", "job-1", "--format", "svg", "--output", str(path)]
    assert forerun(*words, answers=[httpx.Response(200, content=b"<?xml")]).stderr == f"Written to {path}\n"
    assert path.read_bytes() == b"<?xml"
    words = ["results", "study", "--experiment", "tvlars-01", "--format"]
    assert json.loads(forerun(*words, "json", answers=[answer(rows)]).stdout) == [row]
    assert forerun.script.asked == ["GET /v1/study?experiment=tvlars-01&format=json"]
    assert forerun(*words, "csv", answers=[httpx.Response(200, content=b"variant")]).stdout == "variant"
    assert forerun.script.asked == ["GET /v1/study?experiment=tvlars-01&format=csv"]


@pytest.mark.parametrize("words", [[], ["job-1", "--experiment", "tvlars-01"]])
def test_a_study_is_of_a_job_or_of_an_experiment(forerun: Forerun, words: list[str]) -> None:
    result = forerun("results", "study", *words)
    assert result.exit_code == 2
    assert "name a job or an experiment, one of the two" in result.stderr


def test_a_ramp(forerun: Forerun) -> None:
    step = {"global_batch_size": 4096, "learning_rate": 0.01414, "momentum": 0.9, "effective_learning_rate": 0.1414}
    ramps = [{"seed": 0, "by_learning_rate": step, "by_momentum": None}]
    assert forerun("results", "ramp", "job-1", answers=[answer({"items": ramps})]).stdout.splitlines() == [
        "seed  scaled by      largest batch  learning rate  momentum  effective rate",
        "0     learning rate  4096           0.01414        0.9       0.1414",
    ]
    assert json.loads(forerun("results", "ramp", "job-1", "--json", answers=[answer({"items": ramps})]).stdout) == ramps


def layer_pages() -> list[Step]:
    without = layer_epoch(2, layer="3.weight", trust_ratio=None)
    pages: list[dict[str, object]] = [
        {"job_id": "job-1", "items": [layer_epoch(1)], "next_cursor": "more"},
        {"job_id": "job-1", "items": [without], "next_cursor": None},
    ]
    return list(map(answer, pages))


def test_layers_as_table_csv_and_json(forerun: Forerun) -> None:
    assert forerun("results", "layers", "job-1", answers=layer_pages()).stdout.splitlines() == [
        "run   trial  epoch  layer     step  lwn   lgn  lnr  trust ratio",
        "stpt  1      1      0.weight  10    1.25            0.01235",
        "stpt  1      2      3.weight  30    1.25",
    ]
    asked = "/v1/jobs/job-1/layers?limit=100&format=json"
    assert forerun.script.asked == [f"GET {asked}", f"GET {asked}&cursor=more"]
    result = forerun("results", "layers", "job-1", "--format", "csv", answers=layer_pages())
    assert result.stdout_bytes.decode().split("\r\n") == [
        "label,method,trial,epoch,attempt,layer,step,lwn,lgn,lnr,trust_ratio",
        "stpt,stpt,1,1,1,0.weight,0,1.5,0.5,3.0,0.003",
        "stpt,stpt,1,1,1,0.weight,10,1.25,,,0.0123456",
        "stpt,stpt,1,2,1,3.weight,20,1.5,0.5,3.0,",
        "stpt,stpt,1,2,1,3.weight,30,1.25,,,",
        "",
    ]
    result = forerun("results", "layers", "job-1", "--format", "json", answers=layer_pages())
    assert json.loads(result.stdout) == [layer_epoch(1), layer_epoch(2, layer="3.weight", trust_ratio=None)]


def test_layers_as_a_figure_of_some_of_them(forerun: Forerun, tmp_path: Path) -> None:
    path, figure = tmp_path / "layers.png", httpx.Response(200, content=b"\x89PNG")
    filters = "--label sweep --trial 2 --layer 0.weight --first-epoch 3 --last-epoch 9"
    words = f"results layers job-1 {filters} --format png --output {path}"
    assert forerun(*words.split(), answers=[figure]).stderr == f"Written to {path}\n"
    assert path.read_bytes() == b"\x89PNG"
    query = "label=sweep&trial=2&layer=0.weight&first_epoch=3&last_epoch=9&format=png"
    assert forerun.script.asked == [f"GET /v1/jobs/job-1/layers?{query}"]


def test_history_of_all_jobs(forerun: Forerun) -> None:
    pages = [
        answer({"items": [history_step(1), history_step(2)], "next_cursor": "more"}),
        answer({"items": [history_step(3), history_step(4)], "next_cursor": "still"}),
    ]
    words = "results history --model lenet5 --dataset digits --batch 64 --state succeeded --limit 3".split()
    result = forerun(*words, answers=[*pages])
    header, first, *_, last = result.stdout.splitlines()
    assert header.split()[:6] == ["job", "model", "dataset", "optimizer", "batch", "run"]
    assert first.split() == "job-1 lenet5 digits sgd 64 stpt 1 0 1 stpt 0.1 0.7500 0.7000 1536".split()
    assert last.split()[8] == "3"
    query = "model=lenet5&dataset=digits&batch=64&state=succeeded&limit=3&format=json"
    assert forerun.script.asked == [f"GET /v1/lr-history?{query}", f"GET /v1/lr-history?{query}&cursor=more"]


def test_history_of_all_jobs_as_csv_and_json(forerun: Forerun) -> None:
    pages = [answer({"items": [history_step(1, newer="than this client")], "next_cursor": None}) for _ in range(2)]
    lines = forerun("results", "history", "--format", "csv", answers=[pages[0]]).stdout.splitlines()
    assert lines[0].startswith("job_id,model,dataset,optimizer,global_batch_size,label,method,trial,seed,epoch,phase,")
    assert lines[1:] == ["job-1,lenet5,digits,sgd,64,stpt,stpt,1,0,1,stpt,0.1,0.1,0.09,0.75,0.7,1536"]
    [step] = json.loads(forerun("results", "history", "--format", "json", answers=[pages[1]]).stdout)
    assert step["job_id"] == "job-1"


def test_recommendation(forerun: Forerun) -> None:
    words = "results recommendation lenet5 digits --batch 128 --optimizer sgd".split()
    result = forerun(*words, answers=[answer(recommended())])
    assert result.stdout.splitlines() == [
        "learning rate 0.2 (0.1 to 0.4) for sgd, batch 128",
        "Scaled.",
        "job    seed  batch  lr_schedule  learning rate  scaled  val acc  test acc",
        "job-1  0     64     linear       0.1            0.2     0.7500   0.7000",
    ]
    asked = "GET /v1/recommendation?model=lenet5&dataset=digits&batch=128&optimizer=sgd"
    assert forerun.script.asked == [asked]
    assert json.loads(forerun(*words, "--json", answers=[answer(recommended())]).stdout) == recommended()
    refusal = problem(404, "not_found", "Not found", "no succeeded job yet")
    result = forerun("results", "recommendation", "lenet5", "digits", answers=[refusal])
    assert (result.exit_code, result.stderr) == (1, "forerun: no succeeded job yet\n")
