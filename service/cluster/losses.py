"""What became of an attempt without an outcome: where it can be, why it ended, and the words for it.

An attempt that was lost for what happened to the cluster or the service must not count against its job. So nothing is
guessed: a reason that does not count needs evidence, and without it the attempt's own processes are to blame.
"""

import re
from enum import StrEnum

from service.cluster.base import ClusterId, Submission
from service.wire.states import EndReason

COLOURS = re.compile(r"\x1b\[[0-9;]*m")
EXCEPTION = re.compile(r"\w[\w.]*(Error|Exception|Exit)\b")  # at the beginning of a line
NODE_LOST = re.compile(r"its node has died|\bNodeDiedError\b")  # Ray's words, of an actor of the job or its driver
DISK_FULL = re.compile(r"\[Errno 28\]|No space left on device|database or disk is full")
PEER_LOST = re.compile(
    r"Connection (closed|reset) by peer|Connection refused|\bNCCL\b|\bActor(Died|Unavailable)Error\b"
)
API_AWAY = re.compile(r"\bworkers\.report\.ApiAway\b")
# Ray's error types where the driver did not end by itself. The others: it did, or the job's environment was no good.
SUPERVISOR_LOST = frozenset(
    {
        "JOB_SUPERVISOR_ACTOR_DIED",
        "JOB_SUPERVISOR_ACTOR_UNKNOWN_FAILURE",
        "JOB_SUPERVISOR_ACTOR_START_FAILURE",
        "JOB_SUPERVISOR_ACTOR_START_TIMEOUT",
        "JOB_SUPERVISOR_ACTOR_UNSCHEDULABLE",
    }
)


class Place(StrEnum):
    """Where an attempt is that the cluster at hand does not know."""

    HERE = "here"  # it was submitted to this very session of this cluster
    GONE = "gone"  # to an earlier session, or to a head that ended with its service
    ELSEWHERE = "elsewhere"  # to a cluster that cannot be seen from here, and may run there still


def place_of(cluster: str | None, here: ClusterId) -> Place:
    """Where an attempt is that was submitted to `cluster` (a ClusterId as text; None: not known) and that the cluster
    `here` does not know."""
    there = None if cluster is None else ClusterId.parse(cluster)
    if there is None or there.session == here.session:
        return Place.HERE
    return Place.GONE if there.address in (None, here.address) else Place.ELSEWHERE


def reason_of_loss(ended: Submission) -> EndReason:
    """Why a submission ended without an outcome, by what Ray says of it."""
    if NODE_LOST.search(ended.message):
        return EndReason.NODE_LOST
    if ended.error_type in SUPERVISOR_LOST:
        return EndReason.SUPERVISOR_LOST
    words = last_words(ended.message)
    if API_AWAY.search(words):
        return EndReason.API_AWAY
    if DISK_FULL.search(words):
        return EndReason.DISK_FULL
    return EndReason.OWN


def lost_touch(ended: Submission) -> bool:
    """Whether a submission ended because one of its processes could not reach another any more: that of a node which is
    gone, perhaps, for Ray notices that only seconds later."""
    return bool(PEER_LOST.search(ended.message))


def last_words(message: str) -> str:
    """Why a driver ended, of Ray's message with the end of its log: the last exception named, else the last line."""
    lines = [line.rstrip() for line in COLOURS.sub("", message).splitlines() if line.strip()]
    named = [line for line in lines if EXCEPTION.match(line)]
    return (named or lines or [""])[-1].strip()[-1000:]
