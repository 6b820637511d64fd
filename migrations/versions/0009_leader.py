"""A service leads by a lease; attempts know their cluster and why they ended; jobs wait for their next attempt

Revision ID: 0009
Revises: 0007
"""

import sqlalchemy as sa
from alembic import op

revision, down_revision, branch_labels, depends_on = "0009", "0007", None, None

WITHOUT_LOG = sa.text("ended_at IS NOT NULL AND log IS NULL")


def upgrade() -> None:
    leader = op.create_table(
        "leader",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("holder", sa.String(100), nullable=True),
        sa.Column("fence", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("url", sa.String(300), nullable=False, server_default=sa.text("''")),
        sa.Column("cluster", sa.String(300), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("standby_seen_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_leader"),
    )
    op.bulk_insert(leader, [{"id": 1}])
    op.add_column("attempts", sa.Column("reason", sa.String(30), nullable=True))
    op.add_column("attempts", sa.Column("cluster", sa.String(300), nullable=True))
    op.create_index(
        "ix_attempts_without_log", "attempts", ["id"], sqlite_where=WITHOUT_LOG, postgresql_where=WITHOUT_LOG
    )
    op.add_column("jobs", sa.Column("not_before", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    op.drop_column("jobs", "not_before")
    op.drop_index("ix_attempts_without_log", "attempts")
    op.drop_column("attempts", "cluster")
    op.drop_column("attempts", "reason")
    op.drop_table("leader")
