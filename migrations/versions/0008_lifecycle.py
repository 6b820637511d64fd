"""Jobs have a priority and a time limit, may be retries, and leave files behind when they are deleted

Revision ID: 0008
Revises: 0009
"""

import sqlalchemy as sa
from alembic import op

revision, down_revision, branch_labels, depends_on = "0008", "0009", None, None


def upgrade() -> None:
    """Add what the service of revision 0009 does not miss: it may run on until it is replaced."""
    op.add_column("jobs", sa.Column("priority", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("jobs", sa.Column("time_limit", sa.Integer(), nullable=True))
    op.add_column("jobs", sa.Column("retry_of", sa.String(40), nullable=True))
    op.add_column("jobs", sa.Column("files_removed_at", sa.DateTime(timezone=True), nullable=True))
    op.create_index("ix_jobs_state_priority_number", "jobs", ["state", "priority", "number"])
    op.create_table(
        "deleted_jobs",
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_deleted_jobs"),
    )


def downgrade() -> None:
    """The files of jobs that were deleted are forgotten; a job that pauses is paused no more, and waits in the queue."""
    op.drop_table("deleted_jobs")
    op.execute(
        "UPDATE jobs SET state = CASE state WHEN 'paused' THEN 'queued' ELSE 'running' END "
        "WHERE state IN ('paused', 'pausing')"
    )
    op.drop_index("ix_jobs_state_priority_number", "jobs")
    for column in ("files_removed_at", "retry_of", "time_limit", "priority"):
        op.drop_column("jobs", column)
