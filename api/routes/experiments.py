"""The routes to the experiments behind the figures of the three papers, which run as jobs."""

from typing import Any, get_args

from fastapi import APIRouter
from pydantic import Field

from api import translate
from api.bodies import described_body, parsed
from api.deps import NO_NUL, ServicesOf
from api.problems import documented
from api.specs import RawSpec
from api.terms import Priority, TimeLimit
from service.jobs import experiments
from service.jobs.terms import Terms
from service.spec.experiments import EXPERIMENTS, Scale
from service.spec.types import Frozen
from service.wire import answers

router = APIRouter(prefix="/v1", tags=["experiments"])


@router.get("/experiments", summary="The experiments behind the papers' figures")
async def list_experiments() -> answers.ExperimentList:
    """Lists the experiments that `POST /v1/experiments` can submit, and the sizes that each can be run at."""
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
    """Which experiment to run, at which size, and what all its jobs have in common."""

    name: str = Field(
        max_length=100, description="Name of the experiment, as GET /v1/experiments lists it.", examples=["alpha-sweep"]
    )
    scale: Scale = Field(
        "fashion-mnist", description="Size of the experiment: the paper's own, or in proportion on smaller data."
    )
    experiment: str | None = Field(
        None,
        min_length=1,
        max_length=100,
        pattern=NO_NUL,
        description="Name of the experiment, by which its jobs are found; jobs that have it already are the answer. "
        "null: a new name is made.",
    )
    spec: dict[str, Any] = Field({}, description="Keys of a JobSpec that hold for every job.", examples=[{"epochs": 4}])
    priority: Priority = 0
    time_limit: TimeLimit = None


@router.post(
    "/experiments",
    status_code=202,
    summary="Submit the jobs of an experiment",
    openapi_extra=described_body("ExperimentRequest"),
    responses=documented(403, 409, 413, 415, 422),
)
def run_experiment(services: ServicesOf, raw: RawSpec) -> answers.ExperimentJobs:
    """Submits the jobs of an experiment. All of them are accepted, or none; they train one after another, as the
    cluster has room."""
    request = parsed(ExperimentRequest, raw)
    group, job_ids = experiments.run_experiment(
        services.store,
        request.name,
        request.scale,
        request.spec,
        services.means(),
        request.experiment,
        Terms(request.priority, request.time_limit),
    )
    services.fleet.wake()
    return answers.ExperimentJobs(experiment=group, items=[translate.read_job(services, job_id) for job_id in job_ids])
