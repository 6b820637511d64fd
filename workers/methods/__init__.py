"""The registry of what trains each method: its builder lies in the module of the method's name.

The module of a training has `build`. That of a search has `make_searcher`, which makes what proposes the trials,
`make_scheduler` where the search stops some early, and `build_trial` where a trial is more than one learning rate under
an lr_schedule. Searches alone need Ray Tune, so a module is imported when it is wanted.
"""

from importlib import import_module
from typing import Any

from service.spec.job import JobSpec
from service.spec.methods import METHODS
from service.spec.methods.base import MethodSpec
from workers.datasets.load import Data
from workers.engine.groups import Workers
from workers.methods.base import Training
from workers.methods.scheduled import build_trial


def builder_of(method: MethodSpec) -> Any:
    """The module of workers.methods that builds trainings, or searchers, of the method."""
    assert method.name in METHODS
    return import_module(f"workers.methods.{method.name.replace('-', '_')}")


def make_training(method: MethodSpec, trial: int, spec: JobSpec, data: Data, workers: Workers) -> Training:
    """Make trial number `trial` (from 1) of a method that does not search. Its model is as the seed of `spec` makes it,
    before its first step."""
    training: Training = builder_of(method).build(method, trial, spec, data, workers)
    return training


def make_trial(method: MethodSpec, spec: JobSpec, data: Data, workers: Workers) -> Training:
    """Make a trial of a search, whose hyperparameters stand in `spec`. Its model is as the seed of `spec` makes it,
    before its first step."""
    training: Training = getattr(builder_of(method), "build_trial", build_trial)(method, spec, data, workers)
    return training
