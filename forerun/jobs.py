"""A job as the Python client hands it out: what the service said of it, and what can be asked about it."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from service.wire.answers import (
    Answer,
    BatchRamp,
    BranchOfEpoch,
    ComparedRun,
    Epoch,
    Event,
    Job,
    LayerEpoch,
    LrStep,
    StudyRow,
    TrialResult,
)

if TYPE_CHECKING:
    from forerun.client import Client

Row = TypeVar("Row", bound=Answer)


class Rows(list[Row]):
    """A list of answers that is also a table."""

    def to_pandas(self) -> Any:
        """A pandas `DataFrame` with a row for each answer; of layers, a row for each sampled step. A statistic takes
        two columns, its mean and its spread. pandas must be installed."""
        import pandas  # type: ignore[import-untyped]

        return pandas.DataFrame([row for answer in self for row in answer.table_rows()])


class JobHandle:
    """A job on the service that `client` is connected to.

    `answer` is what the service last said of it, by `refresh`, `wait`, `cancel`, or when the handle was made. Every
    other method asks the service anew; all of them raise as those of `Client` do.
    """

    def __init__(self, client: "Client", answer: Job) -> None:
        self._client = client
        self.answer = answer

    def __repr__(self) -> str:
        return f"JobHandle({self.id!r}, state={self.answer.state.value!r})"

    @property
    def id(self) -> str:
        """The id of the job."""
        return self.answer.id

    def refresh(self) -> Job:
        """The job as it is now."""
        self.answer = self._client.read_job(self.id)
        return self.answer

    def wait(self) -> Job:
        """The job, once it has ended: succeeded, failed or cancelled."""
        self.answer = self._client.wait(self.id)
        return self.answer

    def cancel(self) -> Job:
        """Ask for the job's end; it is `cancelled` once Ray has confirmed it. Asking again changes nothing."""
        self.answer = self._client.cancel(self.id)
        return self.answer

    def follow(self, after: int = 0) -> Iterator[Event]:
        """What happens to the job, as it happens, from event number `after` + 1 to that of its terminal state."""
        return self._client.events(self.id, after)

    def logs(self, attempt: int | None = None) -> str:
        """The last 65,536 characters that an attempt of the job printed; of the newest one unless said otherwise."""
        return self._client.logs(self.id, attempt)

    def epochs(self) -> Rows[Epoch]:
        """Every recorded epoch."""
        return self._client.epochs(self.id)

    def branches(self, epoch: int | None = None) -> Rows[BranchOfEpoch]:
        """Every branch of every Pre-train, or of one epoch's."""
        return self._client.branches(self.id, epoch)

    def lr_history(self) -> Rows[LrStep]:
        """The learning rate of every epoch."""
        return self._client.lr_history(self.id)

    def trials(self, *, method: str | None = None, state: str | Sequence[str] = ()) -> Rows[TrialResult]:
        """Every training of every method of the job, or of one method, or in these states."""
        return self._client.trials(self.id, method=method, state=state)

    def comparison(self) -> Rows[ComparedRun]:
        """What each method of the job came to, and what it took."""
        return self._client.comparison(self.id)

    def study(self) -> Rows[StudyRow]:
        """What each variant of the job's study came to at each batch size."""
        return self._client.study(self.id)

    def ramp(self) -> Rows[BatchRamp]:
        """The largest batches of the job's batch ramp, seed by seed."""
        return self._client.ramp(self.id)

    def layers(self, **filters: Any) -> Rows[LayerEpoch]:
        """Telemetry of the job's layers, all of it at once; `filters` as those of `Client.layers`."""
        return Rows(self._client.layers(self.id, **filters))
