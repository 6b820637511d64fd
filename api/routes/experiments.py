"""The studies behind the papers' figures as jobs."""

import json
import secrets
from typing import Any, get_args

from fastapi import APIRouter
from pydantic import Field, ValidationError

from api import translate
from api.deps import NO_NUL, Services, ServicesOf
from api.problems import documented
from api.specs import RawSpec, read_spec, require_means, train_samples
from service.algorithms.epoch_plan import plan_epoch
from service.errors import FieldError, InvalidInput
from service.jobs import lifecycle as jobs
from service.spec.experiments import EXPERIMENTS, Scale, documents
from service.spec.field_errors import field_errors
from service.spec.job import JobSpec
from service.spec.types import Frozen
from service.wire import answers

router = APIRouter(prefix="/v1", tags=["experiments"])


@router.get("/experiments", summary="The studies behind the papers' figures")
async def list_experiments() -> answers.ExperimentList:
    """What `POST /v1/experiments` can submit, and at which sizes."""
    return answers.ExperimentList(
        items=[
            answers.ExperimentFacts(
                name=experiment.name,
                paper=experiment.paper,
                figures=experiment.figures,
                description=experiment.description,
                jobs=list(experiment.jobs(1, 1)),
                scales=list(experiment.scales),
            )
            for experiment in EXPERIMENTS.values()
        ],
        scales=list(get_args(Scale)),
    )


class ExperimentRequest(Frozen):
    """Which study to run, at which size, and what all its jobs have in common."""

    name: str = Field(
        max_length=100, description="Of the study, as GET /v1/experiments lists it.", examples=["alpha-sweep"]
    )
    scale: Scale = Field("fashion-mnist", description="The paper's own size, or in proportion on smaller data.")
    experiment: str | None = Field(
        None,
        min_length=1,
        max_length=100,
        pattern=NO_NUL,
        description="What its jobs are found by; jobs that have it already are the answer. null: a new one.",
    )
    spec: dict[str, Any] = Field({}, description="Keys of a JobSpec that hold for every job.", examples=[{"epochs": 4}])


# Read raw, as a spec is: the same limit, the same errors.
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ExperimentRequest"}}},
    }
}


@router.post(
    "/experiments",
    status_code=202,
    summary="Submit the jobs of a study",
    openapi_extra=_BODY,
    responses=documented(409, 415, 422),
)
def run_experiment(services: ServicesOf, raw: RawSpec) -> answers.ExperimentJobs:
    """All its jobs are accepted, or none; they train one after another, as the cluster has room."""
    request = _parse(raw)
    experiment = EXPERIMENTS.get(request.name)
    if experiment is None:
        known = ", ".join(EXPERIMENTS)
        raise InvalidInput([FieldError("name", request.name, f"no experiment of this name; choose one of {known}")])
    if request.scale not in experiment.scales:
        known = ", ".join(experiment.scales)
        message = f"not a size of {request.name}; choose one of {known}"
        raise InvalidInput([FieldError("scale", request.scale, message)])
    group = request.experiment or f"{experiment.name}-{secrets.token_hex(4)}"
    first = _specs(services, documents(experiment, request.scale, request.spec, 1, group)[:1])[0]
    iterations = plan_epoch(first, train_samples(services, first)).iterations_per_epoch
    specs = _specs(services, documents(experiment, request.scale, request.spec, iterations, group))
    for spec in specs:
        require_means(services, spec)
    job_ids = jobs.submit_all(services.store, specs, group)
    services.fleet.wake()
    return answers.ExperimentJobs(experiment=group, items=[translate.read_job(services, job_id) for job_id in job_ids])


def _parse(raw: bytes) -> ExperimentRequest:
    try:
        return ExperimentRequest.model_validate_json(raw)
    except ValidationError as error:
        raise InvalidInput(field_errors(error, ExperimentRequest)) from None


def _specs(services: Services, documents: list[dict[str, Any]]) -> list[JobSpec]:
    return [read_spec(services, json.dumps(document).encode()) for document in documents]
