"""Specs in the bodies of requests: how they are read, and how the OpenAPI document describes them."""

from typing import Annotated

from fastapi import Depends

from api.bodies import described_body, raw_body
from service.spec.job import JobSpec
from service.validation.door import MAX_SPEC_BYTES

RawSpec = Annotated[bytes, Depends(raw_body(MAX_SPEC_BYTES))]
# The body is read raw: parse_spec is the one door for specs. So its schema is named here by hand.
SPEC_BODY = described_body(
    "JobSpec",
    examples={
        example.get("name", example["model"]): {"value": example} for example in JobSpec.model_json_schema()["examples"]
    },
)
