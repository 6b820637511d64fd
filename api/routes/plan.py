"""What a spec would cost."""

from dataclasses import asdict

from fastapi import APIRouter

from api.deps import ServicesOf
from api.problems import documented
from api.specs import SPEC_BODY, RawSpec, read_spec, train_samples
from service.algorithms.cost import forecast, search_area
from service.algorithms.epoch_plan import plan_epoch
from service.wire import answers

router = APIRouter(prefix="/v1", tags=["experiments"])


@router.post("/plan", summary="Forecast a job", openapi_extra=SPEC_BODY, responses=documented(415, 422))
def plan(services: ServicesOf, raw: RawSpec) -> answers.Plan:
    """What a spec amounts to in iterations and samples. Nothing is stored, nothing starts."""
    spec = read_spec(services, raw)
    samples = train_samples(services, spec)
    epoch = plan_epoch(spec, samples)
    return answers.Plan(
        train_samples=samples,
        iterations_per_epoch=epoch.iterations_per_epoch,
        pretrain_iterations=epoch.pretrain_iterations,
        main_train_iterations=epoch.main_train_iterations,
        runs=[answers.RunCost(**asdict(cost)) for cost in forecast(spec, samples)],
        search_area=[answers.SearchArea(**asdict(area)) for area in search_area(spec)],
    )
