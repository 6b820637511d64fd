import pytest

from tests.unit.forerun.cli.command_line import Forerun


@pytest.mark.parametrize(
    ("old", "new"),
    [
        *(("watch job-1", "job watch"), ("cancel job-1 --json", "job cancel"), ("logs --help", "job logs")),
        *(("lr-history job-1 --format csv", "results lr-history"), ("schedule job-1", "results schedule")),
        *(("selector-replay job-1 --selector greedy", "results selector-replay"), ("trials", "results trials")),
        *(("comparison job-1", "results comparison"), ("study --experiment e", "results study")),
        *(("ramp job-1", "results ramp"), ("layers job-1", "results layers"), ("history", "results history")),
        *(("recommendation lenet5 digits", "results recommendation"), ("experiment mix", "experiment run mix")),
    ],
)
def test_a_command_that_moved_names_the_new_one(forerun: Forerun, old: str, new: str) -> None:
    result = forerun(*old.split())
    assert (result.exit_code, result.stdout, forerun.script.requests) == (2, "", [])
    assert new in result.stderr
