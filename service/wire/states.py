"""The states of a job, and which of them may follow which; a terminal state never changes."""

from enum import StrEnum
from typing import Literal


class JobState(StrEnum):
    """The state of a job."""

    QUEUED = "queued"  # accepted; no Ray job yet
    SUBMITTING = "submitting"  # an attempt was made; its Ray job has not reported yet
    RUNNING = "running"  # the Ray job of the live attempt has fetched its spec
    PAUSING = (
        "pausing"  # somebody asked; an epoch, or a search's next report, has yet to come, or Ray to confirm the end
    )
    PAUSED = "paused"  # stands still, with nothing in Ray, until somebody resumes it
    RECOVERING = "recovering"  # the live attempt was lost; the next one is due
    CANCELLING = "cancelling"  # somebody asked; Ray has not yet confirmed the end
    SUCCEEDED = "succeeded"  # every epoch is recorded
    FAILED = "failed"  # ended with a code and a sentence; finished epochs are kept
    CANCELLED = "cancelled"  # ended because somebody asked


_S = JobState
FOLLOWS: dict[JobState, frozenset[JobState]] = {
    _S.QUEUED: frozenset({_S.SUBMITTING, _S.PAUSED, _S.CANCELLED}),
    _S.SUBMITTING: frozenset({_S.RUNNING, _S.PAUSING, _S.RECOVERING, _S.FAILED, _S.CANCELLING}),
    _S.RUNNING: frozenset({_S.SUCCEEDED, _S.PAUSING, _S.RECOVERING, _S.FAILED, _S.CANCELLING}),
    _S.PAUSING: frozenset({_S.PAUSED, _S.SUCCEEDED, _S.FAILED, _S.CANCELLING}),
    _S.PAUSED: frozenset({_S.QUEUED, _S.CANCELLED}),
    _S.RECOVERING: frozenset({_S.SUBMITTING, _S.PAUSED, _S.CANCELLING}),
    _S.CANCELLING: frozenset({_S.CANCELLED}),
    _S.SUCCEEDED: frozenset(),
    _S.FAILED: frozenset(),
    _S.CANCELLED: frozenset(),
}
TERMINAL = frozenset(state for state, after in FOLLOWS.items() if not after)
WAITING = (_S.QUEUED, _S.RECOVERING)  # for an attempt; the controller takes them in their order
HOLDS_WORKERS = (_S.SUBMITTING, _S.RUNNING, _S.PAUSING, _S.CANCELLING)  # of the cluster


# How an attempt ended. One that was lost is tried again, unless it was the last allowed; one that was interrupted ended
# with its service.
AttemptEnd = Literal["succeeded", "failed", "cancelled", "paused", "lost", "interrupted"]


class EndReason(StrEnum):
    """Why an attempt ended without an outcome. Only `OWN` and `HUNG` count toward the attempts that a job is given."""

    OWN = "own"  # its processes ended by themselves, or were stopped, and Ray stood
    CLUSTER_LOST = "cluster_lost"  # the Ray head that it ran under is gone
    NODE_LOST = "node_lost"  # a node that it ran on is gone
    SUPERVISOR_LOST = "supervisor_lost"  # Ray lost the process that watches over the driver, or never started it
    HUNG = "hung"  # it got on no more, though its processes were there, and was ended
    DISK_FULL = "disk_full"  # there was no space left
    API_AWAY = "api_away"  # it had trained, and nobody took its reports
    SERVICE_STOPPED = "service_stopped"  # the service ended in order, and its Ray head with it
