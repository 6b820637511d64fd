"""Alembic's environment: works on the connection that `migrations.migrate` hands it, or on FORERUN_DATABASE_URL."""

from typing import Any, Literal

import sqlalchemy as sa
from alembic import context

from service.settings import Settings
from service.store.engine import Store
from service.store.tables import Base, UtcDateTime


def plain_type(kind: str, item: Any, _: Any) -> str | Literal[False]:
    """Render the column type UtcDateTime in a new revision as plain sa.DateTime, for migrations must run when the code
    has moved on. False leaves the rendering of everything else to Alembic."""
    return "sa.DateTime(timezone=True)" if kind == "type" and isinstance(item, UtcDateTime) else False


def run(connection: sa.Connection) -> None:
    context.configure(
        connection=connection, target_metadata=Base.metadata, render_as_batch=True, render_item=plain_type
    )
    with context.begin_transaction():
        context.run_migrations()


connection = context.config.attributes.get("connection")
if connection is not None:
    run(connection)
else:
    store = Store(Settings().database())
    with store.connect() as own:
        run(own)
        own.commit()
