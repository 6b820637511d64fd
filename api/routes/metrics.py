"""The route that Prometheus scrapes."""

from typing import Any

from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4
from starlette.responses import Response

from api.scrape import Scraper

router = APIRouter(tags=["health"])

_ANSWER: dict[int | str, dict[str, Any]] = {
    200: {"description": "Metrics as text.", "content": {"text/plain": {"schema": {"type": "string"}}}}
}


@router.get("/metrics", summary="Metrics for Prometheus", response_class=Response, responses=_ANSWER)
async def metrics(request: Request) -> Response:
    """Answers with metrics in the text format of Prometheus: queue, states, epochs, requests. They are of all jobs,
    whoever asks. Where the database or Ray is away a gauge says so, and the answer is 200 all the same."""
    scraper: Scraper = request.app.state.scraper
    return Response(await scraper.scrape(), media_type=CONTENT_TYPE_PLAIN_0_0_4)
