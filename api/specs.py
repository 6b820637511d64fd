"""Specs in the bodies of requests: how they are read, and how the OpenAPI document describes them."""

from typing import Annotated, Any

from fastapi import Depends, Request

from api.deps import read_json
from service.spec.job import JobSpec
from service.validation.door import MAX_SPEC_BYTES


async def _spec_body(request: Request) -> bytes:
    return await read_json(request, MAX_SPEC_BYTES)


RawSpec = Annotated[bytes, Depends(_spec_body)]
# The body is read raw: parse_spec is the one door for specs. So its schema is named here by hand.
SPEC_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {"$ref": "#/components/schemas/JobSpec"},
                "examples": {
                    example.get("name", example["model"]): {"value": example}
                    for example in JobSpec.model_json_schema()["examples"]
                },
            }
        },
    }
}
