"""The routes for whoever starts and watches the service: is it alive, is it ready.

The service is ready when the database answers and has the newest schema. That Ray cannot be reached is reported and
does not make the service unready: jobs are still accepted and history is still read; the controller submits when Ray is
back. Nor does it that another service leads, for this one serves reads and submissions all the same.
"""

from fastapi import APIRouter, Request
from starlette.responses import Response

from api.deps import ServicesOf
from api.problems import documented, log, problem
from migrations import is_current
from service.store.engine import DatabaseError
from service.wire import answers

router = APIRouter(tags=["health"])


@router.get("/healthz", summary="Is the process up?")
async def healthz() -> answers.Health:
    """Answers 200 as long as the process does; nothing else is looked at."""
    return answers.Health(status="ok")


@router.get("/readyz", summary="Can it work?", response_model=answers.Readiness, responses=documented(503))
def readyz(request: Request, services: ServicesOf) -> answers.Readiness | Response:
    """Answers 200 when the database answers and its schema is the newest, and 503 otherwise. The answer also tells
    whether Ray can be reached, which decides nothing."""
    try:
        trouble = None if is_current(services.store) else "the database's schema is not the newest; migrate it"
    except DatabaseError:
        log.exception("the database does not answer")
        trouble = "the database does not answer; the service's log says why"
    if trouble is not None:
        return problem(request, 503, "not_ready", "Not ready", trouble)
    fleet, capacity = services.fleet, services.fleet.capacity
    ray = answers.Ray(
        dashboard_url=fleet.dashboard_url,
        trouble=fleet.trouble,
        cpus=capacity and capacity.cpus,
        gpus=capacity and capacity.gpus,
    )
    leadership = answers.Leadership(leads=fleet.leadership.leads, url=fleet.leadership.url)
    return answers.Readiness(status="ready", leadership=leadership, ray=ray)
