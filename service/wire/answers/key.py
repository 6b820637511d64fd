"""Answers about API keys, and about who a request is from."""

from datetime import datetime
from typing import Literal

from pydantic import Field

from service.wire.answers.base import Answer, example

Scope = Literal["read", "submit", "admin"]

_KEY = {
    "id": "3f9c0a51d2e8",
    "prefix": "frn_3f9c0a51d2e8",
    "owner": "alice",
    "name": "laptop",
    "scope": "submit",
    "created_at": "2026-01-01T12:00:00Z",
    "expires_at": "2026-04-01T12:00:00Z",
    "last_used_at": None,
    "revoked_at": None,
}


class ApiKey(Answer):
    """An API key, without the secret that it is used by."""

    model_config = example(_KEY)

    id: str = Field(description="Id of the key.", examples=["3f9c0a51d2e8"])
    prefix: str = Field(description="How the key begins, by which its holder knows it.", examples=["frn_3f9c0a51d2e8"])
    owner: str = Field(description="Whose jobs are seen and submitted by it; all keys of an owner see the same jobs.")
    name: str = Field(description="What the owner calls it; empty: nothing.")
    scope: Scope = Field(
        description="read: see the owner's jobs; submit: submit and change them as well; admin: the jobs of everybody, "
        "and keys."
    )
    created_at: datetime = Field(description="When it was made.")
    expires_at: datetime | None = Field(description="When it ends by itself; null: never.")
    last_used_at: datetime | None = Field(description="When it was last used, to the minute; null: never.")
    revoked_at: datetime | None = Field(description="When it was revoked; null: it was not.")


class NewApiKey(ApiKey):
    """An API key that was just made, with its secret, which is told here and never again."""

    model_config = example(_KEY | {"key": "frn_3f9c0a51d2e8_" + 43 * "x"})

    key: str = Field(
        repr=False, description="The key, to be sent as `Authorization: Bearer`. It is stored nowhere: keep it."
    )


class ApiKeyList(Answer):
    """Every API key that was ever made, oldest first."""

    model_config = example({"items": [_KEY]})

    items: list[ApiKey] = Field(description="The keys, revoked and expired ones included.")


class Login(Answer):
    """Who a request is from."""

    model_config = example({"owner": "alice", "scope": "submit", "keys_required": True})

    owner: str | None = Field(description="Whose jobs it is about; null: nobody's, in a service without keys.")
    scope: Scope = Field(description="What it may do.")
    keys_required: bool = Field(description="Whether the service asks for a key; false: everybody may do everything.")
