"""Answers about the experiments behind the papers' figures, and the jobs that they become."""

from pydantic import Field

from service.wire.answers.base import Answer
from service.wire.answers.job import Job


class ExperimentFacts(Answer):
    """An experiment behind figures of a paper, which can be submitted as jobs."""

    name: str = Field(description="Name that the experiment is submitted by.", examples=["alpha-sweep"])
    paper: str = Field(
        description="Paper that the experiment is from: STPT (Yamada et al.), large-batch SGD (Signer & Barbier) or "
        "TVLARS (Do et al.)."
    )
    figures: str = Field(description="Figures or tables of that paper.")
    description: str = Field(description="What the experiment shows.")
    jobs: list[str] = Field(description="Names of its jobs.")
    scales: list[str] = Field(description="Sizes that the experiment can be run at.")


class ExperimentList(Answer):
    """The experiments of the papers that can be run, and at which sizes."""

    items: list[ExperimentFacts] = Field(description="The experiments that can be run.")
    scales: list[str] = Field(description="All sizes that some experiment can be run at.")


class ExperimentJobs(Answer):
    """The jobs that a submitted experiment has become, and the name that they share."""

    experiment: str = Field(description="Name that its jobs share: GET /v1/jobs?experiment= lists them.")
    items: list[Job] = Field(description="The jobs, in the order that they train in.")
