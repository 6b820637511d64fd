"""Runs have labels; settings of STPT stand in its method, and lr_schedule is one word

Revision ID: 0007
Revises: 0006
"""

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from alembic import op

from migrations.renames import renamed_config, renamed_event, renamed_spec

revision, down_revision, branch_labels, depends_on = "0007", "0006", None, None

ROWS = 500  # at a time: a service has millions of events


def upgrade() -> None:
    # SQLite changes a constraint by making the table anew, and what hangs on its rows goes with the old one: the column
    # is renamed in its place, and the constraint goes with it.
    op.execute("ALTER TABLE runs RENAME COLUMN method TO label")
    op.add_column("runs", sa.Column("method", sa.String(50), nullable=False, server_default=""))
    op.execute("UPDATE runs SET method = CASE label WHEN 'schedule' THEN 'fixed' ELSE label END")
    _rewrite("jobs", "number", "spec", renamed_spec)
    _rewrite("trials", "id", "config", renamed_config)
    _rewrite("events", "id", "data", renamed_event)


def downgrade() -> None:
    """The schema alone: stored documents keep today's words. A run is called by its label again."""
    op.drop_column("runs", "method")
    op.execute("ALTER TABLE runs RENAME COLUMN label TO method")


def _rewrite(table: str, key: str, column: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Put each document of the column into today's words."""
    connection = op.get_bind()
    json_type = sa.JSON().with_variant(sa.dialects.postgresql.JSONB(), "postgresql")
    rows = sa.table(table, sa.column(key), sa.column(column, json_type))
    place, document = rows.c[key], rows.c[column]
    last = 0
    while found := connection.execute(sa.select(place, document).where(place > last).order_by(place).limit(ROWS)).all():
        for number, old in found:
            if old is not None and (new := change(old)) != old:
                connection.execute(sa.update(rows).where(place == number).values({column: new}))
            last = number
