"""The route that forecasts what a spec would cost."""

from fastapi import APIRouter
from starlette.responses import Response

from api.deps import ServicesOf
from api.forecast import plan_json
from api.formats import MEDIA_TYPES
from api.problems import documented
from api.specs import SPEC_BODY, RawSpec
from service.jobs import submit as submission
from service.wire import answers

router = APIRouter(prefix="/v1", tags=["experiments"])


@router.post(
    "/plan",
    summary="Forecast a job",
    response_model=answers.Plan,
    openapi_extra=SPEC_BODY,
    responses=documented(403, 413, 415, 422, 503),
)
def plan(services: ServicesOf, raw: RawSpec) -> Response:
    """Forecasts the iterations and samples that a job with this spec would take. Nothing is stored, nothing starts."""
    with services.computing.turn() as turn:
        spec, train_samples = submission.to_forecast(services.store, raw, services.means())
        return Response(turn.run(plan_json, spec, train_samples), media_type=MEDIA_TYPES["json"])
