"""Bodies of requests in JSON. They are read raw and parsed here, not by FastAPI: so each has a limit of its own, and
all are refused in the same words as a spec.
"""

from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any, TypeVar

from fastapi import Request
from pydantic import ValidationError

from api.deps import require_json
from service.errors import ContentTooLarge, InvalidInput
from service.spec.field_errors import field_errors
from service.spec.types import Frozen

M = TypeVar("M", bound=Frozen)


def raw_body(limit: int) -> Callable[[Request], Awaitable[bytes]]:
    """A dependency that gives the body of a request as bytes, unparsed.

    It raises UnsupportedMediaType where the body is not sent as application/json, and ContentTooLarge where it has more
    than `limit` bytes; no more than these are read.
    """

    async def read(request: Request) -> bytes:
        require_json(request)
        body = bytearray()
        async with aclosing(request.stream()) as stream:
            async for chunk in stream:
                body += chunk
                if len(body) > limit:
                    size = request.headers.get("content-length", f"more than {limit}")
                    raise ContentTooLarge(f"the body has {size} bytes; it may have {limit} at most; shorten it")
        return bytes(body)

    return read


def parsed(model: type[M], raw: bytes | str) -> M:
    """The document as the model has it. Raises InvalidInput where it is none."""
    try:
        return model.model_validate_json(raw)
    except ValidationError as error:
        raise InvalidInput(field_errors(error, model)) from None


def described_body(model: str, **more: Any) -> dict[str, Any]:
    """How the OpenAPI document describes a body that is read raw: by the name of its schema, and what else is said."""
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{model}"}, **more}}
    return {"requestBody": {"required": True, "content": content}}
