"""A Ray head of our own on this machine, for when there is no cluster to connect to. Linux only.

    service ── supervisor (this module as a program) ── `ray start --head --block` ── some twenty processes of Ray

The supervisor makes "ends with the service" true even when the service is killed with SIGKILL: twice a second it looks
whether its parent is still there. (A pipe would not tell while a fork of the service holds it as well, and a
parent-death signal comes already when the *thread* that started the head ends.) It is a subreaper: what Ray orphans,
drivers of jobs included, becomes its child, so whatever descends from the supervisor is exactly what this head started.
"""

import contextlib
import ctypes
import logging
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Self

import psutil  # type: ignore[import-untyped]

from service.cluster.base import Capacity
from service.cluster.ray_jobs import RayCluster
from service.errors import ClusterUnreachable

log = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
PACKAGES = str(Path(__file__).resolve().parents[2])  # the directory of the packages `service` and `workers`
OBJECT_STORE_BYTES = 256 << 20  # Forerun passes records and references through Ray, never data sets
GRACE_S = 10.0  # for Ray to end by itself, 2 to 4 s measured, before SIGKILL
SHORT_GRACE_S = 2.0  # where another service may be about to take over
DEADLINE = "deadline"  # a file in the head's directory: the uptime of the machine at which the head has to end
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # <sys/prctl.h>


class EmbeddedHead:
    """A running Ray head with one node, this machine. Like `subprocess.Popen`, to construct it is to start it.

    Guarantees: it listens on 127.0.0.1 only, and answers nobody without `token` except to health checks and with
    metrics; its jobs inherit the token and find this Python and Forerun's packages; it shares no port and no directory
    with another head; after `stop`, or a few seconds after the end of this process however that came, none of its
    processes and files is left.

    `num_cpus` (1 or more) and `num_gpus`: None for what Ray finds. The dashboard takes the first free port from
    `dashboard_port` on. Raises `ClusterUnreachable`, with the last output of Ray, when the head is not up within
    `timeout_s`.
    """

    dashboard_url: str
    gcs_address: str
    directory: Path  # for what Ray writes; nobody else may look into it
    pid: int  # of the supervisor: every process of this head descends from it

    def __init__(
        self,
        num_cpus: int | None = None,
        num_gpus: int | None = None,
        dashboard_port: int = 8265,
        timeout_s: float = 180.0,
    ) -> None:
        self.token = secrets.token_hex(32)
        self.directory = Path(tempfile.mkdtemp(prefix="forerun-"))  # short, for Ray puts its sockets into it
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `stop`
        dashboard_port, self._dashboard_claim = _claim_port(dashboard_port)
        client_port, self._client_claim = _claim_port(20_000)  # below those that Linux gives to outgoing connections
        self.dashboard_url = f"http://{LOOPBACK}:{dashboard_port}"
        command = [sys.executable, "-m", "service.cluster.local_head", str(os.getpid()), str(self.directory)]
        command += [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--log-color=false"]
        # Ray makes its directory accessible to everybody (0777), so it gets one inside ours (0700).
        command += [f"--temp-dir={self.directory / 'ray'}", f"--object-store-memory={OBJECT_STORE_BYTES}"]
        command += [f"--node-ip-address={LOOPBACK}", f"--dashboard-host={LOOPBACK}", "--include-dashboard=true"]
        # Port 0 is "any free one", and the default for what is not named here; the last two have to be numbers.
        command += ["--port=0", "--dashboard-agent-listen-port=0", "--min-worker-port=0", "--max-worker-port=0"]
        command += [f"--dashboard-port={dashboard_port}", f"--ray-client-server-port={client_port}"]
        command += [f"--num-cpus={num_cpus}"] if num_cpus is not None else []
        command += [f"--num-gpus={num_gpus}"] if num_gpus is not None else []
        self._command, self._timeout_s = command, timeout_s
        try:
            self._launch()
        except BaseException:
            self.stop()
            raise

    def _launch(self) -> None:
        self._supervisor = subprocess.Popen(  # noqa: S603 - our own words only
            self._command,
            env=_environment(self.token, self._timeout_s) | {"TMPDIR": str(self._temporary())},
            cwd=self.directory,  # Ray's workers import from there, which may not be what lies where the service runs
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C at the terminal is for the service, which then stops us in order
        )
        self.pid = self._supervisor.pid
        try:
            self.gcs_address = self._wait_until_up(time.monotonic() + self._timeout_s)
        except BaseException:
            self._end()
            raise

    def _temporary(self) -> Path:
        """The folder for temporary files of the head and of jobs: who is killed leaves them behind."""
        folder = self.directory / "tmp"
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder

    def revive(self) -> bool:
        """Start the head again, at the same address with the same token, if it has ended by itself; return whether it
        had.

        The jobs of the head that ended are gone with it. Not to be called after `stop`.
        """
        if self._supervisor.poll() is None:
            return False
        self.directory.mkdir(mode=0o700, exist_ok=True)
        self._launch()
        return True

    def hold(self, seconds: float | None) -> None:
        """Let every process of this head end after `seconds`, even if this one hangs, unless this is called again until
        then; None: let them stay. One that has ended stays so."""
        deadline = self.directory / DEADLINE
        with contextlib.suppress(OSError):
            if seconds is None:
                deadline.unlink(missing_ok=True)
                return
            unfinished = deadline.with_name(f"{DEADLINE}.unfinished")
            unfinished.write_text(str(_uptime() + seconds))
            unfinished.replace(deadline)

    def stop(self) -> None:
        """End every process of this head and remove its files; return when they are gone. May be repeated."""
        self._end()
        for file in (self._output, self._dashboard_claim, self._client_claim):
            file.close()

    def _end(self) -> None:
        self._supervisor.terminate()
        try:
            self._supervisor.wait(timeout=3 * GRACE_S)
        except subprocess.TimeoutExpired:
            _kill(psutil.Process(self.pid).children(recursive=True))
            self._supervisor.kill()
            self._supervisor.wait()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _wait_until_up(self, deadline: float) -> str:
        """The address of the GCS, when the node is alive and the dashboard answers."""
        address = self.directory / "ray/ray_current_cluster"  # the last that Ray writes when it starts
        cluster = RayCluster(self.dashboard_url, self.token, sys.executable)
        while self._supervisor.poll() is None:
            with contextlib.suppress(FileNotFoundError, ClusterUnreachable):
                if (gcs_address := address.read_text()) and cluster.capacity().cpus > 0:
                    return gcs_address
            if time.monotonic() > deadline:
                raise ClusterUnreachable(f"Ray did not start in time. Its last output:\n{self._last_output()}")
            time.sleep(0.05)
        raise ClusterUnreachable(f"Ray ended while it started. Its last output:\n{self._last_output()}")

    def _last_output(self) -> str:
        fd = self._output.fileno()  # shared with the writers: read without moving their position
        return os.pread(fd, 4000, max(0, os.fstat(fd).st_size - 4000)).decode(errors="replace")


class OwnCluster(RayCluster):
    """The cluster of a Ray head of our own: when the head has died, the next look at the cluster starts it again."""

    def __init__(self, head: EmbeddedHead) -> None:
        super().__init__(head.dashboard_url, head.token, sys.executable)
        self._head, self._address = head, None

    def hold(self, seconds: float | None) -> None:
        """Let the head end after `seconds`, unless this is called again until then; None: let it stay."""
        self._head.hold(seconds)

    def capacity(self) -> Capacity:
        """The CPUs and GPUs of the head, which is started again first where it has died."""
        if self._head.revive():
            log.error("the local Ray head had died and was started again; its jobs are lost and will be tried again")
        return super().capacity()


def _environment(token: str, timeout_s: float) -> dict[str, str]:
    """For every process of the head, drivers and workers of jobs included."""
    # Ray is configured here alone. And it is some twenty Pythons: without cached byte code each of them compiles all
    # that it imports, and the head takes 45 s to start instead of 8.
    # FORERUN_ variables (a database URL with its password, say) are no business of jobs.
    foreign = ("RAY_", "FORERUN_", "PYTHONDONTWRITEBYTECODE")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return inherited | {
        "PYTHONPATH": os.pathsep.join(filter(None, [PACKAGES, inherited.get("PYTHONPATH")])),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": token,
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # keeps 127.0.0.1, which Ray on Linux replaces by the outer address
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DASHBOARD_STARTUP_TIMEOUT_S": str(int(timeout_s * 2 / 3)),  # before ours, for then Ray says what is wrong
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",  # there is no other node to drain to
        "RAY_JOB_STOP_SIGNAL": "SIGINT",  # Ray Train ends cleanly on SIGINT only
        "RAY_JOB_STOP_WAIT_TIME_S": "3",
        "RAY_prestart_worker_first_driver": "0",  # workers before they are asked for lack a job's environment: unused
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.25",  # also the pace at which reports are taken
        "AUTOSCALER_METRIC_PORT": "0",
        "DASHBOARD_METRIC_PORT": "0",
    }


def _claim_port(first: int) -> tuple[int, socket.socket]:
    """The first port from `first` on that is free and that no other head has claimed; the socket holds the claim.

    Ray binds its ports seconds after it was told them, and a dashboard that finds its port taken by then hangs. The
    claim is an abstract Unix socket: a name in the network namespace, as ports are, that dies with its holder.
    """
    for port in range(first, 2**16):
        claim = socket.socket(socket.AF_UNIX)
        with contextlib.suppress(OSError), socket.socket() as probe:
            claim.bind(f"\0forerun-port-{port}")
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((LOOPBACK, port))
            return port, claim
        claim.close()
    raise ClusterUnreachable(f"No port from {first} on is free for Ray.")


def _supervise(parent: int, directory: str, command: list[str]) -> None:
    """Runs `command` until it or `parent` ends, SIGTERM comes, or the deadline in `directory` has passed; then ends all
    descendants and removes `directory`."""
    grace = GRACE_S
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    try:
        # Should the supervisor itself be killed, `ray start` gets a SIGTERM and ends the rest, as far as it can.
        def in_the_child() -> None:
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
            signal.signal(
                signal.SIGINT, signal.SIG_DFL
            )  # ignored by what a script runs with &; it is how jobs are stopped

        ray = subprocess.Popen(command, preexec_fn=in_the_child)  # noqa: S603
        while ray.pid not in _reaped() and os.getppid() == parent:
            if _has_passed(Path(directory) / DEADLINE):
                grace = SHORT_GRACE_S
                break
            time.sleep(0.5)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        children = psutil.Process().children()
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.terminate()
        psutil.wait_procs(children, timeout=grace)
        while rest := psutil.Process().children(recursive=True):
            _kill(rest)
        shutil.rmtree(directory, ignore_errors=True)


def _has_passed(deadline: Path) -> bool:
    try:
        return _uptime() > float(deadline.read_text())
    except FileNotFoundError:
        return False


def _uptime() -> float:
    """Seconds by a clock that does not jump, is the same in all processes, and goes on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _reaped() -> set[int]:
    """Children that have ended since the last call; they would stay as zombies otherwise."""
    pids = set()
    with contextlib.suppress(ChildProcessError):
        while pid := os.waitpid(-1, os.WNOHANG)[0]:
            pids.add(pid)
    return pids


def _kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=1.0)


if __name__ == "__main__":
    _supervise(int(sys.argv[1]), sys.argv[2], sys.argv[3:])
