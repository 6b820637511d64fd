"""The registry of what trains each method: its builder lies in the module of the method's name.

A training's module has `build`. A search's has `make_searcher` (who proposes the trials), `make_scheduler` where it
stops some early, and `build_trial` where a trial is more than one learning rate under an lr_schedule. Searches alone
need Ray Tune, so a module is imported when it is wanted.
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
    """The module that builds the method."""
    assert method.name in METHODS
    return import_module(f"workers.methods.{method.name.replace('-', '_')}")


def make_training(method: MethodSpec, trial: int, spec: JobSpec, data: Data, workers: Workers) -> Training:
    """Trial number `trial`, from 1, of the method: the model as the seed of `spec` makes it, before its first step."""
    training: Training = builder_of(method).build(method, trial, spec, data, workers)
    return training


def make_trial(method: MethodSpec, spec: JobSpec, data: Data, workers: Workers) -> Training:
    """A trial of a search, whose hyperparameters stand in `spec`."""
    training: Training = getattr(builder_of(method), "build_trial", build_trial)(method, spec, data, workers)
    return training
