"""The one door for specs: the same rules, each checked once, for jobs, plans, experiments and the trainer without a
service."""

import json

from pydantic import ValidationError

from service.algorithms.epoch_plan import known_train_samples
from service.errors import FieldError, InvalidInput
from service.spec.data import FolderDataset
from service.spec.field_errors import field_errors, unique_keys
from service.spec.job import JobSpec
from service.spec.lr_set import PhasedLrSet
from service.spec.names import wrong_with_name
from service.validation.across_fields import check_across_fields
from service.validation.searches import MAX_PROBES, check_budget, check_search

MAX_SPEC_BYTES = 64 * 1024


def parse_spec(raw: bytes) -> JobSpec:
    """Read the JobSpec in `raw` (JSON) and check it by all rules that need neither files nor a cluster. Raises
    InvalidInput with one entry for each wrong field."""
    _require_unique_keys(raw)
    try:
        spec = JobSpec.model_validate_json(raw)
    except ValidationError as error:
        raise InvalidInput(field_errors(error, JobSpec)) from None
    _check_names(spec)
    check_across_fields(spec)
    _check_phases(spec)
    check_searches(spec, known_train_samples(spec))
    return spec


def _require_unique_keys(raw: bytes) -> None:
    try:
        json.loads(raw, object_pairs_hook=unique_keys)
    except InvalidInput:
        raise
    except (ValueError, RecursionError):
        pass  # no JSON, or nested too deeply: Pydantic says so


def _check_names(spec: JobSpec) -> None:
    """At the door alone: jobs that were accepted before this rule keep their names."""
    names = {"name": spec.name, "experiment": spec.experiment}
    if isinstance(spec.dataset, FolderDataset):
        names["dataset.path"] = spec.dataset.path
    for number, method in enumerate(spec.methods):
        names |= {f"methods[{number}].{place}": name for place, name in method.names().items()}
    wrong = {field: wrong_with_name(name) for field, name in names.items()}
    if errors := [FieldError(field, names[field], message) for field, message in wrong.items() if message]:
        raise InvalidInput(errors)


def _check_phases(spec: JobSpec) -> None:
    """Of the job alone: a trial may have fewer epochs."""
    if isinstance(spec.lr_set, PhasedLrSet) and (late := spec.lr_set.late_phases(spec.epochs, "lr_set")):
        raise InvalidInput(late)


def check_searches(spec: JobSpec, train_samples: int | None) -> None:
    """Raise InvalidInput where the job's budget or one of its searches is not possible; `train_samples` are those that
    are not held out, None where they are not known."""
    errors = [] if train_samples is None else check_budget(spec, train_samples)
    room = MAX_PROBES
    for number, method in enumerate(spec.methods):
        found, room = check_search(spec, f"methods[{number}]", method, train_samples, room)
        errors += found
    if errors:
        raise InvalidInput(errors)
