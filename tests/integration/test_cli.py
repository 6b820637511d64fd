"""The command line as a process of its own, against a real server; the test plays the controller and the Ray job."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Queue
from threading import Thread

import httpx
import pytest
from typer.testing import CliRunner

from api.deps import Services
from forerun import exchange
from forerun.cli import app
from forerun.client import Client
from service.cluster.base import Capacity
from service.cluster.controller import Leadership
from service.jobs.quota import NO_QUOTA
from service.store.engine import Store
from tests.application import serving
from tests.builders import Worker, branch_records, claim, epoch_record, run_to_success, spec_document, submit

pytest_plugins = ["tests.databases"]

FORERUN = str(Path(sys.executable).with_name("forerun"))
DEADLINE = 30  # seconds


class Fleet:
    """Stands for the controller: it tells the test when there is something to do."""

    dashboard_url = "http://ray.test:8265"
    capacity = Capacity(cpus=2, gpus=0)
    trouble = None
    leadership = Leadership(True, None)
    quota = NO_QUOTA

    def __init__(self) -> None:
        self.woken: Queue[None] = Queue()

    def wake(self) -> None:
        self.woken.put(None)

    def logs(self, submission_id: str) -> str:
        return f"{submission_id} trains\n"


@pytest.fixture
def fleet() -> Fleet:
    return Fleet()


@pytest.fixture
def services(sqlite_store: Store, fleet: Fleet, tmp_path: Path) -> Services:
    return Services(store=sqlite_store, fleet=fleet, data_dir=tmp_path / "data", data_is_local=True)


@pytest.fixture
def http(services: Services) -> Iterator[httpx.Client]:
    with serving(services) as port, httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=DEADLINE) as http:
        yield http


@pytest.fixture
def spec_file(tmp_path: Path) -> Path:
    path = tmp_path / "spec.yaml"
    path.write_text("name: from the command line\nmodel: lenet5\ndataset: digits\nepochs: 2\nlr_set: middle\n")
    return path


@contextmanager
def start(http: httpx.Client, *words: str) -> Iterator[subprocess.Popen[str]]:
    pipe = subprocess.PIPE
    environment = os.environ | {"FORERUN_URL": str(http.base_url), "COLUMNS": "80"}
    with subprocess.Popen([FORERUN, *words], env=environment, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.kill()  # when the test failed; otherwise it has ended


def run(http: httpx.Client, *words: str) -> tuple[int, str, str]:
    """Run the command line in this process, where a process of its own makes no difference; return (exit code, output,
    errors)."""
    result = CliRunner().invoke(app, words, env={"FORERUN_URL": str(http.base_url), "COLUMNS": "80"})
    return result.exit_code, result.stdout, result.stderr


def test_submit_and_watch(http: httpx.Client, fleet: Fleet, services: Services, spec_file: Path) -> None:
    with start(http, "submit", str(spec_file), "--watch") as process:
        fleet.woken.get(timeout=DEADLINE)
        claimed = claim(services.store)
        worker = Worker.started(http, claimed)
        worker.report(epoch_record(1, phase="warmup", learning_rate=0.005, branches=[])).raise_for_status()
        worker.report(epoch_record(2, learning_rate=0.2, branches=branch_records(0.1, 0.2, chosen=2)))
        worker.finish().raise_for_status()
        out, err = process.communicate(timeout=DEADLINE)
    assert (process.returncode, err) == (0, "")
    assert out.splitlines() == [
        f"{claimed.job_id}: lenet5 on digits, 1 worker, batch 64, seed 0 (from the command line)",
        "epoch  phase   learning rate  val acc  test acc   seconds",
        "    each branch: learning rate val_loss (* chosen)",
        "queued",
        "submitting",
        "running",
        "  1/2  warmup          0.005   0.5000    0.4000       2.5",
        "  2/2  stpt              0.2   0.7500    0.7000       2.5",
        "     0.1 0.4000  *0.2 0.5000",
        "    warning: 0.2 is the highest learning rate that was tried: a higher one may",
        "    be better, widen lr_set",
        "succeeded",
    ]
    code, shown, _ = run(http, "show", claimed.job_id)
    assert code == 0
    assert shown.splitlines()[-7:] == [line for line in out.splitlines()[1:] if line.startswith(" ") or "phase" in line]


def test_a_job_that_fails_under_watch(http: httpx.Client, services: Services) -> None:
    job_id = submit(http)
    worker = Worker.started(http, claim(services.store))
    worker.finish(state="failed", code="diverged", message="every branch diverged").raise_for_status()
    code, out, err = run(http, "job", "watch", job_id)
    assert (code, out.splitlines()[-1]) == (1, "failed")
    assert err == f"forerun: {job_id} failed (diverged): every branch diverged\n"


def test_ctrl_c_leaves_the_job_running(http: httpx.Client, services: Services) -> None:
    job_id = submit(http)
    Worker.started(http, claim(services.store))
    with start(http, "job", "watch", job_id) as process:
        assert process.stdout is not None
        assert any(line == "running\n" for line in process.stdout)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == 130
    assert f"{job_id} goes on. Watch it again with: {FORERUN} --url {http.base_url} job watch {job_id}\n" in err
    assert "Traceback" not in err
    assert http.get(f"/v1/jobs/{job_id}").json()["state"] == "running"


@pytest.mark.parametrize("words", [["jobs"], ["job", "watch", "{job}"]])
def test_a_reader_who_has_gone_ends_it_in_silence(http: httpx.Client, services: Services, words: list[str]) -> None:
    job_id = run_to_success(http, services.store)
    read_end, write_end = os.pipe()
    os.close(read_end)
    environment = os.environ | {"FORERUN_URL": str(http.base_url)}
    command = [FORERUN, *(word.format(job=job_id) for word in words)]
    try:
        done = subprocess.run(command, env=environment, stdout=write_end, stderr=subprocess.PIPE, timeout=DEADLINE)
    finally:
        os.close(write_end)
    assert (done.returncode, done.stderr) == (1, b"")


def test_every_other_command(http: httpx.Client, services: Services, spec_file: Path, tmp_path: Path) -> None:
    done = run_to_success(http, services.store)
    code, out, err = run(http, "submit", str(spec_file))
    waiting = out.strip()
    assert (code, err) == (0, f"Watch it with: forerun --url {http.base_url} job watch {waiting}\n")
    assert run(http, "job", "cancel", waiting) == (0, f"{waiting} cancelled\n", "")
    assert run(http, "job", "cancel", done)[0] == 1
    assert [line.split()[:2] for line in run(http, "jobs")[1].splitlines()[1:]] == [
        [waiting, "cancelled"],
        [done, "succeeded"],
    ]
    assert run(http, "jobs", "--state", "succeeded")[1].count("job-") == 1
    csv = http.get(f"/v1/jobs/{done}/lr-history", params={"format": "csv"})
    code, out, _ = run(http, "results", "lr-history", done, "--format", "csv")
    assert out == csv.text.replace("\r\n", "\n")  # as the runner reads it
    history = json.loads(run(http, "results", "lr-history", done, "--format", "json")[1])
    assert history == http.get(f"/v1/jobs/{done}/lr-history").json()["items"]


def test_methods_side_by_side_and_what_they_teach(http: httpx.Client, services: Services, tmp_path: Path) -> None:
    done = run_to_success(http, services.store)
    assert run(http, "results", "trials", done)[1].splitlines()[1].split()[:6] == "stpt 1 0 completed 3/3 4608".split()
    assert run(http, "results", "comparison", done)[1].splitlines()[1].split()[:5] == "stpt 1 1 0.8333 0.8000".split()
    figure = tmp_path / "figure.png"
    code, out, _ = run(http, "results", "comparison", done, "--format", "png", "--output", str(figure))
    assert (code, out, figure.read_bytes()[:4]) == (0, "", b"\x89PNG")
    # it has no telemetry: the names of the columns
    code, out, _ = run(http, "results", "layers", done, "--format", "csv")
    assert (code, out) == (0, http.get(f"/v1/jobs/{done}/layers?format=csv").text.replace("\r\n", "\n"))
    code, out, _ = run(http, "results", "history", "--model", "lenet5", "--dataset", "digits", "--format", "csv")
    assert out == http.get("/v1/lr-history?format=csv").text.replace("\r\n", "\n")
    code, out, _ = run(http, "results", "recommendation", "lenet5", "digits", "--batch", "128")
    assert out.startswith("learning rate 0.2 (0.2 to 0.2) for sgd, batch 128\n")
    with Client(str(http.base_url)) as client:
        assert [step.epoch for step in client.history(page_size=2)] == [1, 2, 3]


def test_from_a_job_to_its_schedule_and_to_a_study(
    http: httpx.Client, services: Services, spec_file: Path, tmp_path: Path
) -> None:
    done = run_to_success(http, services.store)
    schedule = json.loads(run(http, "results", "schedule", done)[1])
    assert schedule["learning_rates"] == [0.1, 0.1, 0.1]
    code, out, _ = run(http, "results", "explain", done)
    assert (code, out.splitlines()[2]) == (
        0,
        "Epoch 3: 3 candidates from 0.05 to 0.2; 0.1 was best (val_accuracy 0.5, next best 0.2 with 0.4).",
    )
    code, out, _ = run(http, "results", "selector-replay", done, "--selector", "greedy")
    assert (code, out.splitlines()[-1]) == (0, "the same in 100%")
    assert run(http, "results", "selector-replay", done, "--selector", "greedy", "--tolerance", "0.1")[0] == 1

    code, out, _ = run(http, "plan", str(spec_file))
    assert (code, out.splitlines()[0]) == (0, "an epoch: 20 iterations")
    assert run(http, "experiment", "list")[1].splitlines()[3].startswith("mix")
    code, out, err = run(http, "experiment", "run", "lr-sets", "--spec", str(spec_file))
    assert (code, len(out.splitlines())) == (0, 4)
    group = err.split()[-1]
    assert run(http, "jobs", "--experiment", group)[1].count("job-") == 3


def test_a_refused_spec(http: httpx.Client, tmp_path: Path) -> None:
    (tmp_path / "spec.json").write_text(json.dumps(spec_document(epochs=0, model="vgg17", lr_set={"factors": [1, -2]})))
    code, out, err = run(http, "submit", str(tmp_path / "spec.json"))
    assert (code, out) == (1, "")
    assert err.splitlines() == [
        "forerun: Invalid input:",
        '  model = "vgg17": no model of this name; did you mean vgg19 or vgg16 or vgg13?',
        "  epochs = 0: Input should be greater than or equal to 1",
        "  lr_set.factors[1] = -2: Input should be greater than 0",
    ]


def test_a_client_outlives_a_restart_of_the_service(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "PAUSES", (0.05,) * 200)
    with serving(services) as port:
        client = Client(f"http://127.0.0.1:{port}")
        job_id = client.submit(spec_document(epochs=1)).id
        events = client.events(job_id)
        assert [next(events).number] == [1]
    finished: Queue[None] = Queue()

    def work() -> None:
        with (
            serving(services, port),
            httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=DEADLINE) as http,
        ):
            worker = Worker.started(http, claim(services.store))
            worker.report(epoch_record(1)).raise_for_status()
            worker.finish().raise_for_status()
            finished.get(timeout=DEADLINE)

    thread = Thread(target=work)
    thread.start()
    try:
        rest = list(events)
        assert [event.number for event in rest] == [2, 3, 4, 5]
        assert [getattr(event, "state", "epoch") for event in rest] == ["submitting", "running", "epoch", "succeeded"]
        assert list(client.events(job_id, after=5)) == []
        assert client.wait(job_id).test_accuracy == epoch_record(1)["test_accuracy"]
    finally:
        finished.put(None)
        thread.join(DEADLINE)
        client.close()


def test_the_same_key_gives_the_same_job_over_many_pages(http: httpx.Client) -> None:
    with Client(str(http.base_url)) as client:
        first = client.submit(spec_document(), idempotency_key="once").id
        assert client.submit(spec_document(), idempotency_key="once").id == first
        others = [client.submit(spec_document(name="other")).id for _ in range(4)]
        assert [job.id for job in client.jobs(page_size=2)] == [*reversed(others), first]
        assert [job.id for job in client.jobs(name="other", state=["queued"], page_size=3)] == others[::-1]
        assert client.epochs(first) == client.branches(first) == client.lr_history(first) == []
