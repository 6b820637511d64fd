"""What a spec would cost, and the studies behind the paper's figures as jobs."""

import json
import secrets
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field

from api import schemas
from api.deps import NO_NUL, ServicesOf
from api.problems import documented
from api.routes.jobs import SPEC_BODY, job_answer, require_means, spec_body
from service import jobs
from service.errors import FieldError, InvalidInput
from service.experiments import EXPERIMENTS, PRESET_OF, Scale, documents
from service.plan import count_train_samples, forecast, plan_epoch, search_area

router = APIRouter(prefix="/v1", tags=["experiments"])


@router.post("/plan", summary="Forecast a job", openapi_extra=SPEC_BODY, responses=documented(415, 422))
def plan(services: ServicesOf, raw: Annotated[bytes, Depends(spec_body)]) -> schemas.Plan:
    """What a spec amounts to in iterations and samples. Nothing is stored, nothing starts."""
    spec = jobs.parse_spec(raw)
    if services.data_is_local:
        jobs.check_dataset(spec, services.data_dir)
    samples = count_train_samples(spec.dataset, services.data_dir)
    epoch = plan_epoch(spec, samples)
    return schemas.Plan(
        train_samples=samples,
        iterations_per_epoch=epoch.iterations_per_epoch,
        pretrain_iterations=epoch.pretrain_iterations,
        main_train_iterations=epoch.main_train_iterations,
        runs=[schemas.RunCost(**asdict(cost)) for cost in forecast(spec, samples)],
        search_area=[schemas.SearchArea(**asdict(area)) for area in search_area(spec)],
    )


@router.get("/experiments", summary="The studies behind the paper's figures")
async def list_experiments() -> schemas.ExperimentList:
    return schemas.ExperimentList(
        items=[
            schemas.ExperimentFacts(
                name=experiment.name,
                figures=experiment.figures,
                description=experiment.description,
                jobs=list(experiment.jobs(1)),
            )
            for experiment in EXPERIMENTS.values()
        ],
        scales=list(PRESET_OF),
    )


class ExperimentRequest(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

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


@router.post("/experiments", status_code=202, summary="Submit the jobs of a study", responses=documented(409, 415, 422))
def run_experiment(services: ServicesOf, request: ExperimentRequest) -> schemas.ExperimentJobs:
    """All its jobs are accepted, or none; they train one after another, as the cluster has room."""
    experiment = EXPERIMENTS.get(request.name)
    if experiment is None:
        known = ", ".join(EXPERIMENTS)
        raise InvalidInput([FieldError("name", request.name, f"no experiment of this name; choose one of {known}")])
    group = request.experiment or f"{experiment.name}-{secrets.token_hex(4)}"
    iterations = _iterations(services, documents(experiment, request.scale, request.spec, 1, group)[0])
    specs = [
        jobs.parse_spec(json.dumps(document).encode())
        for document in documents(experiment, request.scale, request.spec, iterations, group)
    ]
    for spec in specs:
        require_means(services, spec)
    job_ids = jobs.submit_all(services.store, specs, group)
    services.fleet.wake()
    return schemas.ExperimentJobs(experiment=group, items=[job_answer(services, job_id) for job_id in job_ids])


def _iterations(services: ServicesOf, document: dict[str, Any]) -> int:
    """Of an epoch of the study's jobs."""
    spec = jobs.parse_spec(json.dumps(document).encode())
    if services.data_is_local:
        jobs.check_dataset(spec, services.data_dir)
    return plan_epoch(spec, count_train_samples(spec.dataset, services.data_dir)).iterations_per_epoch
