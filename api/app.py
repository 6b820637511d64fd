"""The application: routes, errors and the OpenAPI document, over the services it is given."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import Depends, FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.responses import HTMLResponse
from starlette.staticfiles import StaticFiles

from api import problems
from api.deps import COOKIE, Services, bound_to_log, caller, known_parameters, of_this_site, scope_needed
from api.event_hub import event_hub
from api.headers import SecurityHeaders, page_policy
from api.hosts import KnownHosts
from api.http_metrics import count_requests
from api.routes import (
    branches,
    catalog,
    comparison,
    decisions,
    epochs,
    events,
    experiments,
    health,
    history,
    jobs,
    keys,
    layers,
    lifecycle,
    logs,
    lr_history,
    metrics,
    plan,
    ramp,
    recommendation,
    schedule,
    selector_replay,
    session,
    study,
    trials,
    webhooks,
    weights,
    worker,
)
from api.scrape import Scraper
from api.sizes import Sizes
from api.terms import TermsChange
from service.spec.job import JobSpec
from service.wire import answers

DESCRIPTION = """
Distributed learning-rate search. Submit a job; Ray trains it on as many workers as it asks for; each epoch short
Pre-trains of several learning rates decide which one Main-train takes; every epoch and every branch can be read here.

Where the service asks for an API key, it is sent as `Authorization: Bearer`; each key sees the jobs of its owner.

Errors are problem documents (RFC 9457, `application/problem+json`) with a stable `code`.

Requests that change something are sent as `application/json`, also where they have no body.
"""
TAGS = [
    {"name": "jobs", "description": "Submit, list, read and cancel jobs; their logs and weights."},
    {"name": "history", "description": "Epochs, branches, learning rates and layers of a job, from SQL."},
    {"name": "comparison", "description": "Methods side by side, and what all jobs together teach."},
    {"name": "events", "description": "Follow what happens to a job, live."},
    {"name": "experiments", "description": "Forecasts, and the papers' experiments."},
    {"name": "catalog", "description": "The names that a spec may use."},
    {"name": "keys", "description": "API keys, and browsers that are logged in by one."},
    {"name": "webhooks", "description": "URLs that are told of events by signed messages."},
    {"name": "health", "description": "Is the service alive, is it ready: for whoever starts and watches it."},
]
ASSETS = "/docs/assets"
ROUTES = (
    jobs,
    lifecycle,
    logs,
    weights,
    epochs,
    branches,
    lr_history,
    decisions,
    schedule,
    selector_replay,
    layers,
    trials,
    comparison,
    study,
    ramp,
    history,
    recommendation,
    events,
    plan,
    experiments,
    catalog,
    keys,
    session,
    webhooks,
    health,
    metrics,
    worker,
)  # in the order of the document


def create_app(services: Services) -> FastAPI:
    """The FastAPI application: every route, error handler and OpenAPI page, over `services`."""
    app = _App(
        title="Forerun",
        version="1",
        description=DESCRIPTION,
        openapi_tags=TAGS,
        redirect_slashes=False,
        docs_url=None,  # below: FastAPI's own pages load their scripts from a CDN
        redoc_url=None,
        dependencies=[Depends(bound_to_log), Depends(of_this_site), Depends(caller), Depends(known_parameters)],
        responses=problems.documented(422, 503),
        lifespan=_lifespan,
    )
    app.state.services = services
    app.add_middleware(KnownHosts)
    app.add_middleware(Sizes)
    problems.install(app)
    app.state.http_metrics = count_requests(app)
    app.add_middleware(SecurityHeaders)  # the last one is around all others
    for module in ROUTES:
        app.include_router(module.router)
    app.add_api_route("/docs", _docs, include_in_schema=False)
    app.mount(ASSETS, StaticFiles(packages=[("fastapi_swagger", "resources")]))
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    services: Services = app.state.services
    app.state.scraper = Scraper(services.store, services.fleet, app.state.http_metrics)
    services.computing.prepare()
    async with event_hub(services.store, services.max_event_streams) as app.state.events:
        yield


async def _docs() -> HTMLResponse:
    page = get_swagger_ui_html(
        openapi_url="/openapi.json",
        title="Forerun",
        swagger_js_url=f"{ASSETS}/swagger-ui-bundle.js",
        swagger_css_url=f"{ASSETS}/swagger-ui.css",
        swagger_favicon_url=f"{ASSETS}/favicon-32x32.png",
    )
    scripts = re.findall(r"<script>(.*?)</script>", bytes(page.body).decode(), re.DOTALL)
    page.headers["Content-Security-Policy"] = page_policy(scripts)
    return page


SCHEMES = {
    "api_key": {"type": "http", "scheme": "bearer", "description": "An API key; a service without keys asks for none."},
    "session": {"type": "apiKey", "in": "cookie", "name": COOKIE, "description": "A browser that is logged in."},
}


def _say_who_may(document: dict[str, Any]) -> None:
    """Write into an OpenAPI document what scope each operation takes, and how it is refused without."""
    document["components"]["securitySchemes"] = SCHEMES
    for path, item in document["paths"].items():
        for method, operation in item.items():
            scope = scope_needed(method.upper(), path)
            operation["security"] = [] if scope is None else [{name: [scope]} for name in SCHEMES]
            if scope is not None:
                refused = problems.documented(401, 403, 429)
                operation["responses"] |= {str(status): answer for status, answer in refused.items()}


class _App(FastAPI):
    def openapi(self) -> dict[str, Any]:
        """FastAPI's OpenAPI document, with the schemas that it cannot see: of bodies that are read raw, of problems, of
        events."""
        if self.openapi_schema is None:
            components = super().openapi()["components"]["schemas"]
            for name, schema in components.items():
                if "examples" in schema:  # FastAPI leaves out what is null
                    schema["examples"] = getattr(answers, name).model_json_schema()["examples"]
            for model in (
                *(JobSpec, answers.Problem, experiments.ExperimentRequest),
                *(TermsChange, keys.KeyRequest, webhooks.WebhookRequest),
            ):
                schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
                components |= schema.pop("$defs", {}) | {model.__name__: schema}
            event = answers.KNOWN_EVENT.json_schema(ref_template="#/components/schemas/{model}")
            components |= event.pop("$defs") | {"Event": event}
            spec = answers.Job.model_fields["spec"].description
            components["Job"]["properties"]["spec"] = {"$ref": "#/components/schemas/JobSpec", "description": spec}
            _say_who_may(super().openapi())
        return super().openapi()
