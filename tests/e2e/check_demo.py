"""`forerun demo` as a user runs it: its last line, and that nothing is left running. `.ci/run` calls it.

python -m tests.e2e.check_demo COMMAND...
"""

import json
import subprocess
import sys

import psutil

from tests.processes import wait_until

HOME = ".forerun/demo"


def _strays(before: set[int]) -> list[psutil.Process]:
    return [p for p in psutil.process_iter() if p.pid not in before and HOME in _environment_of(p)]


def _environment_of(process: psutil.Process) -> str:
    try:
        return str(process.environ())
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return ""


def main(command: list[str]) -> None:
    before = {process.pid for process in psutil.process_iter()}
    demo = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=900)
    print(demo.stdout, end="")
    *rows, last = demo.stdout.splitlines()
    result = json.loads(last)
    assert set(result) == {"job_id", "test_accuracy", "lr_history", "seconds"}
    assert result["test_accuracy"] > 0.9
    assert len(result["lr_history"]) >= 8
    assert result["job_id"] in "\n".join(rows)
    wait_until(lambda: not _strays(before), 10)


if __name__ == "__main__":
    main(sys.argv[1:])
