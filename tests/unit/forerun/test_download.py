from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from service.errors import ForerunError
from tests.unit.forerun.conftest import Connect
from tests.unit.forerun.service_double import Script, Step, Stream, answer, job, problem

REFUSED = httpx.ConnectError("[Errno 111] Connection refused")
CUT = httpx.RemoteProtocolError("Server disconnected without sending a response.")
WEIGHTS = b"\x02\x00\x00\x00\x00\x00\x00\x00{}"
DIGEST = "sha-256=:QRpIUhbkMuzmua+U+jIVTPeaKlbU+BJmuqUAY/RQkr0=:"


def weights(*parts: str | BaseException, digest: str = DIGEST) -> httpx.Response:
    return httpx.Response(200, headers={"Repr-Digest": digest}, stream=Stream(*parts))


def test_weights_are_saved_under_the_path(connect: Connect, tmp_path: Path) -> None:
    script = Script(weights(WEIGHTS.decode()), answer(job()), weights(WEIGHTS.decode()))
    client = connect(script)
    assert client.download_weights("job-1", tmp_path / "net") == tmp_path / "net"
    (tmp_path / "net").write_bytes(b"an older one")
    client.job("job-1").download_weights(str(tmp_path / "net"), which="last", label="sweep", trial=2)
    assert (tmp_path / "net").read_bytes() == WEIGHTS
    assert [path.name for path in tmp_path.iterdir()] == ["net"]
    assert script.asked[0] == "GET /v1/jobs/job-1/weights?which=best&trial=1"
    assert script.asked[2] == "GET /v1/jobs/job-1/weights?which=last&trial=2&label=sweep"


def test_a_download_that_breaks_begins_anew(connect: Connect, tmp_path: Path, pauses: list[float]) -> None:
    script = Script(weights("\x02", CUT), CUT, weights(WEIGHTS.decode()))
    connect(script).download_weights("job-1", tmp_path / "net")
    assert (tmp_path / "net").read_bytes() == WEIGHTS
    assert pauses == [0.5, 1.0]


@pytest.mark.parametrize(
    ("step", "error"),
    [
        (lambda: problem(404, "no_weights", "No weights", "it has no epoch yet"), "it has no epoch yet"),
        (lambda: weights("other"), "SHA-256"),
        (lambda: REFUSED, "no answer"),
    ],
)
def test_a_download_that_fails_leaves_nothing(
    connect: Connect, tmp_path: Path, step: Callable[[], Step], error: str
) -> None:
    with pytest.raises(ForerunError, match=error):
        connect(Script(step())).download_weights("job-1", tmp_path / "net")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_not_a_file_to_write(connect: Connect, tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError, match="name the file to write"):
        connect(Script()).download_weights("job-1", tmp_path)
