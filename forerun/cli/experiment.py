"""The commands `forerun experiment`: the papers' experiments, run as groups of jobs."""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from forerun.cli.shared import (
    AsJson,
    Priority,
    TimeLimit,
    client_of,
    command_line,
    example,
    new_group,
    print_json,
    say,
)
from forerun.cli.spec_file import read_spec
from forerun.display import tables
from forerun.program import program


class _Experiments(TyperGroup):
    """A group that answers the name of an experiment, where a command should stand, with the command that runs it."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if self.get_command(ctx, args[0]) is None:
            command = f"{program()} experiment run {args[0]}"
            say(f"forerun: `experiment` has no command {args[0]}; to run the experiment of this name: `{command}`")
            raise typer.Exit(2)
        return super().resolve_command(ctx, args)


app = new_group("Experiments of the papers: list them, run one.", _Experiments)


@app.command("list")
def list_experiments(ctx: typer.Context, as_json: AsJson = False) -> None:
    """List the experiments that can be run."""
    known = client_of(ctx).experiments()
    print_json(known) if as_json else typer.echo(tables.experiment_table(known))


@app.command(epilog=example("experiment run lr-sets --scale fashion-mnist --spec more.yaml"))
def run(
    ctx: typer.Context,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name of the experiment, as `forerun experiment list` has it.")
    ],
    scale: Annotated[str, typer.Option(help="Size: paper, fashion-mnist or cifar10.")] = "fashion-mnist",
    file: Annotated[
        Path | None,
        typer.Option("--spec", exists=True, dir_okay=False, help="File with keys of a spec that hold for every job."),
    ] = None,
    priority: Priority = None,
    time_limit: TimeLimit = None,
    as_json: AsJson = False,
) -> None:
    """Run an experiment of a paper: submit its jobs."""
    keys = read_spec(file) if file else {}
    submitted = client_of(ctx).run_experiment(name, scale, priority=priority or 0, time_limit=time_limit, **keys)
    print_json(submitted) if as_json else typer.echo(tables.job_table(submitted.items))
    say(f"List them with: {command_line(ctx, 'jobs', '--experiment', submitted.experiment)}")
