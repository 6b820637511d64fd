"""Answers about webhooks: the URLs that are told of events."""

from datetime import datetime

from pydantic import Field

from service.wire.answers.base import Answer, example

_WEBHOOK = {
    "id": "hook-0123456789abcdef",
    "url": "https://hooks.example.com/forerun",
    "events": ["job.failed", "job.succeeded"],
    "created_at": "2026-01-01T00:00:00Z",
    "delivered_at": None,
    "failures": 0,
    "last_failure": None,
    "next_try_at": None,
    "disabled_at": None,
}


class Webhook(Answer):
    """A URL that is told of events, and how telling it goes. Its secret is shown when it is made, and never again."""

    model_config = example(_WEBHOOK)

    id: str = Field(description="Id of the webhook.")
    url: str = Field(description="Where messages are sent.")
    events: list[str] = Field(description="Types of the events that it is told of.")
    created_at: datetime = Field(description="When it was registered, or registered anew.")
    delivered_at: datetime | None = Field(description="When it was told of an event last; null: never yet.")
    failures: int = Field(description="Tries in a row that have failed; 0: all is well.")
    last_failure: str | None = Field(description="Why the last try failed, or why it is disabled; null: it did not.")
    next_try_at: datetime | None = Field(description="When it is tried again; null: it need not wait.")
    disabled_at: datetime | None = Field(
        description="Since when it is told of nothing any more; null: it is. Registering its URL again enables it."
    )


class NewWebhook(Webhook):
    """A webhook that was just registered, with its secret."""

    model_config = example(_WEBHOOK | {"secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"})

    secret: str = Field(description="What its messages are signed with (Standard Webhooks); shown this once.")


class WebhookList(Answer):
    """All webhooks."""

    items: list[Webhook] = Field(description="The webhooks, oldest first.")


class WebhookTest(Answer):
    """What became of a message that was sent to a webhook as a test."""

    model_config = example({"delivered": False, "status": 500, "failure": "it answered with 500"})

    delivered: bool = Field(description="Whether it was taken: the answer was a success.")
    status: int | None = Field(description="HTTP status of the answer; null: there was none.")
    failure: str | None = Field(description="Why it counts as failed; null: it does not.")
