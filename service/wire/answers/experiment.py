"""Studies of the papers as jobs."""

from pydantic import Field

from service.wire.answers.base import Answer
from service.wire.answers.job import Job


class ExperimentFacts(Answer):
    """A study behind figures of a paper."""

    name: str = Field(description="What it is submitted by.", examples=["alpha-sweep"])
    paper: str = Field(description="STPT, large-batch SGD or TVLARS.")
    figures: str = Field(description="Of that paper.")
    description: str = Field(description="What it shows.")
    jobs: list[str] = Field(description="Names of its jobs.")
    scales: list[str] = Field(description="Of `scales`, those that it has.")


class ExperimentList(Answer):
    """The studies that can be run."""

    items: list[ExperimentFacts] = Field(description="The studies that can be run.")
    scales: list[str] = Field(description="Sizes that a study can be run at.")


class ExperimentJobs(Answer):
    """The jobs of a study that was submitted."""

    experiment: str = Field(description="Shared by its jobs: GET /v1/jobs?experiment= lists them.")
    items: list[Job] = Field(description="The jobs, in the order that they train in.")
