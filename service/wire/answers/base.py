"""The base of every answer of the API. Times are ISO 8601 in UTC; a metric that was not finite is null."""

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ConfigDict

JOB_ID = "job-0123456789abcdef"  # of the examples


class Answer(BaseModel):
    """A document that the API answers with: read-only, and lenient to fields that a newer service sends."""

    model_config = ConfigDict(frozen=True, from_attributes=True, extra="ignore")

    def table_rows(self) -> Iterator[dict[str, Any]]:
        """The rows that the answer takes in a table, such as a CSV file: one, with a cell for each field."""
        yield self.model_dump()


def example(*documents: dict[str, Any]) -> ConfigDict:
    """The pydantic configuration of a model whose JSON schema has these documents as examples."""
    return ConfigDict(json_schema_extra={"examples": list(documents)})
