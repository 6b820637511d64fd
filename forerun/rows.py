"""Lists of answers that can be turned into tables."""

from typing import Any, TypeVar

from service.wire.answers import Answer

Row = TypeVar("Row", bound=Answer)


class Rows(list[Row]):
    """A list of answers that can be turned into a table."""

    def to_pandas(self) -> Any:
        """A pandas `DataFrame` with a row for each answer; of layers, a row for each sampled step. A statistic takes
        two columns, its mean and its spread. pandas must be installed."""
        import pandas  # type: ignore[import-untyped]

        return pandas.DataFrame([row for answer in self for row in answer.table_rows()])
