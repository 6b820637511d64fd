"""Faults on purpose: each is injected many times, and afterwards the invariants of DESIGN.md must hold.

    python -m tests.faults [--quick] [FAULT ...]

`runner.py` has the list of faults and counts what they came to; `invariants.py` says what must hold. A module for each
family of faults says in its docstring what of the service is real there:

    in process    the real store, controller and use cases; Ray and the workers are played (`world.py`)
    training      the real training loop on digits, without a service
    real          services, Ray heads, nodes and workers in processes of their own (`processes.py`)
"""
