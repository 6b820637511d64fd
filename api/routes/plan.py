"""What a spec would cost."""

from dataclasses import asdict

from fastapi import APIRouter

from api.deps import ServicesOf
from api.problems import documented
from api.specs import SPEC_BODY, RawSpec
from service.jobs import submit as submission
from service.wire import answers

router = APIRouter(prefix="/v1", tags=["experiments"])


@router.post("/plan", summary="Forecast a job", openapi_extra=SPEC_BODY, responses=documented(415, 422))
def plan(services: ServicesOf, raw: RawSpec) -> answers.Plan:
    """What a spec amounts to in iterations and samples. Nothing is stored, nothing starts."""
    found = submission.plan(services.store, raw, services.means())
    return answers.Plan(
        train_samples=found.train_samples,
        iterations_per_epoch=found.epoch.iterations_per_epoch,
        pretrain_iterations=found.epoch.pretrain_iterations,
        main_train_iterations=found.epoch.main_train_iterations,
        runs=[answers.RunCost(**asdict(cost)) for cost in found.runs],
        search_area=[answers.SearchArea(**asdict(area)) for area in found.search_area],
    )
