"""RayCluster and EmbeddedHead against a real Ray; and FakeCluster, where both promise the same."""

import ipaddress
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import psutil  # type: ignore[import-untyped]
import pytest

from service.cluster.base import LIVE, Capacity, Cluster, RayJobStatus, Submission
from service.cluster.fake import FakeCluster
from service.cluster.local_head import PACKAGES, EmbeddedHead, OwnCluster
from service.cluster.ray_jobs import RayCluster
from service.errors import ClusterUnreachable
from tests.processes import descendants, of_each, wait_until


def stub_cluster(dashboard_url: str, token: str | None) -> RayCluster:
    return RayCluster(dashboard_url, token, sys.executable, module="tests.integration.job_stub")


def status(cluster: Cluster, submission_id: str) -> RayJobStatus:
    submission = cluster.find(submission_id)
    assert submission is not None
    return submission.status


def live(cluster: Cluster) -> list[str]:
    return cluster.overview().live()


def stop(cluster: Cluster, submission_id: str) -> None:
    cluster.stop(submission_id)
    wait_until(lambda: status(cluster, submission_id) == RayJobStatus.STOPPED)


# --- heads for all tests that do not end them: a start takes 8 s and more ---


class Owner:
    """A process that starts a head, as the service does, and then waits to be killed."""

    CODE = """
import signal
from service.cluster.local_head import EmbeddedHead
head = EmbeddedHead(num_cpus=1)
print(head.pid, head.dashboard_url, head.token, head.directory, flush=True)
signal.pause()
"""

    def __init__(self) -> None:
        command = [sys.executable, "-c", self.CODE]
        self.process = subprocess.Popen(command, cwd=PACKAGES, stdout=subprocess.PIPE, text=True)

    @cached_property
    def head(self) -> tuple[int, str, str, Path]:
        assert self.process.stdout is not None
        pid, url, token, directory = self.process.stdout.readline().split()
        return int(pid), url, token, Path(directory)


@pytest.fixture(scope="module")
def owner() -> Iterator[Owner]:
    owner = Owner()
    yield owner
    owner.process.kill()
    owner.process.communicate()


@pytest.fixture(scope="module")
def ray_head(owner: Owner) -> Iterator[EmbeddedHead]:
    """Started while `owner` starts another."""
    with EmbeddedHead(num_cpus=2, num_gpus=0) as head:
        yield head


@pytest.fixture
def cluster(ray_head: EmbeddedHead) -> RayCluster:
    return stub_cluster(ray_head.dashboard_url, ray_head.token)


# --- what every cluster promises ---


@pytest.fixture(params=["fake", "ray"])
def any_cluster(request: pytest.FixtureRequest) -> Cluster:
    return FakeCluster() if request.param == "fake" else request.getfixturevalue("cluster")


def test_an_unknown_submission(any_cluster: Cluster) -> None:
    assert any_cluster.find("unknown-a1") is None
    assert any_cluster.logs("unknown-a1") == ""
    assert any_cluster.nodes_of("unknown-a1") == {}
    any_cluster.stop("unknown-a1")
    assert "unknown-a1" not in live(any_cluster)


def test_an_overview_has_every_submission_and_the_session(any_cluster: Cluster) -> None:
    before = any_cluster.overview()
    any_cluster.submit("seen-a1", "waits", {})
    overview = any_cluster.overview()
    assert overview.submissions.keys() - before.submissions.keys() == {"seen-a1"}
    found = any_cluster.find("seen-a1")
    assert found is not None
    assert overview.submissions["seen-a1"].submission_id == "seen-a1"
    assert overview.submissions["seen-a1"].status in LIVE
    assert "seen-a1" in overview.live()
    assert overview.cluster == before.cluster
    assert overview.cluster.session.startswith("session")
    assert overview.cluster.address == any_cluster.dashboard_url
    stop(any_cluster, "seen-a1")


def test_from_submit_to_stop(any_cluster: Cluster) -> None:
    with ThreadPoolExecutor() as pool:
        submits = [pool.submit(any_cluster.submit, "some-a1", "waits", {}) for _ in range(4)]
    assert [submit.result() for submit in submits] == [None] * 4
    assert status(any_cluster, "some-a1") in LIVE
    assert live(any_cluster).count("some-a1") == 1
    any_cluster.submit("some-a1", "fails", {})  # adopted: "fails" never runs
    assert live(any_cluster).count("some-a1") == 1
    stop(any_cluster, "some-a1")
    assert "some-a1" not in live(any_cluster)
    any_cluster.stop("some-a1")
    any_cluster.submit("some-a1", "waits", {})
    assert status(any_cluster, "some-a1") == RayJobStatus.STOPPED


def test_an_id_that_is_not_ours_never_reaches_the_shell(any_cluster: Cluster) -> None:
    with pytest.raises(AssertionError):
        any_cluster.submit("fine-a1", "job; touch /tmp/owned", {})
    assert any_cluster.find("fine-a1") is None


def test_the_fake_records_what_it_was_asked_unless_unreachable() -> None:
    fake = FakeCluster()
    fake.unreachable = True
    assert_unreachable(fake, "No answer from Ray")
    fake.unreachable = False
    assert (fake.submitted, fake.stopped, live(fake)) == ([], [], [])
    fake.submit("some-a1", "waits", {"GREETING": "hello"})
    fake.submit("some-a1", "waits", {})
    fake.set_status("some-a1", RayJobStatus.FAILED, "exit code 1")
    fake.stop("some-a1")
    assert fake.submitted == [("some-a1", "waits", {"GREETING": "hello"})]
    assert fake.stopped == ["some-a1"]
    assert fake.find("some-a1") == Submission("some-a1", RayJobStatus.FAILED, "exit code 1")
    fake.set_status("orphan-a1", RayJobStatus.RUNNING)
    assert live(fake) == ["orphan-a1"]
    fake.forget("some-a1")
    assert fake.find("some-a1") is None


# --- jobs on Ray ---


def test_a_job_runs_and_succeeds(cluster: RayCluster, tmp_path: Path) -> None:
    told = tmp_path / "told"
    cluster.submit("good-a1", "succeeds-when-told", {"GREETING": "hello", "TOLD": str(told)})
    wait_until(lambda: status(cluster, "good-a1") == RayJobStatus.RUNNING)
    wait_until(lambda: "succeeds-when-told runs" in cluster.logs("good-a1"))
    assert "good-a1" in live(cluster)
    told.touch()
    wait_until(lambda: status(cluster, "good-a1") == RayJobStatus.SUCCEEDED)
    assert "good-a1" not in live(cluster)
    assert f"succeeds-when-told runs in {sys.executable}, GREETING=hello\n" in cluster.logs("good-a1")


def test_a_job_that_fails_says_why(cluster: RayCluster, ray_head: EmbeddedHead) -> None:
    cluster.submit("bad-a1", "fails", {})
    wait_until(lambda: status(cluster, "bad-a1") == RayJobStatus.FAILED)
    failed = cluster.find("bad-a1")
    assert failed is not None
    assert "exit code 1" in failed.message
    assert "the dataset is missing" in failed.message
    assert ray_head.token not in failed.message
    assert cluster.nodes_of("bad-a1") == {}, "it had not made itself known to Ray yet"


def test_a_ray_job_keeps_to_loopback_and_to_itself_until_stopped(cluster: RayCluster, ray_head: EmbeddedHead) -> None:
    cluster.submit("ray-a1", "uses-ray", {"GREETING": "hello"})
    wait_until(lambda: f"worker runs in {sys.executable}, GREETING=hello\n" in cluster.logs("ray-a1"))

    sockets = of_each(ray_head.pid, lambda process: process.net_connections(kind="inet"))
    listening = [s.laddr for s in sockets if s.status == psutil.CONN_LISTEN or s.type == socket.SOCK_DGRAM]
    assert not [address for address in listening if not is_loopback(address.ip)]
    ports = {address.port for address in listening}
    assert {httpx.URL(ray_head.dashboard_url).port, int(ray_head.gcs_address.rpartition(":")[2])} <= ports
    assert len(ports) >= 8, "the sockets of Ray were not seen"

    assert ray_head.token not in " ".join(of_each(ray_head.pid, psutil.Process.cmdline))
    [driver] = [line for line in of_each(ray_head.pid, lambda p: [p.cmdline()]) if "uses-ray" in line[-1:]]
    assert driver == [sys.executable, "-P", "-m", "tests.integration.job_stub", "uses-ray"]
    folders = of_each(ray_head.pid, lambda process: [process.cwd()])
    assert os.getcwd() not in folders, "what lies here could be imported"
    assert str(ray_head.directory) in folders
    assert Path(temporary_folder_of("uses-ray", ray_head)).parent == ray_head.directory, "gone with the head"
    [(_, lives)] = cluster.nodes_of("ray-a1").items()
    assert lives, "its one node"
    stop(cluster, "ray-a1")
    assert "KeyboardInterrupt" in cluster.logs("ray-a1"), "stopped with SIGINT, and given the time to react"
    assert ray_head.token not in cluster.logs("ray-a1")


def temporary_folder_of(job: str, head: EmbeddedHead) -> str:
    """The TMPDIR of the one driver of that job."""
    [folder] = of_each(head.pid, lambda p: [p.environ()["TMPDIR"]] if job in p.cmdline()[-1:] else [])
    return folder


def is_loopback(ip: str) -> bool:
    return ipaddress.ip_address(ip.removeprefix("::ffff:")).is_loopback  # gRPC: IPv4 in IPv6


def test_capacity_is_what_the_head_was_given(cluster: RayCluster) -> None:
    assert cluster.capacity() == Capacity(cpus=2.0, gpus=0.0)


# --- when Ray is not there, or not ours ---


@pytest.mark.parametrize(("token", "code"), [(None, 401), ("0" * 64, 403)])
def test_without_the_token_every_call_is_refused(ray_head: EmbeddedHead, token: str | None, code: int) -> None:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    assert httpx.get(f"{ray_head.dashboard_url}/api/jobs/", headers=headers).status_code == code
    assert_unreachable(stub_cluster(ray_head.dashboard_url, token), f"refused our token.*HTTP {code}")


def test_a_ray_that_is_away_is_unreachable() -> None:
    with socket.socket() as closed:  # bound and not listening: nobody else can take the port, connections are refused
        closed.bind(("127.0.0.1", 0))
        assert_unreachable(stub_cluster(f"http://127.0.0.1:{closed.getsockname()[1]}", None), "No answer from Ray")


def test_a_ray_that_hangs_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.cluster.ray_jobs.TIMEOUT", httpx.Timeout(0.1))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert_unreachable(stub_cluster(f"http://127.0.0.1:{silent.getsockname()[1]}", None), "No answer.*ReadTimeout")


@pytest.mark.parametrize(
    ("code", "body", "sentence"),
    [
        (500, "Traceback (most recent call last)", "answered HTTP 500"),
        (404, "Not Found", "answered HTTP 404"),  # not Ray's "Job … does not exist": find must not say None
        (200, "<html>", "No answer from Ray"),
        (200, '{"error": "?"}', "No answer from Ray"),
    ],
)
def test_somebody_else_at_the_address_is_not_ray(code: int, body: str, sentence: str) -> None:
    class Somebody(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.send_response(code)
            self.end_headers()
            self.wfile.write(body.encode())

        do_GET = do_POST = answer  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Somebody) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        try:
            assert_unreachable(stub_cluster(f"http://127.0.0.1:{server.server_port}", None), sentence)
        finally:
            server.shutdown()


def assert_unreachable(cluster: Cluster, sentence: str) -> None:
    calls: list[Callable[[], object]] = [
        cluster.capacity,
        cluster.overview,
        lambda: cluster.submit("some-a1", "waits", {}),
        lambda: cluster.find("some-a1"),
        lambda: cluster.stop("some-a1"),
        lambda: cluster.logs("some-a1"),
        lambda: cluster.nodes_of("some-a1"),
    ]
    for call in calls:
        with pytest.raises(ClusterUnreachable, match=sentence):
            call()


# --- heads ---


def test_two_heads_started_at_once_are_strangers(owner: Owner, ray_head: EmbeddedHead, cluster: RayCluster) -> None:
    _, url, token, _ = owner.head
    theirs = stub_cluster(url, token)
    assert (cluster.capacity().cpus, theirs.capacity().cpus) == (2.0, 1.0)
    assert httpx.get(f"{url}/api/jobs/", headers={"Authorization": f"Bearer {ray_head.token}"}).status_code == 403
    cluster.submit("ours-a1", "waits", {})
    theirs.submit("theirs-a1", "waits", {})
    assert ("ours-a1" in live(cluster), cluster.find("theirs-a1")) == (True, None)
    assert (live(theirs), theirs.find("ours-a1")) == (["theirs-a1"], None)
    wait_until(lambda: "waits runs" in cluster.logs("ours-a1"))
    wait_until(lambda: "waits runs" in theirs.logs("theirs-a1"))
    stop(cluster, "ours-a1")


def test_nothing_is_left_when_the_owner_is_killed(owner: Owner) -> None:
    pid, url, token, directory = owner.head
    cluster = stub_cluster(url, token)
    cluster.submit("theirs-a1", "waits", {})
    wait_until(lambda: "waits runs" in cluster.logs("theirs-a1"))
    processes = descendants(pid)
    assert "tests.integration.job_stub" in of_each(pid, psutil.Process.cmdline), "the driver is among them"
    assert directory.stat().st_mode & 0o777 == 0o700
    os.kill(owner.process.pid, signal.SIGKILL)
    started = time.monotonic()
    wait_until(lambda: not [p for p in processes if p.is_running()] and not directory.exists(), seconds=20.0)
    print(f"gone after {time.monotonic() - started:.1f} s")


def test_a_head_that_died_is_started_again_at_the_same_address_and_stops_alone(cluster: RayCluster) -> None:
    cluster.submit("beside-a1", "waits", {})
    with EmbeddedHead(num_cpus=1, num_gpus=0) as head:
        ours = OwnCluster(head)
        ours.submit("before-a1", "no-such-job", {})
        url, token = head.dashboard_url, head.token
        first = ours.overview().cluster
        assert first.address is None
        [gcs] = of_each(head.pid, lambda p: [p] if p.name() == "gcs_server" else [])
        gcs.kill()
        wait_until(lambda: has_ended(head))
        assert ours.capacity().cpus == 1.0
        assert (head.dashboard_url, head.token) == (url, token)
        assert ours.find("before-a1") is None  # and so the controller makes the next attempt
        second = ours.overview().cluster
        assert (second.address, second.session != first.session) == (None, True)  # so it knows that Ray is to blame
        assert not head.revive()

        again = stub_cluster(url, token)
        again.submit("after-a1", "waits", {})
        wait_until(lambda: "waits runs" in again.logs("after-a1"))
        processes = descendants(head.pid)
        ours.hold(60.0)
        ours.hold(None)
        assert live(again) == ["after-a1"]
        ours.hold(0.0)  # another service has taken over: nothing of it may go on, and the next look starts it again
        wait_until(lambda: has_ended(head), seconds=20.0)
        assert not head.directory.exists()
        assert not [p for p in processes if p.is_running() and p.pid != head.pid]
        assert ours.capacity().cpus == 1.0
        assert live(ours) == []
        processes = descendants(head.pid)

    # `with` has stopped it, and nothing beside it
    assert not [p for p in processes if p.is_running()]
    assert not head.directory.exists()
    with pytest.raises(ClusterUnreachable):
        live(again)
    head.stop()  # may be repeated
    assert status(cluster, "beside-a1") in LIVE
    stop(cluster, "beside-a1")


def has_ended(head: EmbeddedHead) -> bool:
    """Whether its supervisor has, which is the last."""
    return not psutil.pid_exists(head.pid) or psutil.Process(head.pid).status() == psutil.STATUS_ZOMBIE


def test_a_head_that_cannot_start_shows_what_ray_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.cluster.local_head.OBJECT_STORE_BYTES", "much")
    before = set(psutil.Process().children())  # below them, Ray watches over jobs of the other heads by new processes
    with pytest.raises(
        ClusterUnreachable, match=r"ended while it started(?s:.*)Invalid value for '--object-store-memory'"
    ):
        EmbeddedHead(num_cpus=1)
    assert set(psutil.Process().children()) <= before
