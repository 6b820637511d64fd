"""The routes by which a browser is logged in: its page cannot keep an API key where no script could read it."""

from fastapi import APIRouter, Request, Response

from api.deps import COOKIE, CallerOf, ServicesOf
from api.gate import Caller
from api.problems import documented
from service.access import keys
from service.errors import NotAuthenticated
from service.wire import answers

router = APIRouter(prefix="/v1/session", tags=["keys"])

_SET_COOKIE = {"Set-Cookie": {"description": "The session, for this service alone.", "schema": {"type": "string"}}}


@router.post("", summary="Log a browser in", responses={200: {"headers": _SET_COOKIE}, **documented(415, 422)})
def log_in(request: Request, services: ServicesOf, who: CallerOf, response: Response) -> answers.Login:
    """Logs the browser that sends an API key in, for twelve hours at most: a cookie stands for the key from then on,
    which no script can read and no page of another site can send. In a service without keys nothing happens."""
    if who.is_login:
        raise NotAuthenticated("log in with an API key: a session is not prolonged by itself")
    if who.key is not None:
        secret, ends = keys.log_in(services.store, who.key)
        response.set_cookie(
            COOKIE, secret, expires=ends, httponly=True, samesite="strict", secure=request.url.scheme == "https"
        )
    return _login(who)


@router.get("", summary="Who am I?", responses=documented(422))
async def read(who: CallerOf) -> answers.Login:
    """Tells whose jobs the request is about, and what it may do."""
    return _login(who)


@router.delete("", status_code=204, summary="Log a browser out", responses=documented(415, 422))
def log_out(request: Request, services: ServicesOf, response: Response) -> None:
    """Ends the session of the browser, here and there. Where there is none, nothing happens."""
    if secret := request.cookies.get(COOKIE):
        keys.log_out(services.store, secret)
        services.gate.forget()
        response.delete_cookie(COOKIE, httponly=True, samesite="strict", secure=request.url.scheme == "https")


def _login(who: Caller) -> answers.Login:
    return answers.Login.model_validate({"owner": who.owner, "scope": who.scope, "keys_required": who.key is not None})
