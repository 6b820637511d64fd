"""The route that forecasts what a spec would cost."""

from dataclasses import asdict

from fastapi import APIRouter

from api.deps import ServicesOf
from api.problems import documented
from api.specs import SPEC_BODY, RawSpec
from service.algorithms.cost import Cost
from service.jobs import submit as submission
from service.wire import answers

router = APIRouter(prefix="/v1", tags=["experiments"])


@router.post("/plan", summary="Forecast a job", openapi_extra=SPEC_BODY, responses=documented(403, 413, 415, 422))
def plan(services: ServicesOf, raw: RawSpec) -> answers.Plan:
    """Forecasts the iterations and samples that a job with this spec would take. Nothing is stored, nothing starts."""
    found = submission.plan(services.store, raw, services.means())
    return answers.Plan(
        train_samples=found.train_samples,
        iterations_per_epoch=found.iterations_per_epoch,
        runs=[_run(cost) for cost in found.runs],
    )


def _run(cost: Cost) -> answers.RunCost:
    plan = cost.plan
    return answers.RunCost(
        label=cost.label,
        method=cost.method,
        trainings=cost.trainings,
        samples=cost.samples,
        iterations=cost.iterations,
        relative_to_sweep=cost.relative_to_sweep,
        pretrain_iterations=None if plan is None else plan.pretrain_iterations,
        main_train_iterations=None if plan is None else plan.main_train_iterations,
        search_area=[answers.SearchArea(**asdict(area)) for area in cost.search_area],
    )
