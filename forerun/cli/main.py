"""The command line `forerun`: its groups, the frequent commands beside them, and how errors end it. Exit codes: 0 done;
1 the service refused, or the job did not succeed; 2 wrong usage; 130 Ctrl-C.

What was asked for goes to standard output, hints and errors to standard error.
"""

import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from forerun.cli import experiment, job, keys, moved, results, service, webhooks
from forerun.cli.shared import example, new_group, say
from forerun.client import DEFAULT_URL, Client
from service.errors import ForerunError


class _Commands(TyperGroup):
    """A group in which an error that is meant for the user ends the command with a sentence instead of a traceback."""

    def main(self, *args: Any, **options: Any) -> NoReturn:
        """Run a command and exit. Wrong usage is told in plain lines: a box would break the paths in them."""
        try:
            sys.exit(super().main(*args, **options | {"standalone_mode": False}))
        except typer.TyperException as error:
            if message := error.format_message():  # none where the help was printed instead
                ctx = getattr(error, "ctx", None)
                help_ = f"{ctx.get_usage()}\nTry '{ctx.command_path} --help' for help.\n\n" if ctx else ""
                say(f"{help_}Error: {message}")
            sys.exit(error.exit_code)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except ForerunError as error:
            say(f"forerun: {error}")
            raise typer.Exit(1) from None


JOBS, GROUPS, SERVICE = "Frequent commands", "Groups of commands", "The service"

app = new_group("Distributed learning-rate search as a service.", _Commands, add_completion=True)
app.command(rich_help_panel=JOBS, epilog=job.SUBMIT_EXAMPLE)(job.submit)
app.command("jobs", rich_help_panel=JOBS, epilog=example("jobs --state running --state queued"))(job.list_jobs)
app.command(rich_help_panel=JOBS)(job.show)
app.command(rich_help_panel=JOBS, epilog=example("plan examples/baselines.yaml"))(service.plan)
app.add_typer(job.app, name="job", rich_help_panel=GROUPS)
app.add_typer(results.app, name="results", rich_help_panel=GROUPS)
app.add_typer(experiment.app, name="experiment", rich_help_panel=GROUPS)
app.add_typer(keys.app, name="keys", rich_help_panel=GROUPS)
app.add_typer(webhooks.app, name="webhooks", rich_help_panel=GROUPS)
app.command(rich_help_panel=SERVICE)(service.serve)
app.command(rich_help_panel=SERVICE, epilog=example("demo examples/fashion-mnist.yaml"))(service.demo)
moved.add_to(app)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"forerun {version('forerun')}")
        raise typer.Exit


@app.callback()
def connect(
    ctx: typer.Context,
    _: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    url: Annotated[str, typer.Option(envvar="FORERUN_URL", help="URL of the service.")] = DEFAULT_URL,
    api_key_file: Annotated[
        Path | None,
        typer.Option(
            envvar="FORERUN_API_KEY_FILE",
            exists=True,
            dir_okay=False,
            help="File with the API key, where the service asks for one. Default: the key is in FORERUN_API_KEY.",
        ),
    ] = None,
) -> None:
    # without a docstring, which would replace the help of the whole
    try:
        api_key = None if api_key_file is None else api_key_file.read_text(errors="replace").strip()
    except OSError as error:
        raise typer.BadParameter(str(error), param_hint="--api-key-file") from None
    try:
        ctx.obj = ctx.with_resource(Client(url, api_key=api_key))
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--url, FORERUN_API_KEY or --api-key-file") from None
