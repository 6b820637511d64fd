"""What a spec would cost, and the studies behind the papers' figures as jobs."""

from dataclasses import asdict
from typing import Annotated, Any, get_args

from fastapi import APIRouter, Depends
from pydantic import Field, ValidationError

from api import schemas
from api.deps import NO_NUL, ServicesOf
from api.problems import documented
from api.routes.jobs import SPEC_BODY, job_answer, spec_body
from service.errors import InvalidInput
from service.jobs import experiments
from service.jobs import submit as submission
from service.spec.experiments import EXPERIMENTS, Scale
from service.spec.field_errors import field_errors
from service.spec.types import Frozen

router = APIRouter(prefix="/v1", tags=["experiments"])


@router.post("/plan", summary="Forecast a job", openapi_extra=SPEC_BODY, responses=documented(415, 422))
def plan(services: ServicesOf, raw: Annotated[bytes, Depends(spec_body)]) -> schemas.Plan:
    """What a spec amounts to in iterations and samples. Nothing is stored, nothing starts."""
    found = submission.plan(services.store, raw, services.means())
    return schemas.Plan(
        train_samples=found.train_samples,
        iterations_per_epoch=found.epoch.iterations_per_epoch,
        pretrain_iterations=found.epoch.pretrain_iterations,
        main_train_iterations=found.epoch.main_train_iterations,
        runs=[schemas.RunCost(**asdict(cost)) for cost in found.runs],
        search_area=[schemas.SearchArea(**asdict(area)) for area in found.search_area],
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
    group, job_ids = experiments.run_experiment(
        services.store, request.name, request.scale, request.spec, services.means(), request.experiment
    )
    services.fleet.wake()
    return schemas.ExperimentJobs(experiment=group, items=[job_answer(services, job_id) for job_id in job_ids])


def _parse(raw: bytes) -> ExperimentRequest:
    try:
        return ExperimentRequest.model_validate_json(raw)
    except ValidationError as error:
        raise InvalidInput(field_errors(error, ExperimentRequest)) from None
