"""What `pip install forerun` alone brings: client and command line, without torch, Ray, SQL and FastAPI."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from service.wire import answers

pytestmark = pytest.mark.long
ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "ray", "sqlalchemy", "alembic", "fastapi", "numpy")
CPU_SECONDS = "import time; start = time.process_time(); import forerun; print(time.process_time() - start)"
PLAN = answers.Plan(
    train_samples=1293,
    iterations_per_epoch=20,
    runs=[
        answers.RunCost(
            label="stpt",
            method="stpt",
            trainings=1,
            samples=12800,
            iterations=200.0,
            relative_to_sweep=0.5,
            pretrain_iterations=2,
            main_train_iterations=18,
            search_area=[],
        )
    ],
)


class _Planner(BaseHTTPRequestHandler):
    """A service that answers every POST with the same plan."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert (self.path, asked["model"]) == ("/v1/plan", "lenet5")
        body = PLAN.model_dump_json().encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def bin_(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment with Forerun and its core dependencies, pinned as in the lock."""
    folder = tmp_path_factory.mktemp("light") / "env"
    uv = [sys.executable, "-m", "uv"]
    subprocess.run([*uv, "venv", "--quiet", "--python", sys.executable, folder], check=True)
    constraint = ["--constraint", ROOT / "requirements.lock"]
    subprocess.run([*uv, "pip", "install", "--quiet", "--python", folder / "bin/python", *constraint, ROOT], check=True)
    return folder / "bin"


@pytest.fixture
def service_url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Planner)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)


def test_nothing_heavy_is_there(bin_: Path, tmp_path: Path) -> None:
    code = f"from importlib.util import find_spec; print([name for name in {HEAVY} if find_spec(name)])"
    assert run(bin_ / "python", "-c", code, cwd=tmp_path).stdout == "[]\n"


def test_client_and_spec_can_be_imported(bin_: Path, tmp_path: Path) -> None:
    code = "from forerun import Client, JobSpec; print(JobSpec(model='lenet5', dataset='digits', epochs=3).epochs)"
    done = run(bin_ / "python", "-c", code, cwd=tmp_path)
    assert (done.stdout, done.returncode) == ("3\n", 0), done.stderr


def test_the_import_costs_next_to_nothing(bin_: Path, tmp_path: Path) -> None:
    run(bin_ / "python", "-c", CPU_SECONDS, cwd=tmp_path)  # compiles it
    assert float(run(bin_ / "python", "-c", CPU_SECONDS, cwd=tmp_path).stdout) < 0.3


def test_the_command_line_works(bin_: Path, tmp_path: Path, service_url: str) -> None:
    assert run(bin_ / "forerun", "--help", cwd=tmp_path).stdout.lstrip().startswith("Usage: ")
    spec = ROOT / "examples" / "digits.yaml"
    done = run(bin_ / "forerun", "--url", service_url, "plan", spec, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "stpt" in done.stdout
    assert "12,800" in done.stdout or "12800" in done.stdout


def test_the_service_says_what_it_lacks(bin_: Path, tmp_path: Path) -> None:
    done = run(bin_ / "forerun", "serve", cwd=tmp_path)
    assert done.returncode == 1
    assert "pip install 'forerun[server,worker]'" in done.stderr
