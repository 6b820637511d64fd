"""Attempts tell how far they are, and what they wait for

Revision ID: 0012
Revises: 0013
"""

import sqlalchemy as sa
from alembic import op

revision, down_revision, branch_labels, depends_on = "0012", "0013", None, None


def upgrade() -> None:
    """Add what the service of the revision before does not miss: it may run on until it is replaced."""
    op.add_column("attempts", sa.Column("iterations", sa.BigInteger(), nullable=True))
    op.add_column("attempts", sa.Column("progress_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("attempts", sa.Column("waits_for", sa.Text(), nullable=True))


def downgrade() -> None:
    for column in ("waits_for", "progress_at", "iterations"):
        op.drop_column("attempts", column)
