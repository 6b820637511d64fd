"""The commands `forerun job`: submit, list, show, watch, change, pause, resume, cancel, retry, delete."""

import json
from itertools import islice
from typing import Annotated

import click
import typer

from forerun.cli.shared import (
    AsJson,
    JobId,
    Priority,
    SpecFile,
    TimeLimit,
    as_document,
    client_of,
    command_line,
    console,
    example,
    new_group,
    print_json,
    say,
)
from forerun.cli.spec_file import read_spec
from forerun.client import raise_unless_succeeded
from forerun.display import live, tables
from forerun.display.text import clean
from service.wire.answers import Job

SUBMIT_EXAMPLE = example("submit examples/digits.yaml --watch")
app = new_group("Jobs: submit, list, show, watch, pause, cancel, delete, and what they printed.")


@app.command(epilog=SUBMIT_EXAMPLE)
def submit(
    ctx: typer.Context,
    file: SpecFile,
    watch_: Annotated[bool, typer.Option("--watch", help="Show the job live until it ends.")] = False,
    priority: Priority = None,
    time_limit: TimeLimit = None,
    as_json: AsJson = False,
) -> None:
    """Submit a job and print its id."""
    job = client_of(ctx).submit(read_spec(file), priority=priority or 0, time_limit=time_limit).answer
    _submitted(ctx, job, watch_, as_json)


@app.command(epilog=example("job watch JOB --json"))
def watch(ctx: typer.Context, job_id: JobId, as_json: AsJson = False) -> None:
    """Show a job live until it ends.

    Ctrl-C leaves the job running. With --json: its events, one a line.
    """
    _follow(ctx, client_of(ctx).read_job(job_id), as_json)


@app.command("list", epilog=example("job list --state running --state queued"))
def list_jobs(
    ctx: typer.Context,
    state: Annotated[list[str] | None, typer.Option(help="Only jobs in this state; may be repeated.")] = None,
    model: Annotated[str | None, typer.Option(help="Only jobs with this model.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Only jobs on this dataset.")] = None,
    name: Annotated[str | None, typer.Option(help="Only jobs with this name; the whole name, exactly.")] = None,
    experiment: Annotated[
        str | None, typer.Option(help="Only jobs of this experiment; its whole name, exactly.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Most jobs to list, the newest.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List jobs, newest first."""
    filters = {"model": model, "dataset": dataset, "name": name, "experiment": experiment}
    jobs = list(islice(client_of(ctx).jobs(state=state or (), **filters, page_size=min(limit, 200)), limit))
    print_json(jobs) if as_json else typer.echo(tables.job_table(jobs))


@app.command()
def show(ctx: typer.Context, job_id: JobId, as_json: AsJson = False) -> None:
    """Show a job: its facts, and a row for each epoch."""
    client = client_of(ctx)
    job = client.read_job(job_id)
    if as_json:
        print_json(job)
    else:
        live.show(job, client.trials(job_id), client.epochs(job_id), client.branches(job_id), console())


@app.command(epilog=example("job change JOB --priority 10", "job change JOB --no-time-limit"))
def change(
    ctx: typer.Context,
    job_id: JobId,
    priority: Priority = None,
    time_limit: TimeLimit = None,
    no_time_limit: Annotated[bool, typer.Option("--no-time-limit", help="Take the time limit away.")] = False,
    as_json: AsJson = False,
) -> None:
    """Change the priority or the time limit of a job that has not ended."""
    terms: dict[str, int | None] = {"priority": priority, "time_limit": time_limit}
    terms = {name: value for name, value in terms.items() if value is not None}
    if no_time_limit:
        terms["time_limit"] = None
    if not terms:
        raise typer.BadParameter("name what is to change: --priority, --time-limit or --no-time-limit")
    _tell(client_of(ctx).change(job_id, **terms), as_json)


@app.command()
def pause(ctx: typer.Context, job_id: JobId, as_json: AsJson = False) -> None:
    """Pause a job behind its next epoch, or at once where it waits."""
    _tell(client_of(ctx).pause(job_id), as_json)


@app.command()
def resume(ctx: typer.Context, job_id: JobId, as_json: AsJson = False) -> None:
    """Let a paused job go on from its newest checkpoints."""
    _tell(client_of(ctx).resume(job_id), as_json)


@app.command()
def cancel(ctx: typer.Context, job_id: JobId, as_json: AsJson = False) -> None:
    """Ask for the end of a job."""
    _tell(client_of(ctx).cancel(job_id), as_json)


@app.command()
def retry(
    ctx: typer.Context,
    job_id: JobId,
    watch_: Annotated[bool, typer.Option("--watch", help="Show the new job live until it ends.")] = False,
    as_json: AsJson = False,
) -> None:
    """Submit a new job that goes on where one ended that failed or was cancelled, and print its id."""
    _submitted(ctx, client_of(ctx).retry(job_id).answer, watch_, as_json)


@app.command(epilog=example("job delete JOB --yes"))
def delete(
    ctx: typer.Context,
    job_id: JobId,
    yes: Annotated[bool, typer.Option("--yes", help="Delete it without asking.")] = False,
) -> None:
    """Delete a job that has ended, with all that is recorded of it, its checkpoints and its logs."""
    if not yes:
        typer.confirm(f"Delete {job_id} with its records, checkpoints and logs for ever?", abort=True)
    client_of(ctx).delete(job_id)
    say(f"{clean(job_id)} is deleted")


@app.command(epilog=example("job logs JOB --attempt 1"))
def logs(
    ctx: typer.Context,
    job_id: JobId,
    attempt: Annotated[int | None, typer.Option(min=1, help="Number of the attempt; default: the newest.")] = None,
) -> None:
    """Print the end of what a job has printed: the log of its Ray job."""
    typer.echo(clean(click.unstyle(client_of(ctx).logs(job_id, attempt))), nl=False)


def _submitted(ctx: typer.Context, job: Job, watch_: bool, as_json: bool) -> None:
    """Show a new job live, or print its id and how to watch it."""
    if watch_:
        _follow(ctx, job, as_json)
    else:
        print_json(job) if as_json else typer.echo(job.id)
        say(f"Watch it with: {command_line(ctx, 'job', 'watch', job.id)}")


def _tell(job: Job, as_json: bool) -> None:
    """Print what became of a job that was asked for something."""
    print_json(job) if as_json else typer.echo(f"{job.id} {job.state}")


def _follow(ctx: typer.Context, job: Job, as_json: bool) -> None:
    client, job_id = client_of(ctx), job.id
    try:
        if as_json:
            for event in client.events(job_id):
                print(json.dumps(as_document(event)), flush=True)
        else:
            live.follow(job, client.events(job_id), console())
    except KeyboardInterrupt:
        say(f"\n{job_id} goes on. Watch it again with: {command_line(ctx, 'job', 'watch', job_id)}")
        say(f"End it with: {command_line(ctx, 'job', 'cancel', job_id)}")
        raise typer.Exit(130) from None
    raise_unless_succeeded(client.read_job(job_id))
