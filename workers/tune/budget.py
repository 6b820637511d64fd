"""The budget of a search in training samples."""

from dataclasses import dataclass, field


@dataclass
class Ledger:
    """The training samples of a search: how many are spent, and how many promised to trials for their next epoch.

    `budget`: how many there are; None: no end of them.
    """

    budget: int | None
    spent: int = 0
    promised: dict[str, int] = field(default_factory=dict)

    def admit(self, key: str, samples: int) -> bool:
        """Promise a trial an epoch, if there is enough left."""
        others = sum(promised for other, promised in self.promised.items() if other != key)
        if self.budget is not None and self.spent + others + samples > self.budget:
            self.promised.pop(key, None)
            return False
        self.promised[key] = samples
        return True

    def took(self, key: str, samples: int) -> None:
        """A trial has spent so many samples on the epoch that it was promised."""
        self.spent += samples
        self.promised.pop(key, None)
