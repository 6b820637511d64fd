"""lost attempts and logs

Revision: 0004, after: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("attempts", sa.Column("lost", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column("attempts", sa.Column("log", sa.Text(), nullable=True))
    op.execute("UPDATE attempts SET log = '' WHERE ended_at IS NOT NULL")  # what is gone need not be asked for


def downgrade() -> None:
    op.drop_column("attempts", "log")
    op.drop_column("attempts", "lost")
