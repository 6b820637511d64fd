"""The commands `forerun results`: what a job chose, how good its methods became, and what all jobs teach."""

from functools import partial
from itertools import islice
from typing import Annotated, Any, get_args

import typer

from forerun.cli.shared import (
    AsJson,
    FileFormat,
    HistoryFormat,
    JobId,
    Output,
    TextFormat,
    client_of,
    example,
    export,
    new_group,
    print_json,
)
from forerun.display import explanation, tables
from service.spec.stpt import SelectorName
from service.wire.answers import HistoryStep
from service.wire.csv_text import csv_text

JOB, ALL = "Of a job", "Of all jobs"
STUDY_EXAMPLES = example("results study JOB", "results study --experiment NAME --format svg --output study.svg")
app = new_group("Results of jobs: learning rates, methods side by side, studies, layers, what past jobs chose.")


@app.command(rich_help_panel=JOB, epilog=example("results lr-history JOB --format csv > lr-history.csv"))
def lr_history(
    ctx: typer.Context,
    job_id: JobId,
    format_: Annotated[HistoryFormat, typer.Option("--format")] = HistoryFormat.TABLE,
) -> None:
    """Print the learning rate of every epoch of a job."""
    client = client_of(ctx)
    match format_:
        case HistoryFormat.TABLE:
            typer.echo(tables.lr_table(client.lr_history(job_id)))
        case HistoryFormat.CSV:
            typer.echo(client.lr_history_csv(job_id), nl=False)
        case HistoryFormat.JSON:
            print_json(client.lr_history(job_id))


@app.command(rich_help_panel=JOB, epilog=example("results schedule JOB > schedule.json"))
def schedule(
    ctx: typer.Context,
    job_id: JobId,
    label: Annotated[str | None, typer.Option(help="Label of the run. Default: the job's first run.")] = None,
    trial: Annotated[int, typer.Option(min=1, help="Number of the trial in its run.")] = 1,
) -> None:
    """Print the learning rates of a job as JSON, for forerun.schedules.Replay."""
    print_json(client_of(ctx).schedule(job_id, label=label, trial=trial))


@app.command(rich_help_panel=JOB, epilog=example("results explain JOB --format png --output decisions.png"))
def explain(
    ctx: typer.Context,
    job_id: JobId,
    label: Annotated[
        str | None, typer.Option(help="Label of the run. Default: the first of stpt, or of autolrs.")
    ] = None,
    trial: Annotated[int, typer.Option(min=1, help="Number of the trial in its run.")] = 1,
    format_: Annotated[TextFormat, typer.Option("--format")] = TextFormat.TEXT,
    output: Output = None,
) -> None:
    """Explain the learning rates of a job: what each was chosen from and why, or why none was chosen; and what speaks
    against it."""
    client = client_of(ctx)
    found = partial(client.decisions, job_id, label=label, trial=trial)
    figure = partial(client.decisions_figure, job_id, label=label, trial=trial)
    export(format_, output, found, explanation.text_of, figure)


@app.command(rich_help_panel=JOB, epilog=example("results selector-replay JOB --selector tolerance --tolerance 0.01"))
def selector_replay(
    ctx: typer.Context,
    job_id: JobId,
    selector: Annotated[str, typer.Option(help=f"The other selector: {' or '.join(get_args(SelectorName))}.")],
    tolerance: Annotated[float | None, typer.Option(help="Option of the selector tolerance.")] = None,
    label: Annotated[str | None, typer.Option(help="Label of the run. Default: the job's first run of stpt.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print what another selector would have chosen at each epoch, from the stored branches."""
    replayed = client_of(ctx).selector_replay(job_id, selector, tolerance=tolerance, label=label)
    print_json(replayed) if as_json else typer.echo(tables.replay_table(replayed))


@app.command(rich_help_panel=JOB, epilog=example("results trials JOB --label tpe --state stopped"))
def trials(
    ctx: typer.Context,
    job_id: JobId,
    label: Annotated[str | None, typer.Option(help="Only the run with this label.")] = None,
    state: Annotated[list[str] | None, typer.Option(help="Only trials in this state; may be repeated.")] = None,
    as_json: AsJson = False,
) -> None:
    """List every training of every run: its hyperparameters, its state, and its accuracies."""
    found = client_of(ctx).trials(job_id, label=label, state=state or ())
    print_json(found) if as_json else typer.echo(tables.trial_table(found))


@app.command(rich_help_panel=JOB, epilog=example("results comparison JOB --format png --output comparison.png"))
def comparison(
    ctx: typer.Context,
    job_id: JobId,
    format_: Annotated[FileFormat, typer.Option("--format")] = FileFormat.TABLE,
    output: Output = None,
) -> None:
    """Compare the methods of a job, as a table, JSON, CSV or a figure of accuracy over cost."""
    client = client_of(ctx)
    rows, file = partial(client.comparison, job_id), partial(client.comparison_file, job_id)
    export(format_, output, rows, tables.comparison_table, file)


@app.command(rich_help_panel=JOB, epilog=STUDY_EXAMPLES)
def study(
    ctx: typer.Context,
    job_id: Annotated[str | None, typer.Argument(metavar="JOB", help="Id of a job with a study.")] = None,
    experiment: Annotated[
        str | None, typer.Option(help="Name of an experiment, in place of a job: the studies of all its jobs as one.")
    ] = None,
    format_: Annotated[FileFormat, typer.Option("--format")] = FileFormat.TABLE,
    output: Output = None,
) -> None:
    """Print the results of a study, as a table, JSON, CSV or a figure: test accuracy by variant, batch size and
    epoch."""
    client = client_of(ctx)
    if job_id is not None and experiment is None:
        rows, file = partial(client.study, job_id), partial(client.study_file, job_id)
    elif job_id is None and experiment is not None:
        rows = partial(client.study_of_experiment, experiment)
        file = partial(client.study_of_experiment_file, experiment)
    else:
        raise typer.BadParameter("name a job or an experiment, one of the two", param_hint="JOB or --experiment")
    export(format_, output, rows, tables.study_table, file)


@app.command(rich_help_panel=JOB)
def ramp(ctx: typer.Context, job_id: JobId, as_json: AsJson = False) -> None:
    """Print the largest batches of a batch ramp before validation accuracy fell."""
    found = client_of(ctx).ramp(job_id)
    print_json(found) if as_json else typer.echo(tables.ramp_table(found))


@app.command(rich_help_panel=JOB, epilog=example("results layers JOB --label stpt --format png --output layers.png"))
def layers(
    ctx: typer.Context,
    job_id: JobId,
    label: Annotated[str | None, typer.Option(help="Only the run with this label.")] = None,
    trial: Annotated[int | None, typer.Option(min=1, help="Only the trial with this number.")] = None,
    layer: Annotated[str | None, typer.Option(help="Only the layer with this name; the whole name, exactly.")] = None,
    first_epoch: Annotated[int | None, typer.Option(min=1, help="Only this epoch and later ones.")] = None,
    last_epoch: Annotated[int | None, typer.Option(min=1, help="Only this epoch and earlier ones.")] = None,
    format_: Annotated[FileFormat, typer.Option("--format")] = FileFormat.TABLE,
    output: Output = None,
) -> None:
    """Print the norms of each layer's weights and gradient, of a job with telemetry.

    The table has the last sample of each epoch; a figure is of one training, the first unless another is named.
    """
    filters: dict[str, Any] = {"label": label, "trial": trial, "layer": layer}
    filters |= {"first_epoch": first_epoch, "last_epoch": last_epoch}
    client = client_of(ctx)
    rows = partial(client.layers, job_id, **filters)

    def file(kind: str) -> str | bytes:
        return tables.layer_csv(rows()) if kind == "csv" else client.layers_figure(job_id, kind, **filters)

    export(format_, output, rows, tables.layer_table, file)


@app.command(rich_help_panel=ALL, epilog=example("results history --model lenet5 --dataset digits --format csv"))
def history(
    ctx: typer.Context,
    model: Annotated[str | None, typer.Option(help="Only jobs with this model.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Only jobs on this dataset.")] = None,
    optimizer: Annotated[str | None, typer.Option(help="Only jobs with this optimizer.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Only jobs with this global batch size.")] = None,
    method: Annotated[str | None, typer.Option(help="Only runs of this method.")] = None,
    label: Annotated[str | None, typer.Option(help="Only runs with this label.")] = None,
    state: Annotated[list[str] | None, typer.Option(help="Only jobs in this state; may be repeated.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Most epochs to print.")] = 500,
    format_: Annotated[HistoryFormat, typer.Option("--format")] = HistoryFormat.TABLE,
) -> None:
    """Print the learning rate of every epoch of all jobs, newest jobs first."""
    found = client_of(ctx).history(
        model=model,
        dataset=dataset,
        optimizer=optimizer,
        batch=batch,
        method=method,
        label=label,
        state=state or (),
        page_size=min(limit, 5000),
    )
    steps = list(islice(found, limit))
    match format_:
        case HistoryFormat.TABLE:
            typer.echo(tables.history_table(steps))
        case HistoryFormat.CSV:
            typer.echo(csv_text(list(HistoryStep.model_fields), (step.model_dump() for step in steps)), nl=False)
        case HistoryFormat.JSON:
            print_json(steps)


@app.command(rich_help_panel=ALL, epilog=example("results recommendation lenet5 digits --batch 128"))
def recommendation(
    ctx: typer.Context,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Name of a model, such as lenet5.")],
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="Name of a dataset, such as digits.")],
    batch: Annotated[int | None, typer.Option(min=1, help="Global batch size; default: the best past run's.")] = None,
    optimizer: Annotated[str | None, typer.Option(help="Name of the optimizer; default: the best past run's.")] = None,
    path: Annotated[str | None, typer.Option(help="Folder of the images, for the dataset image-folder.")] = None,
    as_json: AsJson = False,
) -> None:
    """Recommend a learning rate to begin with, by what past jobs chose."""
    found = client_of(ctx).recommendation(model, dataset, batch=batch, optimizer=optimizer, path=path)
    print_json(found) if as_json else typer.echo(tables.recommendation_table(found))
