"""The use case of an experiment: the jobs behind a paper's figure, submitted at once."""

import json
import secrets
from typing import Any

from service.algorithms.epoch_plan import iterations_per_epoch
from service.errors import FieldError, InvalidInput
from service.jobs.submit import read_spec, submit_jobs
from service.jobs.terms import DEFAULT_TERMS, Terms
from service.spec.experiments import EXPERIMENTS, Experiment, Scale, documents
from service.spec.job import JobSpec
from service.store.engine import Store
from service.validation.means import Means, check_means, look_up_train_samples


def run_experiment(
    db: Store,
    name: str,
    scale: Scale,
    changes: dict[str, Any],
    means: Means,
    group: str | None = None,
    terms: Terms = DEFAULT_TERMS,
) -> tuple[str, list[str]]:
    """Accept every job of the experiment, or none; return (the name that they share, their ids).

    `changes` are keys of a JobSpec that hold for all of them, and `group` is the name that they are to share, in their
    key `experiment`; jobs that have it already are the answer. Raises InvalidInput where the experiment, its scale or a
    spec is wrong, and NotEnoughWorkers where the cluster is too small.
    """
    experiment = _known(name, scale)
    group = group or f"{experiment.name}-{secrets.token_hex(4)}"
    first, *_ = documents(experiment, scale, changes, 1, group)  # alpha is in iterations, which its data decide
    spec = _read(db, first)
    iterations = iterations_per_epoch(spec, look_up_train_samples(spec, means))
    specs = [_read(db, document) for document in documents(experiment, scale, changes, iterations, group)]
    for spec in specs:
        check_means(spec, means)
    return group, submit_jobs(db, specs, group, terms)


def _known(name: str, scale: Scale) -> Experiment:
    experiment = EXPERIMENTS.get(name)
    if experiment is None:
        known = ", ".join(EXPERIMENTS)
        raise InvalidInput([FieldError("name", name, f"no experiment of this name; choose one of {known}")])
    if scale not in experiment.scales:
        known = ", ".join(experiment.scales)
        raise InvalidInput([FieldError("scale", scale, f"not a size of {name}; choose one of {known}")])
    return experiment


def _read(db: Store, document: dict[str, Any]) -> JobSpec:
    return read_spec(db, json.dumps(document).encode())
