"""The commands `forerun serve`, `forerun demo` and `forerun plan`: the service, alone or for one job, and its forecast
of a job."""

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from forerun import demo as demo_
from forerun.cli.shared import AsJson, SpecFile, client_of, console, print_json
from forerun.cli.spec_file import EXAMPLE, read_spec
from forerun.display import tables
from forerun.program import program


def plan(ctx: typer.Context, file: SpecFile, as_json: AsJson = False) -> None:
    """Forecast what a spec would cost; nothing starts."""
    forecast = client_of(ctx).plan(read_spec(file))
    print_json(forecast) if as_json else typer.echo(tables.plan_table(forecast))


def serve() -> None:
    """Run the service until Ctrl-C, with Ray if it has no cluster to use.

    Its settings are environment variables FORERUN_…, in docs/operations.md.
    """
    demo_.require_server()
    # -P: not a folder `api` that happens to lie here
    os.execv(sys.executable, [sys.executable, "-P", "-m", "api", program()])  # noqa: S606 - our own module


def demo(
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="A job spec, in YAML or JSON.",
            show_default="examples/digits.yaml",
        ),
    ] = None,
    home: Annotated[
        Path, typer.Option(envvar="FORERUN_HOME", file_okay=False, help="Where the demo keeps its files.")
    ] = Path(".forerun/demo"),
) -> None:
    """Start a service, train one job on it, and end it.

    The last line printed is the result as JSON.
    """
    demo_.require_server()
    if file is None and not EXAMPLE.exists():  # it is of the repository, not of the package
        raise typer.BadParameter("name a spec: the examples are in the repository alone", param_hint="FILE")
    typer.echo(json.dumps(demo_.run(read_spec(file or EXAMPLE), home, console())))
