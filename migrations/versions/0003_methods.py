"""Several methods a job, learning rates under an envelope, audits, experiments

Revision ID: 0003
Revises: 0002
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision, down_revision, branch_labels, depends_on = "0003", "0002", None, None

COLUMNS = (
    ("jobs", sa.Column("experiment", sa.String(100), nullable=False, server_default="")),
    ("jobs", sa.Column("trials", sa.Integer(), nullable=False, server_default="1")),
    ("epochs", sa.Column("first_learning_rate", sa.Double(), nullable=False, server_default="0")),
    ("epochs", sa.Column("last_learning_rate", sa.Double(), nullable=False, server_default="0")),
    ("epochs", sa.Column("rollbacks", sa.Integer(), nullable=False, server_default="0")),
    ("epochs", sa.Column("audit", sa.JSON().with_variant(JSONB(), "postgresql"))),
    ("branches", sa.Column("end_metric", sa.Double())),
)


def upgrade() -> None:
    for table, column in COLUMNS:
        op.add_column(table, column.copy())
    op.create_index("ix_jobs_experiment", "jobs", ["experiment"])
    op.execute("UPDATE epochs SET first_learning_rate = learning_rate, last_learning_rate = learning_rate")


def downgrade() -> None:
    # plain ALTER TABLE: a table that SQLite rebuilds is dropped first, which cascades
    op.drop_index("ix_jobs_experiment", "jobs")
    for table, column in reversed(COLUMNS):
        op.drop_column(table, column.name)
