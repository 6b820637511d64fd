"""Alembic's revisions of the schema, and the two questions that the service has about them."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text

from service.store.engine import Store

MIGRATION_LOCK = 0x464F5245  # any number that nobody else takes: "FORE"


def migrate(store: Store) -> None:
    """Bring the schema of the store's database to the newest revision."""
    config = _alembic_config()
    with store.connect() as connection:
        if connection.dialect.name == "postgresql":  # of two services that start at once, one waits for the other
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})")
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        connection.commit()


def is_current(store: Store) -> bool:
    """Tell whether the schema of the store's database is at the newest revision."""
    with store.connect_to_read() as connection:  # not by Alembic: it would log two lines, and this is asked often
        migrated = inspect(connection).has_table("alembic_version")
        revision = connection.scalar(text("SELECT version_num FROM alembic_version")) if migrated else None
    return revision == ScriptDirectory.from_config(_alembic_config()).get_current_head()


def _alembic_config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    return config
