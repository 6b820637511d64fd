"""Alembic's revisions of the schema, and the questions that the service has about them."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

from service.store.engine import Store

MIGRATION_LOCK = 0x464F5245  # any number that nobody else takes: "FORE"


def migrate(store: Store) -> None:
    """Bring the schema of the store's database to the newest revision. Raises ValueError where it is at a revision that
    this version of Forerun does not know."""
    config = _alembic_config()
    with store.connect() as connection:
        if connection.dialect.name == "postgresql":  # of two services that start at once, one waits for the other
            connection.exec_driver_sql("SET LOCAL lock_timeout = 0")  # however long that takes
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})")
        revision, known = _revision(connection), ScriptDirectory.from_config(config)
        if revision not in {None, *(one.revision for one in known.walk_revisions())}:
            newest = known.get_current_head()
            raise ValueError(
                f"its schema has the revision {revision}, and this version of Forerun knows those up to {newest}; start "
                "the newer version that made it, or restore a copy from before"
            )
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        connection.commit()


def is_current(store: Store) -> bool:
    """Tell whether the schema of the store's database is at the newest revision."""
    with store.connect_to_read() as connection:
        revision = _revision(connection)
    return revision == ScriptDirectory.from_config(_alembic_config()).get_current_head()


def is_empty(store: Store) -> bool:
    """Tell whether the store's database has no table of Forerun's: nothing was ever migrated there."""
    with store.connect_to_read() as connection:
        return _revision(connection) is None


def _revision(connection: Connection) -> str | None:
    """The revision of the schema; None while there is none. Not by Alembic: it would log two lines, and this is asked
    often."""
    migrated = inspect(connection).has_table("alembic_version")
    revision: str | None = connection.scalar(text("SELECT version_num FROM alembic_version")) if migrated else None
    return revision


def _alembic_config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    return config
