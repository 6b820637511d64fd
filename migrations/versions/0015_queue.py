"""The index of the queue has all that decides who is next

Revision ID: 0015
Revises: 0014
"""

from alembic import op

revision, down_revision, branch_labels, depends_on = "0015", "0014", None, None


def upgrade() -> None:
    op.create_index("ix_jobs_queue", "jobs", ["state", "priority", "number", "not_before", "workers", "owner"])
    op.drop_index("ix_jobs_state_priority_number", "jobs")


def downgrade() -> None:
    op.create_index("ix_jobs_state_priority_number", "jobs", ["state", "priority", "number"])
    op.drop_index("ix_jobs_queue", "jobs")
