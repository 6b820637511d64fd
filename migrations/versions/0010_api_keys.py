"""API keys and logins by them; jobs and idempotency keys have an owner

Revision ID: 0010
Revises: 0008
"""

import sqlalchemy as sa
from alembic import op

revision, down_revision, branch_labels, depends_on = "0010", "0008", None, None


def upgrade() -> None:
    time = sa.DateTime(timezone=True)
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(20), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("owner", sa.String(100), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("scope", sa.String(10), nullable=False),
        sa.Column("created_at", time, nullable=False),
        sa.Column("expires_at", time, nullable=True),
        sa.Column("last_used_at", time, nullable=True),
        sa.Column("revoked_at", time, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_api_keys"),
    )
    op.create_table(
        "login_sessions",
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("key_id", sa.String(20), nullable=False),
        sa.Column("created_at", time, nullable=False),
        sa.Column("expires_at", time, nullable=False),
        sa.ForeignKeyConstraint(
            ["key_id"], ["api_keys.id"], name="fk_login_sessions_key_id_api_keys", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("hash", name="pk_login_sessions"),
    )
    op.create_index("ix_login_sessions_key_id", "login_sessions", ["key_id"])
    op.add_column("jobs", sa.Column("owner", sa.String(100), nullable=True))
    op.create_index("ix_jobs_owner_number", "jobs", ["owner", "number"])
    op.add_column("idempotency_keys", sa.Column("owner", sa.String(100), nullable=False, server_default=sa.text("''")))
    _set_primary_key("owner", "key")


def downgrade() -> None:
    """Idempotency keys of owners go: without their owners they would answer to everybody."""
    op.execute("DELETE FROM idempotency_keys WHERE owner <> ''")
    _set_primary_key("key")
    op.drop_column("idempotency_keys", "owner")
    op.drop_index("ix_jobs_owner_number", "jobs")
    op.drop_column("jobs", "owner")
    op.drop_table("login_sessions")
    op.drop_table("api_keys")


def _set_primary_key(*columns: str) -> None:
    # nothing hangs on these rows, so that SQLite may make the table anew
    with op.batch_alter_table("idempotency_keys") as table:
        table.drop_constraint("pk_idempotency_keys", type_="primary")
        table.create_primary_key("pk_idempotency_keys", list(columns))
