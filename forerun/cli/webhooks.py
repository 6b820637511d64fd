"""The commands `forerun webhooks`: URLs that are told of events."""

from typing import Annotated, cast

import typer

from forerun.cli.shared import AsJson, client_of, command_line, example, new_group, print_json, say
from forerun.display import tables
from service.wire.webhooks import EVENT_TYPES, EventType

app = new_group("Webhooks: URLs that are told of events by signed messages.")

WebhookId = Annotated[
    str, typer.Argument(metavar="WEBHOOK", help="Id of a webhook, as `forerun webhooks list` has it.")
]


@app.command(epilog=example("webhooks create https://hooks.example.com/forerun --event job.failed"))
def create(
    ctx: typer.Context,
    url: Annotated[
        str, typer.Argument(metavar="URL", help="Where messages are sent, on a host that the service allows.")
    ],
    event: Annotated[
        list[str] | None,
        typer.Option(
            metavar="EVENT",
            help=f"Events to be told of, once for each: {', '.join(EVENT_TYPES)}. Default: the ends of jobs.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Register a webhook, and print its secret: it is shown this once. A URL that has one already gets a new one."""
    events = cast(list[EventType], event or ["job.succeeded", "job.failed", "job.cancelled"])
    made = client_of(ctx).create_webhook(url, events)
    print_json(made) if as_json else typer.echo(made.secret)
    say(f"This is the only time that the secret is shown. Try it: {command_line(ctx, 'webhooks', 'test', made.id)}")


@app.command("list")
def list_webhooks(ctx: typer.Context, as_json: AsJson = False) -> None:
    """List the webhooks, and how telling them goes."""
    found = client_of(ctx).webhooks()
    print_json(found) if as_json else typer.echo(tables.webhook_table(found))


@app.command(epilog=example("webhooks delete hook-0123456789abcdef"))
def delete(ctx: typer.Context, webhook_id: WebhookId) -> None:
    """Delete a webhook: it is told of nothing any more."""
    client_of(ctx).delete_webhook(webhook_id)


@app.command("test", epilog=example("webhooks test hook-0123456789abcdef"))
def send_test(ctx: typer.Context, webhook_id: WebhookId, as_json: AsJson = False) -> None:
    """Send a test to a webhook, and tell what became of it. Exit code 1: it was not taken."""
    result = client_of(ctx).test_webhook(webhook_id)
    if as_json:
        print_json(result)
    else:
        typer.echo(f"delivered ({result.status})" if result.delivered else f"not delivered: {result.failure}")
    if not result.delivered:
        raise typer.Exit(1)
