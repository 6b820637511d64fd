"""Training by the learning rates that an earlier job chose, without search: its fields and rules."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from service.errors import FieldError
from service.spec.methods.base import MethodSpec, Schedule

if TYPE_CHECKING:
    from service.spec.job import JobSpec


class ReplayMethod(MethodSpec):
    """One training by the learning rates that an earlier job chose, or by those of a given schedule, without search."""

    name: Literal["replay"] = Field("replay", description="Name of this method.")
    job: str | None = Field(None, max_length=40, description="Id of the job whose schedule to train by.")
    schedule: Schedule | None = Field(None, description="The schedule to train by, in place of a job's.")

    @model_validator(mode="after")
    def _has_a_source(self) -> Self:
        if self.job is None and self.schedule is None:
            raise ValueError("needs the schedule to train by; name a job, or give a schedule")
        return self

    @property
    def replayed_job(self) -> str | None:
        """The id of the job that the method names, until it has that job's schedule; then None."""
        return self.job if self.schedule is None else None

    def schedule_of(self, learning_rates: Sequence[float], spec: "JobSpec", config: Mapping[str, Any]) -> Schedule:
        """The schedule that the method itself trains by."""
        assert self.schedule is not None  # the door has put it in
        return self.schedule

    def errors(self, spec: "JobSpec", field: str) -> list[FieldError]:
        """An error where the schedule has not as many epochs as the job; `field` is the method's place in the spec."""
        rates = spec.epochs if self.schedule is None else len(self.schedule.learning_rates)
        if rates == spec.epochs:
            return []
        message = f"has {rates} epochs, the job {spec.epochs}; set epochs to {rates}"
        return [FieldError(f"{field}.schedule.learning_rates", rates, message)]
