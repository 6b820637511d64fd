import pytest

from service.wire.states import FOLLOWS, TERMINAL, JobState

# DESIGN.md, "States".
DESIGN = {
    # queued -> submitting -> running -> succeeded | failed
    ("queued", "submitting"),
    ("submitting", "running"),
    ("running", "succeeded"),
    ("running", "failed"),
    # running -> recovering -> submitting
    ("running", "recovering"),
    ("recovering", "submitting"),
    # running -> pausing -> paused -> queued
    ("running", "pausing"),
    ("pausing", "paused"),
    ("paused", "queued"),
    # any non-terminal -> cancelling -> cancelled
    ("submitting", "cancelling"),
    ("running", "cancelling"),
    ("pausing", "cancelling"),
    ("recovering", "cancelling"),
    ("cancelling", "cancelled"),
}
BEYOND_DESIGN = {
    ("queued", "cancelled"),  # instead of queued -> cancelling: there is no Ray job to wait for
    ("paused", "cancelled"),
    ("queued", "paused"),  # and none whose workers must end before it is paused
    ("recovering", "paused"),
    ("submitting", "pausing"),  # its workers have not begun: they are stopped
    ("pausing", "succeeded"),  # the last epoch came instead
    ("pausing", "failed"),
    ("submitting", "recovering"),  # the Ray job died before it fetched its spec
    ("submitting", "failed"),  # and that was the last attempt
}


def test_the_diagram_is_that_of_the_design():
    assert {(str(a), str(b)) for a, after in FOLLOWS.items() for b in after} == DESIGN | BEYOND_DESIGN


def test_every_state_stands_in_the_diagram():
    assert set(FOLLOWS) == set(JobState)


def test_terminal_states_have_no_successor_and_the_others_have():
    assert {JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED} == TERMINAL
    for state in JobState:
        assert bool(FOLLOWS[state]) == (state not in TERMINAL)


def reachable(start: JobState) -> set[JobState]:
    seen, todo = {start}, [start]
    while todo:
        new = FOLLOWS[todo.pop()] - seen
        seen |= new
        todo += new
    return seen


def test_every_state_can_be_reached_from_queued():
    assert reachable(JobState.QUEUED) == set(JobState)


@pytest.mark.parametrize("state", [state for state in JobState if state not in TERMINAL])
def test_every_job_can_still_end_and_be_cancelled(state):
    assert JobState.CANCELLED in reachable(state)
    assert state not in FOLLOWS[state]
