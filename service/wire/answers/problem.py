"""Errors as the API answers with them (RFC 9457)."""

from typing import Any

from pydantic import Field

from service.wire.answers.base import Answer


class FieldProblem(Answer):
    """What is wrong with one field of a request."""

    field: str = Field(description="Path of the field as it was sent.", examples=["lr_set.factors[2]"])
    value: Any = Field(description="The value given, shortened when long.", examples=[-0.5])
    message: str = Field(description="What is wrong with it.", examples=["Input should be greater than 0"])


class Problem(Answer):
    """An error of the API as a problem document of RFC 9457."""

    type: str = Field(
        description="The kind of error: a URN that ends in the code.", examples=["urn:forerun:error:invalid_input"]
    )
    title: str = Field(description="The kind of error in words.", examples=["Invalid input"])
    status: int = Field(description="HTTP status of the answer.", examples=[422])
    detail: str = Field(
        description="What went wrong, and often what to do about it.",
        examples=["lr_set.factors[2]: Input should be greater than 0"],
    )
    code: str = Field(description="Code of the error, stable: programs go by it.", examples=["invalid_input"])
    instance: str = Field(description="Path of the request.", examples=["/v1/jobs"])
    request_id: str | None = Field(
        None, description="Id of the request, as in X-Request-ID and in the service's log.", examples=["3f9c0a51d2e8"]
    )
    errors: list[FieldProblem] = Field(
        [], description="With codes invalid_input and no_weights: one entry for each wrong field, 20 at most."
    )
    more_errors: int = Field(0, description="How many wrong fields there are beside those in `errors`.", examples=[0])
