"""The routes for whoever starts and watches the service: is it alive, is it ready.

The service is ready when its database has the newest schema and can be written, and the disk has room for its files.
That Ray cannot be reached is reported and does not make the service unready: jobs are still accepted and history is
still read; the controller submits when Ray is back. Nor does it that another service leads, for this one serves reads
and submissions all the same.
"""

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from api.deps import ServicesOf, is_known
from api.problems import documented, problem
from service.wire import answers

router = APIRouter(tags=["health"])


@router.get("/healthz", summary="Is the process up?")
async def healthz() -> answers.Health:
    """Answers 200 as long as the process does; nothing else is looked at."""
    return answers.Health(status="ok")


@router.get("/readyz", summary="Can it work?", response_model=answers.Readiness, responses=documented(503))
def readyz(
    request: Request, services: ServicesOf, known: Annotated[bool, Depends(is_known)]
) -> answers.Readiness | Response:
    """Answers 200 when the database can be written, its schema is the newest and the disk has room, and 503 with the
    reasons otherwise. The answer also tells whether Ray can be reached, which decides nothing; where the service asks
    for an API key, with one alone."""
    troubles = services.readiness.troubles()
    if troubles:
        return problem(request, 503, "not_ready", "Not ready", "; ".join(troubles))
    if not known:
        return answers.Readiness(status="ready", leadership=None, ray=None)
    fleet, capacity = services.fleet, services.fleet.capacity
    ray = answers.Ray(
        dashboard_url=fleet.dashboard_url,
        trouble=fleet.trouble,
        cpus=capacity and capacity.cpus,
        gpus=capacity and capacity.gpus,
    )
    leadership = answers.Leadership(leads=fleet.leadership.leads, url=fleet.leadership.url)
    return answers.Readiness(status="ready", leadership=leadership, ray=ray)
