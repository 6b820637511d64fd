"""What a spec would cost, and the studies behind the papers' figures as jobs."""

import json
import secrets
from dataclasses import asdict
from typing import Annotated, Any, get_args

from fastapi import APIRouter, Depends
from pydantic import Field, ValidationError

from api import schemas
from api.deps import NO_NUL, ServicesOf
from api.problems import documented
from api.routes.jobs import SPEC_BODY, job_answer, read_spec, require_means, spec_body
from service.algorithms.cost import forecast, search_area
from service.algorithms.epoch_plan import count_train_samples, plan_epoch
from service.errors import DatasetMissing, FieldError, InvalidInput
from service.jobs import lifecycle as jobs
from service.spec.experiments import EXPERIMENTS, Scale, documents
from service.spec.field_errors import field_errors
from service.spec.job import JobSpec
from service.spec.types import Frozen

router = APIRouter(prefix="/v1", tags=["experiments"])


@router.post("/plan", summary="Forecast a job", openapi_extra=SPEC_BODY, responses=documented(415, 422))
def plan(services: ServicesOf, raw: Annotated[bytes, Depends(spec_body)]) -> schemas.Plan:
    """What a spec amounts to in iterations and samples. Nothing is stored, nothing starts."""
    spec = read_spec(services, raw)
    samples = _train_samples(services, spec)
    epoch = plan_epoch(spec, samples)
    return schemas.Plan(
        train_samples=samples,
        iterations_per_epoch=epoch.iterations_per_epoch,
        pretrain_iterations=epoch.pretrain_iterations,
        main_train_iterations=epoch.main_train_iterations,
        runs=[schemas.RunCost(**asdict(cost)) for cost in forecast(spec, samples)],
        search_area=[schemas.SearchArea(**asdict(area)) for area in search_area(spec)],
    )


@router.get("/experiments", summary="The studies behind the papers' figures")
async def list_experiments() -> schemas.ExperimentList:
    return schemas.ExperimentList(
        items=[
            schemas.ExperimentFacts(
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
    name: str = Field(max_length=100, examples=["alpha-sweep"])
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
def run_experiment(services: ServicesOf, raw: Annotated[bytes, Depends(spec_body)]) -> schemas.ExperimentJobs:
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
    iterations = plan_epoch(first, _train_samples(services, first)).iterations_per_epoch
    specs = _specs(services, documents(experiment, request.scale, request.spec, iterations, group))
    for spec in specs:
        require_means(services, spec)
    job_ids = jobs.submit_all(services.store, specs, group)
    services.fleet.wake()
    return schemas.ExperimentJobs(experiment=group, items=[job_answer(services, job_id) for job_id in job_ids])


def _parse(raw: bytes) -> ExperimentRequest:
    try:
        return ExperimentRequest.model_validate_json(raw)
    except ValidationError as error:
        raise InvalidInput(field_errors(error, ExperimentRequest)) from None


def _specs(services: ServicesOf, documents: list[dict[str, Any]]) -> list[JobSpec]:
    return [read_spec(services, json.dumps(document).encode()) for document in documents]


def _train_samples(services: ServicesOf, spec: JobSpec) -> int:
    if services.data_is_local:
        jobs.check_dataset(spec, services.data_dir)
    try:
        return count_train_samples(spec.dataset, services.data_dir)
    except DatasetMissing as error:  # data that only the workers see
        raise InvalidInput([FieldError("dataset", spec.dataset.name, error.detail)]) from None
