"""The commands `forerun keys`: make, list and revoke API keys, over HTTP or in the database of this machine's
service."""

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from forerun import demo
from forerun.cli.shared import AsJson, client_of, example, new_group, print_json, say
from forerun.display import tables
from service.wire.answers import ApiKey, ApiKeyList, NewApiKey, Scope

app = new_group("API keys: make, list and revoke them, and see whose this one is.")

Local = Annotated[
    bool,
    typer.Option(
        "--local",
        help="Directly in the database of this machine's service (FORERUN_HOME or FORERUN_DATABASE_URL), which is how "
        "the first key is made. Without: over HTTP, with the API key of an admin.",
    ),
]
KeyId = Annotated[str, typer.Argument(metavar="KEY", help="Id of a key, or how it begins: frn_3f9c0a51d2e8.")]


@app.command(epilog=example("keys create alice --days 90", "keys create root --scope admin --local"))
def create(
    ctx: typer.Context,
    owner: Annotated[str, typer.Argument(metavar="OWNER", help="Whose it is; all keys of an owner see the same jobs.")],
    name: Annotated[str, typer.Option(help="What the owner calls it.")] = "",
    scope: Annotated[Scope, typer.Option(help="read; submit, with read; or admin, with everything.")] = "submit",
    days: Annotated[int | None, typer.Option(min=1, help="Days after which it ends. Default: never.")] = None,
    local: Local = False,
    as_json: AsJson = False,
) -> None:
    """Make an API key, and print it: it is shown this once."""
    ends = None if days is None else datetime.now(UTC) + timedelta(days=days)
    if local:
        document = {"owner": owner, "name": name, "scope": scope, "expires_at": ends and ends.isoformat()}
        made = NewApiKey.model_validate(_in_the_database("create", document))
    else:
        made = client_of(ctx).create_key(owner, name=name, scope=scope, expires_at=ends)
    print_json(made) if as_json else typer.echo(made.key)
    say("This is the only time that the key is shown. Its owner gives it as FORERUN_API_KEY, or by --api-key-file.")


@app.command("list")
def list_keys(ctx: typer.Context, local: Local = False, as_json: AsJson = False) -> None:
    """List every API key that was ever made, without its secret."""
    if local:
        found: list[ApiKey] = ApiKeyList.model_validate(_in_the_database("list", {})).items
    else:
        found = list(client_of(ctx).keys())
    print_json(found) if as_json else typer.echo(tables.key_table(found))


@app.command(epilog=example("keys revoke frn_3f9c0a51d2e8"))
def revoke(ctx: typer.Context, key_id: KeyId, local: Local = False, as_json: AsJson = False) -> None:
    """Revoke an API key: it is refused from now on, and who is logged in by it is logged out."""
    if local:
        key = ApiKey.model_validate(_in_the_database("revoke", {"id": key_id}))
    else:
        key = client_of(ctx).revoke_key(key_id)
    print_json(key) if as_json else typer.echo(f"{key.prefix} of {key.owner} revoked")


@app.command()
def whoami(ctx: typer.Context, as_json: AsJson = False) -> None:
    """Print whose jobs this API key sees, and what it may do."""
    me = client_of(ctx).whoami()
    asked = "" if me.keys_required else " (the service asks for no key: everybody may do everything)"
    print_json(me) if as_json else typer.echo(f"{me.owner or 'nobody'}, scope {me.scope}{asked}")


def _in_the_database(action: str, document: dict[str, Any]) -> Any:
    """What the service's own program answers, which has the database: the command line alone knows no SQL."""
    demo.require_server()
    command = [
        sys.executable,
        "-P",
        "-m",
        "api.local_keys",
        action,
        json.dumps(document),
    ]  # -P: no `api` that lies here
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False)  # noqa: S603 - our own module
    if done.returncode != 0:  # it has said why
        raise typer.Exit(done.returncode)
    return json.loads(done.stdout)
