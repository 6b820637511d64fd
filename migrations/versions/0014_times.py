"""The seconds that attempts have run, and what attempts of deleted jobs took

Revision ID: 0014
Revises: 0012
"""

import sqlalchemy as sa
from alembic import op

revision, down_revision, branch_labels, depends_on = "0014", "0012", None, None


def upgrade() -> None:
    op.add_column("attempts", sa.Column("seconds", sa.Double()))
    time = sa.DateTime(timezone=True)
    op.create_table(
        "usage_of_deleted_jobs",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("owner", sa.String(100), nullable=False),
        sa.Column("workers", sa.Integer(), nullable=False),
        sa.Column("device", sa.String(10), nullable=False),
        sa.Column("created_at", time, nullable=False),
        sa.Column("ended_at", time, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_usage_of_deleted_jobs")),
    )
    op.create_index(op.f("ix_usage_of_deleted_jobs_ended_at"), "usage_of_deleted_jobs", ["ended_at"])


def downgrade() -> None:
    op.drop_table("usage_of_deleted_jobs")
    op.drop_column("attempts", "seconds")
