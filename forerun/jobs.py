"""A job as the Python client hands it out: a handle with what the service said of it, and methods to ask about it."""

from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from forerun.blocking import Facade, blocking, named_as, run
from forerun.rows import Rows
from service.wire.answers import (
    BatchRamp,
    BranchOfEpoch,
    ComparedRun,
    Decisions,
    Epoch,
    Event,
    Job,
    LayerEpoch,
    LrStep,
    StudyRow,
    TrialResult,
)
from service.wire.checkpoint import Which

if TYPE_CHECKING:
    from forerun.calls import Calls

A = TypeVar("A")
P = ParamSpec("P")


class AsyncJobHandle:
    """A job on the service that `calls`, an `AsyncClient`, is connected to.

    `answer` is what the service last said of it, by `refresh`, `wait`, `cancel`, or when the handle was made. Every
    other method asks the service anew; all of them raise as those of `Client` do.
    """

    def __init__(self, calls: "Calls", answer: Job) -> None:
        self._calls = calls
        self.answer = answer

    def __repr__(self) -> str:
        return f"AsyncJobHandle({self.id!r}, state={self.answer.state.value!r})"

    @property
    def id(self) -> str:
        """The id of the job."""
        return self.answer.id

    async def refresh(self) -> Job:
        """Ask the service for the job as it is now, and return it."""
        self.answer = await self._calls.read_job(self.id)
        return self.answer

    async def wait(self) -> Job:
        """Wait until the job has ended (succeeded, failed or cancelled), and return it."""
        self.answer = await self._calls.wait(self.id)
        return self.answer

    async def cancel(self) -> Job:
        """Ask the service to end the job, and return the job as it is then. It is `cancelled` once Ray has confirmed
        its end; asking again changes nothing."""
        self.answer = await self._calls.cancel(self.id)
        return self.answer

    async def pause(self) -> Job:
        """Ask for a pause of the job, and return the job as it is then. It is `paused` behind its next epoch, or at
        once where it waits; asking again changes nothing."""
        self.answer = await self._calls.pause(self.id)
        return self.answer

    async def resume(self) -> Job:
        """Let the paused job go on from its newest checkpoints, and return the job as it is then; asking again changes
        nothing."""
        self.answer = await self._calls.resume(self.id)
        return self.answer

    async def change(self, /, **terms: int | None) -> Job:
        """Change the terms of the job, its `priority` or its `time_limit`, as `Client.change` does."""
        self.answer = await self._calls.change(self.id, **terms)
        return self.answer

    async def delete(self) -> None:
        """Delete the job, which has ended, with all that is recorded of it, its checkpoints and its logs."""
        await self._calls.delete(self.id)

    def follow(self, after: int = 0) -> AsyncGenerator[Event, None]:
        """Yield what happens to the job, as it happens, from event number `after` + 1 to that of its terminal state."""
        return self._calls.events(self.id, after)

    async def logs(self, attempt: int | None = None) -> str:
        """The last 65,536 characters that an attempt of the job has printed; without `attempt`, the newest one."""
        return await self._calls.logs(self.id, attempt)

    async def epochs(self) -> Rows[Epoch]:
        """Every recorded epoch of the job, by run, trial and epoch."""
        return await self._calls.epochs(self.id)

    async def branches(self, epoch: int | None = None) -> Rows[BranchOfEpoch]:
        """Every branch of every Pre-train of the job, or with `epoch` those of the Pre-trains of that epoch."""
        return await self._calls.branches(self.id, epoch)

    async def lr_history(self) -> Rows[LrStep]:
        """The learning rate of every epoch of the job, with the candidates it was chosen from."""
        return await self._calls.lr_history(self.id)

    async def decisions(self, *, label: str | None = None, trial: int = 1) -> Decisions:
        """How each epoch of a training by stpt or autolrs came to its learning rate, as `Client.decisions` has it."""
        return await self._calls.decisions(self.id, label=label, trial=trial)

    async def download_weights(
        self, path: str | Path, *, which: Which = "best", label: str | None = None, trial: int = 1
    ) -> Path:
        """Save the weights of a training of the job as a safetensors file, as `Client.download_weights` does."""
        return await self._calls.download_weights(self.id, path, which=which, label=label, trial=trial)

    async def trials(self, *, label: str | None = None, state: str | Sequence[str] = ()) -> Rows[TrialResult]:
        """Every training of the job, with its hyperparameters, its state and its accuracies; with `label` those of one
        run, with `state` those in one of these states."""
        return await self._calls.trials(self.id, label=label, state=state)

    async def comparison(self) -> Rows[ComparedRun]:
        """The runs of the job side by side: how good the models of each became, and what training them took."""
        return await self._calls.comparison(self.id)

    async def study(self, *, label: str | None = None) -> Rows[StudyRow]:
        """The test accuracy of each variant of the job's study (by default of its first) at each batch size."""
        return await self._calls.study(self.id, label=label)

    async def ramp(self, *, label: str | None = None) -> Rows[BatchRamp]:
        """The largest batch sizes of the job's batch ramp (by default of its first) before validation accuracy fell,
        seed by seed."""
        return await self._calls.ramp(self.id, label=label)

    async def layers(self, /, **filters: Any) -> Rows[LayerEpoch]:
        """The telemetry of the job's layers, all of it at once; `filters` are those of `Client.layers`."""
        return Rows([row async for row in self._calls.layers(self.id, **filters)])


class JobHandle(Facade[AsyncJobHandle]):
    """A job on the service that a `Client` is connected to.

    `answer` is what the service last said of it, by `refresh`, `wait`, `cancel`, or when the handle was made. Every
    other method asks the service anew; all of them raise as those of `Client` do.
    """

    def __repr__(self) -> str:
        return f"JobHandle({self.id!r}, state={self.answer.state.value!r})"

    @property
    def id(self) -> str:
        """The id of the job."""
        return self._inner.id

    @property
    def answer(self) -> Job:
        """What the service last said of the job."""
        return self._inner.answer

    refresh = blocking(AsyncJobHandle.refresh)
    wait = blocking(AsyncJobHandle.wait)
    cancel = blocking(AsyncJobHandle.cancel)
    pause = blocking(AsyncJobHandle.pause)
    resume = blocking(AsyncJobHandle.resume)
    change = blocking(AsyncJobHandle.change)
    delete = blocking(AsyncJobHandle.delete)
    follow = blocking(AsyncJobHandle.follow)
    logs = blocking(AsyncJobHandle.logs)
    epochs = blocking(AsyncJobHandle.epochs)
    branches = blocking(AsyncJobHandle.branches)
    lr_history = blocking(AsyncJobHandle.lr_history)
    decisions = blocking(AsyncJobHandle.decisions)
    download_weights = blocking(AsyncJobHandle.download_weights)
    trials = blocking(AsyncJobHandle.trials)
    comparison = blocking(AsyncJobHandle.comparison)
    study = blocking(AsyncJobHandle.study)
    ramp = blocking(AsyncJobHandle.ramp)
    layers = blocking(AsyncJobHandle.layers)


def handing_out(
    method: Callable[Concatenate[A, P], Coroutine[Any, Any, AsyncJobHandle]],
) -> Callable[Concatenate[Facade[A], P], JobHandle]:
    """Make a plain method of a coroutine that returns a handle, as `forerun.blocking.blocking` does of others; the
    method returns a `JobHandle`."""

    @named_as(method, JobHandle)
    def plain(self: Facade[A], /, *args: P.args, **kwargs: P.kwargs) -> JobHandle:
        return JobHandle(run(method(self._inner, *args, **kwargs)))

    return plain
