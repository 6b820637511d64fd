"""The routes to API keys: make, list and revoke them, for admins."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Path
from pydantic import AfterValidator, AwareDatetime, Field

from api.bodies import described_body, parsed, raw_body
from api.deps import NO_NUL, ServicesOf
from api.problems import documented
from service.access import keys
from service.spec.names import printing
from service.spec.types import Frozen
from service.store.api_keys import list_api_keys
from service.store.records import ApiKey
from service.wire import answers

MAX_BYTES = 10_000

router = APIRouter(prefix="/v1/keys", tags=["keys"])


class KeyRequest(Frozen):
    """Which API key to make."""

    owner: str = Field(
        min_length=1,
        max_length=100,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]*$",
        description="Whose jobs are seen and submitted by it; all keys of an owner see the same jobs.",
        examples=["alice"],
    )
    name: Annotated[str, AfterValidator(printing)] = Field(
        "", max_length=100, description="Printable text: what the owner calls it."
    )
    scope: answers.Scope = Field("submit", description="read, submit (and read), or admin (everything).")
    expires_at: AwareDatetime | None = Field(None, description="When it ends by itself; null: never.")


@router.post(
    "",
    status_code=201,
    summary="Make an API key",
    openapi_extra=described_body("KeyRequest"),
    responses=documented(413, 415, 422),
)
def create(services: ServicesOf, raw: Annotated[bytes, Depends(raw_body(MAX_BYTES))]) -> answers.NewApiKey:
    """Makes an API key. The answer has its secret, which is told here and never again. With the first key the service
    begins to ask for one."""
    key, text = keys.create_key(services.store, **dict(parsed(KeyRequest, raw)))
    services.gate.forget()
    return answers.NewApiKey(**facts_of(key), key=text)


@router.get("", summary="List API keys", responses=documented(422))
def list_keys(services: ServicesOf) -> answers.ApiKeyList:
    """Lists every API key that was ever made, oldest first, without secrets."""
    with services.store.read() as session:
        found = list_api_keys(session)
    return answers.ApiKeyList(items=[answers.ApiKey(**facts_of(key)) for key in found])


@router.delete("/{key_id}", summary="Revoke an API key", responses=documented(404, 415, 422))
def revoke(
    services: ServicesOf,
    key_id: Annotated[
        str, Path(min_length=1, max_length=100, pattern=NO_NUL, description="Id of the key, or how it begins.")
    ],
) -> answers.ApiKey:
    """Revokes an API key and ends the logins by it, at once. Asking again changes nothing."""
    key = keys.revoke_key(services.store, key_id)
    services.gate.forget()
    return answers.ApiKey(**facts_of(key))


def facts_of(key: ApiKey) -> dict[str, str | datetime | None]:
    """What may be shown of an API key."""
    return {name: value for name, value in vars(key).items() if name != "hash"} | {"prefix": f"{keys.PREFIX}{key.id}"}
