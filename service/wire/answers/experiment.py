"""The papers' experiments, each a group of jobs."""

from pydantic import Field

from service.wire.answers.base import Answer
from service.wire.answers.job import Job


class ExperimentFacts(Answer):
    """An experiment behind figures of a paper, which can be submitted as jobs."""

    name: str = Field(description="What it is submitted by.", examples=["alpha-sweep"])
    paper: str = Field(description="STPT, large-batch SGD or TVLARS.")
    figures: str = Field(description="Of that paper.")
    description: str = Field(description="What it shows.")
    jobs: list[str] = Field(description="Names of its jobs.")
    scales: list[str] = Field(description="Of `scales`, those that it has.")


class ExperimentList(Answer):
    """The experiments that can be run."""

    items: list[ExperimentFacts] = Field(description="The experiments that can be run.")
    scales: list[str] = Field(description="Sizes that an experiment can be run at.")


class ExperimentJobs(Answer):
    """The jobs of an experiment that was submitted."""

    experiment: str = Field(description="Shared by its jobs: GET /v1/jobs?experiment= lists them.")
    items: list[Job] = Field(description="The jobs, in the order that they train in.")
