"""For whoever starts and watches the service."""

from pydantic import Field

from service.wire.answers.base import Answer


class Health(Answer):
    """The process is up."""

    status: str = Field(description="Always `ok`.", examples=["ok"])


class Ray(Answer):
    """The controller's last look at the cluster."""

    dashboard_url: str = Field(description="Address of Ray's dashboard.")
    trouble: str | None = Field(description="Why Ray cannot be reached at present; null: it can.")
    cpus: float | None = Field(description="null: Ray has not answered yet.")
    gpus: float | None = Field(description="null: Ray has not answered yet.")


class Readiness(Answer):
    """The service can work."""

    status: str = Field(description="Always `ready`; otherwise the answer is a problem.", examples=["ready"])
    ray: Ray = Field(description="What is known of the cluster.")
