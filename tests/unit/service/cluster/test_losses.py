"""Where an attempt can be, and why it ended, by what Ray says."""

import pytest

from service.cluster.base import ClusterId, RayJobStatus, Submission
from service.cluster.losses import Place, last_words, lost_touch, place_of, reason_of_loss
from service.wire.states import EndReason

HERE = ClusterId("http://head:8265", "session-2")
OWN = ClusterId(None, "session-2")


def test_an_id_is_read_as_it_is_written():
    for cluster, text in ((HERE, "http://head:8265 session-2"), (OWN, "own-head session-2")):
        assert str(cluster) == text
        assert ClusterId.parse(text) == cluster


@pytest.mark.parametrize(
    ("cluster", "here", "place"),
    [
        (None, HERE, Place.HERE),  # from before it was kept
        ("http://head:8265 session-2", HERE, Place.HERE),
        ("http://other-name:8265 session-2", HERE, Place.HERE),  # the same under another address
        ("http://head:8265 session-1", HERE, Place.GONE),
        ("own-head session-1", HERE, Place.GONE),
        ("own-head session-1", OWN, Place.GONE),
        ("own-head session-2", OWN, Place.HERE),
        ("http://other:8265 session-1", HERE, Place.ELSEWHERE),
        ("http://head:8265 session-1", OWN, Place.ELSEWHERE),
    ],
)
def test_where_an_attempt_is(cluster, here, place):
    assert place_of(cluster, here) is place


NODE = "ray.exceptions.ActorDiedError: The actor died.\nThe actor died because its node has died. Node Id: 1f"


@pytest.mark.parametrize(
    ("message", "error_type", "reason"),
    [
        ("exit code 1:\nRuntimeError: no", "JOB_ENTRYPOINT_COMMAND_ERROR", EndReason.OWN),
        ("exit code -9", "JOB_ENTRYPOINT_COMMAND_ERROR", EndReason.OWN),
        ("no such file", "JOB_ENTRYPOINT_COMMAND_START_ERROR", EndReason.OWN),
        ("runtime_env setup failed: no", "RUNTIME_ENV_SETUP_FAILURE", EndReason.OWN),
        ("", None, EndReason.OWN),
        ("Job supervisor actor died: OOM", "JOB_SUPERVISOR_ACTOR_DIED", EndReason.SUPERVISOR_LOST),
        ("Unexpected error occurred: ", "JOB_SUPERVISOR_ACTOR_UNKNOWN_FAILURE", EndReason.SUPERVISOR_LOST),
        ("failed to get job supervisor.", "JOB_SUPERVISOR_ACTOR_START_FAILURE", EndReason.SUPERVISOR_LOST),
        ("not within 900 seconds", "JOB_SUPERVISOR_ACTOR_START_TIMEOUT", EndReason.SUPERVISOR_LOST),
        ("could not be scheduled", "JOB_SUPERVISOR_ACTOR_UNSCHEDULABLE", EndReason.SUPERVISOR_LOST),
        (f"Job supervisor actor died: {NODE}", "JOB_SUPERVISOR_ACTOR_DIED", EndReason.NODE_LOST),
        (f"exit code 2:\n{NODE}", "JOB_ENTRYPOINT_COMMAND_ERROR", EndReason.NODE_LOST),
        ("workers.report.ApiAway: no answer from http://api", "JOB_ENTRYPOINT_COMMAND_ERROR", EndReason.API_AWAY),
        ("OSError: [Errno 28] No space left on device: '/x'", "JOB_ENTRYPOINT_COMMAND_ERROR", EndReason.DISK_FULL),
        (
            "WARNING No space left on device, tried again\nValueError: no",
            "JOB_ENTRYPOINT_COMMAND_ERROR",
            EndReason.OWN,
        ),
    ],
)
def test_why_an_attempt_was_lost(message, error_type, reason):
    assert reason_of_loss(Submission("job-1-a1", RayJobStatus.FAILED, message, error_type)) is reason


@pytest.mark.parametrize(
    ("message", "lost"),
    [
        ("RuntimeError: [gloo/transport/tcp/pair.cc:545] Read error [10.0.0.2]: Connection reset by peer", True),
        ("RuntimeError: [gloo/transport/tcp/pair.cc:538] Connection closed by peer [10.0.0.2]", True),
        ("torch.distributed.DistBackendError: NCCL error in: ProcessGroupNCCL.cpp:3690, remote process exited", True),
        ("ray.exceptions.ActorUnavailableError: The actor is temporarily unavailable", True),
        ("ray.exceptions.ActorDiedError: The actor died unexpectedly", True),
        ("ValueError: the peer review was no good", False),
        ("", False),
    ],
)
def test_whether_a_process_lost_touch_with_another(message, lost):
    assert lost_touch(Submission("job-1-a1", RayJobStatus.FAILED, message)) is lost


def test_the_last_words_are_the_last_exception_named_else_the_last_line():
    assert last_words("one\n\x1b[31mValueError: no\x1b[0m\n  at x\n") == "ValueError: no"
    assert last_words("one\ntwo\n\n") == "two"
    assert last_words("") == ""
