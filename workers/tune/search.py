"""One seed of a search as its driver knows it: which trials may begin and go on, and what is reported of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from service.algorithms.search_space import search_space
from service.spec.job import JobSpec
from service.spec.methods.search import SearchMethod
from service.wire.worker import EpochRecord, TrialProgress, TrialRecord
from workers.records_file import RecordsFile
from workers.tune.budget import Ledger
from workers.tune.searchers import TIME, hyperparameters


class Service(Protocol):
    """What a search asks of the API: the methods of a workers.report.Reporter."""

    @property
    def pause_asked(self) -> bool:
        """Whether the job is to pause behind the newest report."""

    def trial(self, record: TrialRecord) -> None:
        """Hand over the beginning, a change, or the end of a trial."""

    def epoch(self, record: EpochRecord) -> None:
        """Hand over the record of an epoch."""

    def waits_for(self, reason: str | None) -> None:
        """Tell what keeps the search from getting on, in words; None: nothing any more."""

    def progress(self) -> list[TrialProgress]:
        """Every trial of the job that has begun, as the API has it."""


@dataclass
class Search:
    """One seed of a search: its trials, what they may spend, and what has been reported of them."""

    spec: JobSpec
    method: SearchMethod
    seed: int
    samples: int  # of an epoch of the job
    epochs: int  # that a trial trains at most
    most_trials: int
    ledger: Ledger
    recorder: RecordsFile
    service: Service
    numbers: dict[str, int]  # of the trials in SQL, by Tune's name for them
    next_number: int
    lost: set[str] | None = None  # of them, those that Tune knows nothing of after a crash; None until it is asked
    configs: dict[str, dict[str, Any]] = field(default_factory=dict)  # as last reported
    ended: set[str] = field(default_factory=set)
    ends: dict[str, tuple[str, str]] = field(default_factory=dict)  # state and message, known before Tune ends a trial
    is_to_pause: bool = False  # behind Tune's next snapshot
    untold: list[tuple[str, str, str]] = field(default_factory=list)  # ends that Tune's snapshot does not have yet

    def admit_trial(self, key: str) -> bool | None:
        """Whether another trial, called `key` by Tune, may begin; None means not before another one has ended."""
        if len(self.numbers) - len(self.lost or ()) >= self.most_trials:
            return False
        if not self.ledger.admit(key, self.samples):
            return None if self.ledger.promised else False
        self._number(key)
        return True

    def resumed(self, keys: set[str]) -> None:
        """Note that Tune goes on with the trials of these keys; it says so before it asks for another one."""
        if self.lost is None:
            self.lost = set(self.numbers) - keys

    def _number(self, key: str) -> int:
        if key not in self.numbers:
            self.numbers[key], self.next_number = self.next_number, self.next_number + 1
        return self.numbers[key]

    def began(self, key: str, config: Mapping[str, Any]) -> None:
        """Report that a trial begins, or goes on, perhaps with other hyperparameters; what has been reported before is
        not repeated."""
        chosen = self._chosen(config)
        if self.configs.get(key) != chosen:
            self.configs[key] = chosen
            self._tell(key, "running", None)

    def _chosen(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """What a record says of the config of a trial: its hyperparameters, and the optimizer of a study's variant by
        name."""
        chosen = hyperparameters(search_space(self.spec, self.method), config)
        return self.method.reported(chosen, self.spec)

    def knew(self, key: str, config: Mapping[str, Any]) -> None:
        """Note the config of a trial that ended in an earlier attempt, which may not have reported it."""
        self.configs.setdefault(key, self._chosen(config))

    def epoch(self, key: str, result: Mapping[str, Any]) -> None:
        """Record the epoch that a trial has reported (workers.tune.trainable), and hand it over to the API."""
        source = result["source"] and self.numbers.get(result["source"])
        record = EpochRecord.model_validate_json(result["record"]).model_copy(
            update={
                "label": self.method.label,
                "trial": self._number(key),
                "source_trial": source,
                "source_epoch": result["source_epoch"] if source else None,
            }
        )
        self.recorder.epoch(record)
        self.service.epoch(record)

    def may_go_on(self, key: str, result: Mapping[str, Any]) -> bool:
        """Whether a trial may train another epoch after the one it reports; where it may not, the reason is noted."""
        self.ledger.took(key, result["samples"])
        if result["state"]:
            self.ends[key] = result["state"], result["message"]
            return False
        if result[TIME] >= self.epochs:
            self.ends[key] = "completed", ""
            return False
        if not self.ledger.admit(key, self.samples):
            self.ends[key] = "stopped", "the budget is used up"
            return False
        return True

    def end(self, key: str, state: str, message: str) -> None:
        """Note that a trial has ended. It is reported with the next snapshot: what has ended for SQL must not go on
        after a crash."""
        self.ledger.promised.pop(key, None)
        self.untold.append((key, *self.ends.get(key, (state, message))))

    def tell_ends(self) -> None:
        """Report the ends of trials that have not been reported yet."""
        for key, state, message in self.untold:
            if key in self.numbers and key not in self.ended:
                self.ended.add(key)
                self._tell(key, state, message or None)
        self.untold.clear()

    def _tell(self, key: str, state: str, message: str | None) -> None:
        record = TrialRecord(
            label=self.method.label,
            trial=self._number(key),
            key=key,
            seed=self.seed,
            config=self.configs.get(key, {}),
            epochs=self.epochs,
            state=state,  # type: ignore[arg-type]
            message=message,
        )
        self.recorder.trial(record)
        self.service.trial(record)
