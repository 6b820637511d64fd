"""The list of faults, and how they are run and counted."""

import json
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from tests.faults import asks, clocks, disks, failpoints, kills, outages, ray_away, services, stale, trainings
from tests.faults.bench import Bench, Inject
from tests.faults.invariants import Kind, Violation


@dataclass(frozen=True)
class Fault:
    """A fault, and how often it is injected: in the whole run, in the quick one, and in the slice of `make test`."""

    name: str
    inject: Inject
    whole: int
    quick: int
    slice: int = 0


FAULTS = (
    Fault("failpoint before commit", failpoints.accept, 100, 10, 4),
    Fault("failpoint behind commit", failpoints.commit, 100, 10, 4),
    Fault("failpoint at submit", failpoints.submit, 100, 10, 4),
    Fault("failpoint at adopt", failpoints.adopt, 100, 10, 4),
    Fault("stale attempt", stale.stale_attempt, 100, 10, 4),
    Fault("cancel", asks.cancel, 50, 20, 10),
    Fault("pause", asks.pause, 50, 20, 10),
    Fault("Ray unreachable", ray_away.ray_unreachable, 50, 6, 2),
    Fault("clock jump", clocks.clock_jump, 50, 6, 2),
    Fault("database locked", outages.locked, 10, 2, 1),
    Fault("database restarted", outages.restarted, 50, 4),
    Fault("checkpoint cut", trainings.truncated, 16, 4, 1),
    Fault("checkpoint bit flipped", trainings.flipped, 200, 10, 1),
    Fault("NaN branch", trainings.nan_branch, 100, 10, 1),
    Fault("service killed", services.killed, 200, 9),
    Fault("one of two services killed", services.one_of_two_killed, 50, 1),
    Fault("worker killed", kills.worker_killed, 100, 2),
    Fault("process stopped", kills.stopped, 30, 1),
    Fault("head killed", kills.head_killed, 30, 1),
    Fault("node lost", kills.node_lost, 20, 1),
    Fault("disk full", disks.full, 20, 1),
)


@dataclass(frozen=True)
class Outcome:
    """What the injections of a fault came to."""

    injected: int
    violations: Sequence[Violation]
    seconds: float


def run(counts: Mapping[str, int], seed: int, bench: Bench) -> dict[str, Outcome]:
    """Inject each fault as often as `counts` says, tell of each on stderr, and return what they came to."""
    outcomes = {}
    for fault in FAULTS:
        count = counts.get(fault.name, 0)
        if count:
            outcomes[fault.name] = _inject(fault, count, seed, bench)
    return outcomes


def _inject(fault: Fault, count: int, seed: int, bench: Bench) -> Outcome:
    began = last = time.monotonic()
    violations: list[Violation] = []
    injected = 0
    try:
        for found in fault.inject(bench, range(count), Random(f"{seed} {fault.name}")):  # noqa: S311
            injected += 1
            violations += found
            now = time.monotonic()
            _tell(f"{fault.name} {injected}/{count}: {len(found)} violations, {now - last:.1f} s")
            for violation in found:
                _tell(f"    {violation}")
            last = now
    except Exception as error:  # the harness itself: the other faults are run all the same
        violations.append(Violation(Kind.LEFT_BEHIND, fault.name, f"{type(error).__name__}: {error}"))
        _tell(f"{fault.name}: {violations[-1]}")
    return Outcome(max(injected, 1), violations, time.monotonic() - began)


def left(bench: Bench) -> Outcome:
    """What is left when all is done: no injection, and violations where it is anything."""
    violations = bench.left()
    for violation in violations:
        _tell(str(violation))
    return Outcome(0, violations, 0.0)


def summary(outcomes: Mapping[str, Outcome]) -> dict[str, Any]:
    """The document of the last line: how many faults were injected, how many violations there were, and of which."""
    return {
        "injected": sum(one.injected for one in outcomes.values()),
        "violations": sum(len(one.violations) for one in outcomes.values()),
        "by_fault": {
            name: {"injected": one.injected, "violations": len(one.violations), "seconds": round(one.seconds, 1)}
            for name, one in outcomes.items()
        },
    }


def counts_of(size: str, names: Collection[str] = ()) -> dict[str, int]:
    """How often each fault, or each of those named, is injected in a run of that size: whole, quick or slice."""
    return {fault.name: getattr(fault, size) for fault in FAULTS if not names or fault.name in names}


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def print_summary(outcomes: Mapping[str, Outcome]) -> None:
    """Print the last line."""
    print(json.dumps(summary(outcomes)), flush=True)
