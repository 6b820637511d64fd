"""The budget of a search, counted in training samples."""

from dataclasses import dataclass, field


@dataclass
class Ledger:
    """The training samples of a search: how many are spent, and how many are promised to trials for their next epoch.

    `budget` is how many there are; None means that there is no limit.
    """

    budget: int | None
    spent: int = 0
    promised: dict[str, int] = field(default_factory=dict)

    def admit(self, key: str, samples: int) -> bool:
        """Promise the trial `key` an epoch of so many samples, and return True; return False where there are not enough
        left."""
        others = sum(promised for other, promised in self.promised.items() if other != key)
        if self.budget is not None and self.spent + others + samples > self.budget:
            self.promised.pop(key, None)
            return False
        self.promised[key] = samples
        return True

    def took(self, key: str, samples: int) -> None:
        """Note that the trial `key` has spent so many samples on the epoch that it was promised."""
        self.spent += samples
        self.promised.pop(key, None)
