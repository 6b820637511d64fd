"""The command line. Exit codes: 0 done; 1 the service refused, or the job did not succeed; 2 wrong usage; 130 Ctrl-C.

What was asked for goes to standard output, hints and errors to standard error.
"""

import csv
import io
import json
import os
import re
import sys
from collections.abc import Callable, Iterable
from enum import StrEnum
from functools import partial
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, TypeVar

import click
import typer
import yaml
from pydantic import BaseModel
from rich.console import Console
from typer.core import TyperGroup

from forerun import demo as demo_
from forerun import display
from forerun.client import DEFAULT_URL, Client, raise_unless_succeeded
from forerun.program import program
from service.errors import ForerunError
from service.spec.field_errors import unique_keys
from service.wire.answers import Answer, HistoryStep, Job

EXAMPLE = Path(__file__).parents[1] / "examples" / "digits.yaml"
Row = TypeVar("Row", bound=Answer)


class _Commands(TyperGroup):
    """Errors that are meant for the user end a command with a sentence instead of a traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except ForerunError as error:
            _say(f"forerun: {error}")
            raise typer.Exit(1) from None


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Distributed learning-rate search as a service.",
)

JobId = Annotated[str, typer.Argument(metavar="JOB", help="Id of a job, as `forerun jobs` lists it.")]
SpecFile = Annotated[Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, help="A spec, YAML or JSON.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON, for programs.")]


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
    url: Annotated[str, typer.Option(envvar="FORERUN_URL", help="Where the service is.")] = DEFAULT_URL,
) -> None:
    try:
        ctx.obj = ctx.with_resource(Client(url))
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--url") from None


@app.command()
def submit(
    ctx: typer.Context,
    file: SpecFile,
    watch_: Annotated[bool, typer.Option("--watch", help="Show it live until it ends.")] = False,
    as_json: AsJson = False,
) -> None:
    """Submit a job; prints its id."""
    job = _client(ctx).submit(read_spec(file)).answer
    if watch_:
        _watch(ctx, job, as_json)
    else:
        _print_json(job) if as_json else typer.echo(job.id)
        _say(f"Watch it with: {_command(ctx, 'watch', job.id)}")


@app.command()
def watch(ctx: typer.Context, job_id: JobId, as_json: AsJson = False) -> None:
    """Show a job live until it ends. Ctrl-C leaves the job running. With --json: its events, one a line."""
    _watch(ctx, _client(ctx).read_job(job_id), as_json)


@app.command("jobs")
def list_jobs(
    ctx: typer.Context,
    state: Annotated[list[str] | None, typer.Option(help="Only these; may be repeated.")] = None,
    model: Annotated[str | None, typer.Option()] = None,
    dataset: Annotated[str | None, typer.Option()] = None,
    name: Annotated[str | None, typer.Option(help="The whole name, exactly.")] = None,
    experiment: Annotated[str | None, typer.Option(help="The whole name of the experiment, exactly.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="The newest so many.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List jobs, newest first."""
    filters = {"model": model, "dataset": dataset, "name": name, "experiment": experiment}
    jobs = list(islice(_client(ctx).jobs(state=state or (), **filters, page_size=min(limit, 200)), limit))
    _print_json(jobs) if as_json else typer.echo(display.job_table(jobs))


@app.command()
def show(ctx: typer.Context, job_id: JobId, as_json: AsJson = False) -> None:
    """Show a job: its facts, and a row for each epoch."""
    client = _client(ctx)
    job = client.read_job(job_id)
    if as_json:
        _print_json(job)
    else:
        display.show(job, client.epochs(job_id), client.branches(job_id), _console())


@app.command()
def cancel(ctx: typer.Context, job_id: JobId, as_json: AsJson = False) -> None:
    """Ask for the end of a job."""
    job = _client(ctx).cancel(job_id)
    _print_json(job) if as_json else typer.echo(f"{job.id} {job.state}")


@app.command()
def logs(
    ctx: typer.Context,
    job_id: JobId,
    attempt: Annotated[int | None, typer.Option(min=1, help="Of this attempt; default: the newest.")] = None,
) -> None:
    """What a job printed: the end of the log of its Ray job."""
    typer.echo(display.clean(click.unstyle(_client(ctx).logs(job_id, attempt))), nl=False)


class HistoryFormat(StrEnum):
    TABLE = "table"
    CSV = "csv"
    JSON = "json"


@app.command()
def lr_history(
    ctx: typer.Context,
    job_id: JobId,
    format_: Annotated[HistoryFormat, typer.Option("--format")] = HistoryFormat.TABLE,
) -> None:
    """The learning rate of every epoch."""
    client = _client(ctx)
    match format_:
        case HistoryFormat.TABLE:
            typer.echo(display.lr_table(client.lr_history(job_id)))
        case HistoryFormat.CSV:
            typer.echo(client.lr_history_csv(job_id), nl=False)
        case HistoryFormat.JSON:
            _print_json(client.lr_history(job_id))


@app.command()
def schedule(
    ctx: typer.Context,
    job_id: JobId,
    method: Annotated[str | None, typer.Option(help="Default: the job's first.")] = None,
    trial: Annotated[int, typer.Option(min=1)] = 1,
) -> None:
    """The learning rates of a job as JSON, for forerun.schedules.Replay."""
    _print_json(_client(ctx).schedule(job_id, method=method, trial=trial))


@app.command()
def selector_replay(
    ctx: typer.Context,
    job_id: JobId,
    selector: Annotated[str, typer.Option(help="greedy or tolerance.")],
    tolerance: Annotated[float | None, typer.Option(help="Of the selector tolerance.")] = None,
    as_json: AsJson = False,
) -> None:
    """What another selector would have chosen at each epoch, from the stored branches."""
    options = {} if tolerance is None else {"tolerance": tolerance}
    replayed = _client(ctx).selector_replay(job_id, selector, **options)
    _print_json(replayed) if as_json else typer.echo(display.replay_table(replayed))


class FileFormat(StrEnum):
    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    PNG = "png"
    SVG = "svg"


Output = Annotated[Path | None, typer.Option(dir_okay=False, help="Write it to this file.")]


@app.command()
def trials(
    ctx: typer.Context,
    job_id: JobId,
    method: Annotated[str | None, typer.Option(help="Of this method alone.")] = None,
    state: Annotated[list[str] | None, typer.Option(help="Only these; may be repeated.")] = None,
    as_json: AsJson = False,
) -> None:
    """Every training of every method: its hyperparameters, its state, and how good it became."""
    found = _client(ctx).trials(job_id, method=method, state=state or ())
    _print_json(found) if as_json else typer.echo(display.trial_table(found))


@app.command()
def comparison(
    ctx: typer.Context,
    job_id: JobId,
    format_: Annotated[FileFormat, typer.Option("--format")] = FileFormat.TABLE,
    output: Output = None,
) -> None:
    """The methods of a job side by side, as a table, JSON, CSV or a figure: accuracy over cost."""
    client = _client(ctx)
    rows, file = partial(client.comparison, job_id), partial(client.comparison_file, job_id)
    _export(format_, output, rows, display.comparison_table, file)


@app.command()
def study(
    ctx: typer.Context,
    job_id: Annotated[str | None, typer.Argument(metavar="JOB", help="Id of a job with a study.")] = None,
    experiment: Annotated[
        str | None, typer.Option(help="Instead of a job: the studies of all its jobs as one.")
    ] = None,
    format_: Annotated[FileFormat, typer.Option("--format")] = FileFormat.TABLE,
    output: Output = None,
) -> None:
    """What a study came to, as a table, JSON, CSV or a figure: test accuracy by variant, batch size and epoch."""
    client = _client(ctx)
    if job_id is not None and experiment is None:
        rows, file = partial(client.study, job_id), partial(client.study_file, job_id)
    elif job_id is None and experiment is not None:
        rows = partial(client.study_of_experiment, experiment)
        file = partial(client.study_of_experiment_file, experiment)
    else:
        raise typer.BadParameter("name a job or an experiment, one of the two", param_hint="JOB or --experiment")
    _export(format_, output, rows, display.study_table, file)


@app.command()
def ramp(ctx: typer.Context, job_id: JobId, as_json: AsJson = False) -> None:
    """The largest batches of a batch ramp before validation accuracy fell."""
    found = _client(ctx).ramp(job_id)
    _print_json(found) if as_json else typer.echo(display.ramp_table(found))


@app.command()
def layers(
    ctx: typer.Context,
    job_id: JobId,
    method: Annotated[str | None, typer.Option(help="Of this method alone.")] = None,
    trial: Annotated[int | None, typer.Option(min=1, help="Of this trial alone.")] = None,
    layer: Annotated[str | None, typer.Option(help="The whole name, exactly.")] = None,
    first_epoch: Annotated[int | None, typer.Option(min=1)] = None,
    last_epoch: Annotated[int | None, typer.Option(min=1)] = None,
    format_: Annotated[FileFormat, typer.Option("--format")] = FileFormat.TABLE,
    output: Output = None,
) -> None:
    """Norms of each layer's weights and gradient, of a job with telemetry. The table has the last sample of each epoch;
    a figure is of one training, the first unless another is named."""
    filters: dict[str, Any] = {"method": method, "trial": trial, "layer": layer}
    filters |= {"first_epoch": first_epoch, "last_epoch": last_epoch}
    client = _client(ctx)
    rows = partial(client.layers, job_id, **filters)

    def file(kind: str) -> str | bytes:
        return display.layer_csv(rows()) if kind == "csv" else client.layers_figure(job_id, kind, **filters)

    _export(format_, output, rows, display.layer_table, file)


@app.command()
def history(
    ctx: typer.Context,
    model: Annotated[str | None, typer.Option()] = None,
    dataset: Annotated[str | None, typer.Option()] = None,
    optimizer: Annotated[str | None, typer.Option()] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Global batch size.")] = None,
    method: Annotated[str | None, typer.Option()] = None,
    state: Annotated[list[str] | None, typer.Option(help="Of the job; may be repeated.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="So many epochs.")] = 500,
    format_: Annotated[HistoryFormat, typer.Option("--format")] = HistoryFormat.TABLE,
) -> None:
    """The learning rate of every epoch of all jobs, newest jobs first."""
    found = _client(ctx).history(
        model=model,
        dataset=dataset,
        optimizer=optimizer,
        batch=batch,
        method=method,
        state=state or (),
        page_size=min(limit, 5000),
    )
    steps = list(islice(found, limit))
    match format_:
        case HistoryFormat.TABLE:
            typer.echo(display.history_table(steps))
        case HistoryFormat.CSV:
            writer = csv.DictWriter(text := io.StringIO(), list(HistoryStep.model_fields))
            writer.writeheader()
            writer.writerows(step.model_dump() for step in steps)
            typer.echo(text.getvalue(), nl=False)
        case HistoryFormat.JSON:
            _print_json(steps)


@app.command()
def recommendation(
    ctx: typer.Context,
    model: Annotated[str, typer.Argument(metavar="MODEL")],
    dataset: Annotated[str, typer.Argument(metavar="DATASET")],
    batch: Annotated[int | None, typer.Option(min=1, help="Global batch size; default: the best past run's.")] = None,
    optimizer: Annotated[str | None, typer.Option(help="Default: the best past run's.")] = None,
    path: Annotated[str | None, typer.Option(help="Folder of an image-folder.")] = None,
    as_json: AsJson = False,
) -> None:
    """The learning rate to begin with, by what past jobs chose."""
    found = _client(ctx).recommendation(model, dataset, batch=batch, optimizer=optimizer, path=path)
    _print_json(found) if as_json else typer.echo(display.recommendation_table(found))


@app.command()
def plan(ctx: typer.Context, file: SpecFile, as_json: AsJson = False) -> None:
    """What a spec would cost; nothing starts."""
    forecast = _client(ctx).plan(read_spec(file))
    _print_json(forecast) if as_json else typer.echo(display.plan_table(forecast))


@app.command()
def experiment(
    ctx: typer.Context,
    name: Annotated[str | None, typer.Argument(help="Of the study to run; without it, they are listed.")] = None,
    scale: Annotated[str, typer.Option(help="paper, fashion-mnist or cifar10.")] = "fashion-mnist",
    file: Annotated[
        Path | None, typer.Option("--spec", exists=True, dir_okay=False, help="Keys that hold for every job.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run a study of a paper: submits its jobs."""
    client = _client(ctx)
    if name is None:
        studies = client.experiments()
        _print_json(studies) if as_json else typer.echo(display.experiment_table(studies))
        return
    submitted = client.run_experiment(name, scale, **(read_spec(file) if file else {}))
    _print_json(submitted) if as_json else typer.echo(display.job_table(submitted.items))
    _say(f"List them with: {_command(ctx, 'jobs', '--experiment', submitted.experiment)}")


@app.command()
def serve() -> None:
    """Run the service, with Ray if it has no cluster to use, until Ctrl-C. Its settings are variables FORERUN_…"""
    demo_.require_server()
    # -P: not a folder `api` that happens to lie here
    os.execv(sys.executable, [sys.executable, "-P", "-m", "api", program()])  # noqa: S606 - our own module


@app.command()
def demo(
    file: SpecFile = EXAMPLE,
    home: Annotated[
        Path, typer.Option(envvar="FORERUN_HOME", file_okay=False, help="Where the demo keeps its files.")
    ] = Path(".forerun/demo"),
) -> None:
    """Start a service, train one job on it, end it. The last line printed is the result as JSON."""
    typer.echo(json.dumps(demo_.run(read_spec(file), home, _console())))


def read_spec(file: Path) -> dict[str, Any]:
    """The mapping in a YAML or JSON file, as JSON would have it. Raises typer.BadParameter; says what is wrong."""
    try:
        text = file.read_text(encoding="utf-8")
        # JSON is YAML but for details, such as tabs that indent
        if file.suffix == ".json":
            document = json.loads(text, object_pairs_hook=unique_keys)
        else:
            document = yaml.load(text, _Loader)  # noqa: S506 - it is safe
        document = json.loads(json.dumps(document))  # what YAML can say and JSON cannot fails here
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValueError, TypeError) as error:
        raise typer.BadParameter(f"{file} cannot be read: {error}", param_hint="FILE") from None
    except RecursionError:
        raise typer.BadParameter(f"{file} cannot be read: it is nested too deeply", param_hint="FILE") from None
    if not isinstance(document, dict):
        raise typer.BadParameter(f"{file} must hold fields (model: lenet5, …), see {EXAMPLE}", param_hint="FILE")
    return document


class _Loader(yaml.SafeLoader):
    """Plain values as YAML 1.2 and JSON read them. PyYAML alone takes 5e-4 for a text, and 2024-01-01 for a date."""

    yaml_implicit_resolvers: dict[str, Any] = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):  # a few lines of them can stand for gigabytes
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(
                problem=f"the alias *{event.anchor} is not taken; write it out", problem_mark=event.start_mark
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"{key.value} stands there twice; keep one of them", problem_mark=key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


for _tag, _pattern in {
    "null": r"null|~|",
    "bool": r"true|false",
    "int": r"[-+]?(0|[1-9][0-9]*)",
    "float": r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?",
}.items():
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^({_pattern})$"), None)


def _watch(ctx: typer.Context, job: Job, as_json: bool) -> None:
    client, job_id = _client(ctx), job.id
    try:
        if as_json:
            for event in client.events(job_id):
                print(json.dumps(_document(event)), flush=True)
        else:
            display.follow(job, client.events(job_id), _console())
    except KeyboardInterrupt:
        _say(f"\n{job_id} goes on. Watch it again with: {_command(ctx, 'watch', job_id)}")
        _say(f"End it with: {_command(ctx, 'cancel', job_id)}")
        raise typer.Exit(130) from None
    raise_unless_succeeded(client.read_job(job_id))


def _client(ctx: typer.Context) -> Client:
    client: Client = ctx.obj
    return client


def _command(ctx: typer.Context, *words: str) -> str:
    url = _client(ctx).base_url
    return " ".join([program(), *([] if url == DEFAULT_URL else ["--url", url]), *words])


def _console() -> Console:
    return Console(highlight=False, markup=False)


def _export(
    format_: FileFormat,
    output: Path | None,
    rows: Callable[[], Iterable[Row]],
    table: Callable[[Iterable[Row]], str],
    file: Callable[[str], str | bytes],
) -> None:
    """What `rows` fetches, as a table or JSON, or the `file` of that kind."""
    if output is None and format_ is FileFormat.PNG and sys.stdout.isatty():
        raise typer.BadParameter("a terminal cannot show a PNG; name a file", param_hint="--output")
    match format_:
        case FileFormat.TABLE:
            _write(table(rows()) + "\n", output)
        case FileFormat.JSON:
            _write(json.dumps(_document(rows()), indent=2) + "\n", output)
        case FileFormat.CSV | FileFormat.PNG | FileFormat.SVG:
            _write(file(format_.value), output)


def _write(content: str | bytes, output: Path | None) -> None:
    """To the file, or to standard output."""
    raw = content.encode() if isinstance(content, str) else content
    if output is None:
        typer.echo(raw, nl=False)
        return
    try:
        output.write_bytes(raw)
    except OSError as error:
        raise typer.BadParameter(f"{output} cannot be written: {error}", param_hint="--output") from None
    _say(f"Written to {output}")


def _print_json(value: BaseModel | Iterable[BaseModel]) -> None:
    typer.echo(json.dumps(_document(value), indent=2))


def _document(value: BaseModel | Iterable[BaseModel]) -> Any:
    """What the service sent, as JSON has it."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_unset=True)
    return [_document(item) for item in value]


def _say(text: str) -> None:
    typer.echo(display.clean(text), err=True)
