"""The clocks that services look at, in the hands of a test."""

from datetime import UTC, datetime, timedelta

BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)


class Clocks:
    """The clock of the machines and the one of the database, which may jump, and one that does not."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin anew."""
        self.wall = self.database = BEGINNING
        self.steady = 0.0

    def now(self) -> datetime:
        """The time by the machines' clock."""
        return self.wall

    def monotonic(self) -> float:
        """Seconds by the clock that does not jump."""
        return self.steady

    def pass_by(self, seconds: float) -> None:
        """Let so many seconds pass, by every clock."""
        self.steady += seconds
        self.wall += timedelta(seconds=seconds)
        self.database += timedelta(seconds=seconds)
