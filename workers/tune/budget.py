"""The budget of a search in training samples."""

from dataclasses import dataclass, field


@dataclass
class Ledger:
    """Training samples of a search: spent, and promised to trials for their next epoch."""

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
        self.spent += samples
        self.promised.pop(key, None)
