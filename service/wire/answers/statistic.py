"""Means and spreads over seeds, as cells of answers, and how they go into a table."""

from collections.abc import Iterator
from typing import Any

from pydantic import Field

from service.wire.answers.base import Answer, example


class Statistic(Answer):
    """The mean and the spread of a number over the seeds of a run."""

    model_config = example({"mean": 0.9583, "spread": 0.0049})

    mean: float | None = Field(description="Mean over the seeds; null: one of them has no number.")
    spread: float | None = Field(description="Sample standard deviation over the seeds; null with one seed.")


class Statistics(Answer):
    """A row of a table whose cells are statistics over seeds."""

    def table_rows(self) -> Iterator[dict[str, Any]]:
        """The rows that the answer takes in a table: one, in which each statistic takes two cells, its mean and its
        spread, and lists are left out."""
        cells: dict[str, Any] = {}
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, Statistic):
                cells |= {name: value.mean, f"{name}_spread": value.spread}
            elif not isinstance(value, list):
                cells[name] = value
        yield cells
