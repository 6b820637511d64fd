"""The time by the database's own clock: what several services must agree on is measured by it, not by their machines'
clocks."""

from datetime import UTC, datetime

from sqlalchemy import func, literal_column, select

from service.store.engine import Session

_OF_POSTGRESQL = select(func.clock_timestamp())
_OF_SQLITE = select(func.strftime(literal_column("'%Y-%m-%d %H:%M:%f'"), literal_column("'now'")))


def database_time(session: Session) -> datetime:
    """The present time by the database's clock, aware and in UTC; not the time at which the transaction began, which
    may have waited for a lock since."""
    if session.get_bind().dialect.name == "postgresql":
        present: datetime | None = session.scalar(_OF_POSTGRESQL)
        assert present is not None
        return present.astimezone(UTC)
    text = session.scalar(_OF_SQLITE)
    assert text is not None
    return datetime.fromisoformat(text).replace(tzinfo=UTC)
