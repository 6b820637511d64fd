"""The application under test."""

from functools import cache
from typing import cast

from fastapi import FastAPI

from api.app import create_app
from api.deps import Services


def app_over(services: Services) -> FastAPI:
    """One for all tests, over these services from now on. FastAPI makes the routes of a new application at its first
    request: for each test anew, that took half the time of the API's tests."""
    app = _app()
    app.state.services = services
    return app


@cache
def _app() -> FastAPI:
    return create_app(cast(Services, None))
