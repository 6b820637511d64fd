"""The routes to webhooks: URLs that are told of events."""

from typing import Annotated
from uuid import uuid4

from fastapi import APIRouter, Depends, Path
from fastapi.concurrency import run_in_threadpool
from pydantic import Field

from api.bodies import described_body, parsed, raw_body
from api.deps import NO_NUL, ServicesOf
from api.problems import documented
from service.errors import FieldError, InvalidInput
from service.jobs import webhooks
from service.jobs.lifecycle import now
from service.spec.types import Frozen
from service.webhooks.sender import Message
from service.wire import answers
from service.wire.webhooks import EventType

MAX_BODY_BYTES = 8 * 1024

router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"])

WebhookId = Annotated[
    str,
    Path(
        min_length=1, max_length=100, pattern=NO_NUL, description="Id of a webhook.", examples=["hook-0123456789abcdef"]
    ),
]


class WebhookRequest(Frozen):
    """Which URL is to be told of which events."""

    url: str = Field(
        max_length=1000,
        pattern=NO_NUL,
        description="Where messages are sent, on a host that FORERUN_WEBHOOK_HOSTS names.",
        examples=["https://hooks.example.com/forerun"],
    )
    events: list[EventType] = Field(
        min_length=1,
        max_length=100,
        description="Types of the events that it is told of.",
        examples=[["job.succeeded", "job.failed"]],
    )


@router.post(
    "",
    status_code=201,
    summary="Register a webhook",
    openapi_extra=described_body("WebhookRequest"),
    responses=documented(403, 413, 415, 422),
)
def register(services: ServicesOf, raw: Annotated[bytes, Depends(raw_body(MAX_BODY_BYTES))]) -> answers.NewWebhook:
    """Registers a URL that is told of events of all jobs from now on, by signed messages (Standard Webhooks). A URL has
    one webhook: registering it again gives it a new secret and these events, and enables it."""
    request = parsed(WebhookRequest, raw)
    wrong = services.sender.allowed.problem_with(request.url)
    if wrong is not None:
        raise InvalidInput([FieldError("url", request.url, wrong)])
    return answers.NewWebhook.model_validate(webhooks.register(services.store, request.url, request.events))


@router.get("", summary="List the webhooks")
def list_webhooks(services: ServicesOf) -> answers.WebhookList:
    """Lists all webhooks, without their secrets, and how telling them goes."""
    found = webhooks.list_webhooks(services.store)
    return answers.WebhookList(items=[answers.Webhook.model_validate(one) for one in found])


@router.delete("/{webhook_id}", status_code=204, summary="Delete a webhook", responses=documented(403, 415, 422))
def delete(services: ServicesOf, webhook_id: WebhookId) -> None:
    """Deletes a webhook, with what it was still to be told. One that is not there stays so."""
    webhooks.delete(services.store, webhook_id)


@router.post("/{webhook_id}/test", summary="Send a test to a webhook", responses=documented(403, 404, 415, 422))
async def test(services: ServicesOf, webhook_id: WebhookId) -> answers.WebhookTest:
    """Sends a message of the type `webhook.test` at once, to a disabled webhook too, and answers with what became of
    it. It is not tried again, and changes nothing."""
    webhook = await run_in_threadpool(webhooks.get_webhook, services.store, webhook_id)
    message = Message(f"test-{uuid4().hex}", "webhook.test", now(), {"webhook_id": webhook.id})
    sent = await services.sender.send(webhook.url, webhook.secret, message)
    return answers.WebhookTest(delivered=sent.failure is None, status=sent.status, failure=sent.failure)
