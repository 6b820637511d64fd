"""checkpoints of epochs

Revision: 0002, after: 0001
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    kind = sa.JSON().with_variant(postgresql.JSONB(astext_type=sa.Text()), "postgresql")
    with op.batch_alter_table("epochs") as batch_op:
        batch_op.add_column(sa.Column("checkpoint", kind, nullable=True))


def downgrade() -> None:
    # not batch_alter_table: on SQLite it makes the table anew, and dropping the old one takes all branches with it
    op.drop_column("epochs", "checkpoint")
