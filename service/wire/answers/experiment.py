"""Answers about the studies behind the papers' figures, and the jobs that they become."""

from pydantic import Field

from service.wire.answers.base import Answer
from service.wire.answers.job import Job


class ExperimentFacts(Answer):
    """A study behind figures of a paper, which can be submitted as jobs."""

    name: str = Field(description="Name that the study is submitted by.", examples=["alpha-sweep"])
    paper: str = Field(
        description="Paper that the study is from: STPT (Yamada et al.), large-batch SGD (Signer & Barbier) or "
        "TVLARS (Do et al.)."
    )
    figures: str = Field(description="Figures or tables of that paper.")
    description: str = Field(description="What the study shows.")
    jobs: list[str] = Field(description="Names of its jobs.")
    scales: list[str] = Field(description="Sizes that the study can be run at.")


class ExperimentList(Answer):
    """The studies of the papers that can be run, and at which sizes."""

    items: list[ExperimentFacts] = Field(description="The studies that can be run.")
    scales: list[str] = Field(description="All sizes that some study can be run at.")


class ExperimentJobs(Answer):
    """The jobs that a submitted study has become, and the name that they share."""

    experiment: str = Field(description="Name that its jobs share: GET /v1/jobs?experiment= lists them.")
    items: list[Job] = Field(description="The jobs, in the order that they train in.")
