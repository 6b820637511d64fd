"""Injects faults and checks the invariants after each; the last line is one JSON object.

    python -m tests.faults [--quick] [--seed N] [--count N] [FAULT ...]

FAULT is a name of the list in `tests/faults/runner.py`; all of them by default. Exit code 1: an invariant was broken.
"""

import argparse
import logging
import signal
import sys

from tests.faults.bench import Bench
from tests.faults.runner import FAULTS, counts_of, left, print_summary, run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description="Inject faults, check the invariants.")
    parser.add_argument("--quick", action="store_true", help="a few of each: within 8 minutes on two quiet cores")
    parser.add_argument("--seed", type=int, default=1, help="of all random choices")
    parser.add_argument("--count", type=int, help="injections of each fault")
    parser.add_argument("fault", nargs="*", metavar="FAULT", help="; ".join(fault.name for fault in FAULTS))
    options = parser.parse_args()
    if unknown := set(options.fault) - {fault.name for fault in FAULTS}:
        parser.error(f"no fault of that name: {', '.join(sorted(unknown))}")
    counts = counts_of("quick" if options.quick else "whole", options.fault)
    if options.count is not None:
        counts = dict.fromkeys(counts, options.count)
    with Bench() as bench:
        outcomes = run(counts, options.seed, bench)
        outcomes["what is left"] = left(bench)
    print_summary(outcomes)
    return int(any(one.violations for one in outcomes.values()))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was started is ended, too
    logging.basicConfig(level=logging.CRITICAL)
    sys.exit(main())
