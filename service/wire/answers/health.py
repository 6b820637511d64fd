"""Answers for whoever starts and watches the service: is it up, can it work, is Ray there."""

from pydantic import Field

from service.wire.answers.base import Answer


class Health(Answer):
    """The answer that the process of the service is up."""

    status: str = Field(description="Always `ok`.", examples=["ok"])


class Ray(Answer):
    """What the controller saw when it last looked at the Ray cluster."""

    dashboard_url: str = Field(description="Address of Ray's dashboard.")
    trouble: str | None = Field(description="Why Ray cannot be reached at present; null: it can.")
    cpus: float | None = Field(description="CPUs of the cluster; null: Ray has not answered yet.")
    gpus: float | None = Field(description="GPUs of the cluster; null: Ray has not answered yet.")


class Leadership(Answer):
    """Which of the services on this database leads, and so submits jobs to Ray. The others serve the API, and take over
    when it ends."""

    leads: bool = Field(description="Whether this service leads.", examples=[True])
    url: str | None = Field(description="Address of the service that leads; null: none is known to.")


class Readiness(Answer):
    """The answer that the service can work: its database answers, and the schema is current."""

    status: str = Field(description="Always `ready`; otherwise the answer is a problem.", examples=["ready"])
    leadership: Leadership | None = Field(
        description="Which service leads; null: asked without the API key that it takes."
    )
    ray: Ray | None = Field(description="What is known of the cluster; null: asked without the API key that it takes.")
