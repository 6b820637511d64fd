"""Methods side by side: the trials of a job, their comparison, studies, and what all jobs together teach."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, BeforeValidator, Field
from starlette.responses import Response

from api import schemas_comparison as schemas
from api.deps import FORMAT, MAX_INT, NO_NUL, Accept, JobId, ServicesOf, Text, split
from api.figures import comparison_figure, study_figure
from api.formats import NEXT_PAGE, chosen_format, csv_text, documented_formats, file_answer, next_page
from api.problems import documented
from service.errors import FieldError, InvalidInput
from service.results import of_jobs, past_jobs
from service.spec.methods import MethodName
from service.spec.optimizer import OptimizerName
from service.spec.types import MAX_BATCH
from service.store.epochs import epochs_of_all_jobs
from service.store.jobs import get_job
from service.store.trials import trials_with_results
from service.wire.states import JobState
from service.wire.worker import TrialState

router = APIRouter(prefix="/v1", tags=["comparison"])

AnyMethod = Literal[MethodName, "replay"]
# of a table that is also a figure
TABLE_FORMATS = ("json", "csv", "png", "svg")
TABLE_ANSWERS = {200: documented_formats(*TABLE_FORMATS[1:]), **documented(404, 422)}
TableFormat = Annotated[Literal["json", "csv", "png", "svg"] | None, Query(alias="format", description=FORMAT)]


@router.get("/jobs/{job_id}/trials", summary="Every training of every method", responses=documented(404, 422))
def trials(
    services: ServicesOf,
    job_id: JobId,
    method: Annotated[AnyMethod | None, Query(description="Of this method alone.")] = None,
    state: Annotated[
        list[TrialState], BeforeValidator(split), Query(description="Only these; repeated or comma separated.")
    ] = [],  # noqa: B006 - FastAPI reads it
) -> schemas.TrialList:
    """By method, in the order of the job's runs, and number. A search adds its trials as they begin."""
    with services.store.read() as session:
        get_job(session, job_id)
        rows = trials_with_results(session, job_id, method=method, state=state)
        return schemas.TrialList(job_id=job_id, items=[schemas.TrialResult.of(*row) for row in rows])


@router.get(
    "/jobs/{job_id}/comparison",
    summary="The methods of a job side by side",
    response_model=schemas.Comparison,
    responses=TABLE_ANSWERS,
)
def comparison(
    services: ServicesOf,
    job_id: JobId,
    format_: TableFormat = None,
    accept: Accept = "",
) -> Response:
    """As JSON; as CSV, a line a method and without the curves; or as a figure, accuracy over cost."""
    kind = chosen_format(format_, accept, TABLE_FORMATS)
    with services.store.read() as session:
        job = get_job(session, job_id)
        title = f"{job.model} on {job.dataset}, {job.optimizer}, batch {job.global_batch_size} ({job.id})"
        runs = of_jobs.comparison(session, job_id)
    answer, draw = schemas.Comparison.of(job_id, runs), partial(comparison_figure, title, runs)
    return _table(answer, schemas.COMPARISON_COLUMNS, kind, f"{job_id}-comparison", draw)


@router.get(
    "/jobs/{job_id}/study",
    summary="The table of a study",
    response_model=schemas.Study,
    responses=TABLE_ANSWERS,
)
def study(
    services: ServicesOf,
    job_id: JobId,
    format_: TableFormat = None,
    accept: Accept = "",
) -> Response:
    """Test accuracy of every variant at every batch size, over the seeds whose trial has ended: as JSON, as CSV, or as
    a figure, accuracy over epochs and, of several batch sizes, over them."""
    kind = chosen_format(format_, accept, TABLE_FORMATS)
    with services.store.read() as session:
        job = get_job(session, job_id)
        title = f"{job.model} on {job.dataset} ({job.id})"
        rows = of_jobs.study(session, [job])
    answer, draw = schemas.Study.of(job_id, rows), partial(study_figure, title, rows)
    return _table(answer, schemas.STUDY_COLUMNS, kind, f"{job_id}-study", draw)


@router.get(
    "/study",
    summary="The studies of an experiment as one table",
    response_model=schemas.ExperimentStudy,
    responses=TABLE_ANSWERS,
)
def study_of_experiment(
    services: ServicesOf,
    experiment: Annotated[
        str, Query(min_length=1, max_length=100, pattern=NO_NUL, description="Its whole name, exactly.")
    ],
    format_: TableFormat = None,
    accept: Accept = "",
) -> Response:
    """The same of all studies of the experiment's jobs. They may differ in batch sizes, variants and seeds alone, and a
    variant is the same in each. Of a point that several jobs have trained with the same seed the newest counts. A job
    that ended without a result is left out."""
    kind = chosen_format(format_, accept, TABLE_FORMATS)
    with services.store.read() as session:
        jobs = of_jobs.study_jobs(session, experiment)
        title = f"{jobs[0].model} on {jobs[0].dataset} ({experiment})"
        rows = of_jobs.study(session, jobs)
    answer = schemas.ExperimentStudy.model_validate({"experiment": experiment, "items": rows})
    return _table(answer, schemas.STUDY_COLUMNS, kind, "study", partial(study_figure, title, rows))


def _table(
    answer: schemas.Comparison | schemas.Study | schemas.ExperimentStudy,
    columns: Sequence[str],
    kind: str,
    name: str,
    draw: Callable[[Literal["png", "svg"]], bytes],
) -> Response:
    """The items as CSV, a line each; as the figure that `draw` makes of them; or the answer as JSON."""
    content: str | bytes
    match kind:
        case "csv":
            content = csv_text(columns, [item.row() for item in answer.items])
        case "png" | "svg":
            content = draw(kind)
        case _:
            content = answer.model_dump_json()
    return file_answer(content, kind, name)


@router.get("/jobs/{job_id}/ramp", summary="The largest batches of a batch ramp", responses=documented(404, 422))
def ramp(services: ServicesOf, job_id: JobId) -> schemas.BatchRamps:
    """Of each seed, the largest batch before validation accuracy fell, by learning rate and by momentum. The trials of
    the ramp are among the job's trials, in order."""
    with services.store.read() as session:
        return schemas.BatchRamps.of(job_id, of_jobs.ramps(session, job_id))


class HistoryFilter(BaseModel):
    """The query of the history of all jobs."""

    model: Text | None = None
    dataset: Text | None = None
    optimizer: OptimizerName | None = None
    batch: int | None = Field(None, ge=1, le=MAX_INT, description="Global batch size.")
    method: AnyMethod | None = None
    state: Annotated[list[JobState], BeforeValidator(split)] = Field(
        [], description="Of the job; repeated or comma separated."
    )
    limit: int = Field(500, ge=1, le=5000, description="Epochs on a page.")
    cursor: Text | None = Field(None, description="`next_cursor` of the page before.")
    format: Literal["json", "csv"] | None = Field(None, description=FORMAT)


@router.get(
    "/lr-history",
    summary="The learning rate of every epoch of all jobs",
    response_model=schemas.HistoryPage,
    responses={200: documented_formats("csv") | NEXT_PAGE, **documented(422)},
)
def lr_history(
    services: ServicesOf, request: Request, query: Annotated[HistoryFilter, Query()], accept: Accept = ""
) -> Response:
    """Newest jobs first; inside a job by method, trial and epoch. Pages stay put while new jobs arrive. JSON or CSV; in
    both the header `Link` leads to the next page."""
    kind = chosen_format(query.format, accept, ("json", "csv"))
    with services.store.read() as session:
        found = epochs_of_all_jobs(session, **query.model_dump(exclude={"format"}))
    page = schemas.HistoryPage(
        items=[schemas.HistoryStep.of(row) for row in found.items], next_cursor=found.next_cursor
    )
    if kind == "csv":
        content = csv_text(list(schemas.HistoryStep.model_fields), [step.model_dump() for step in page.items])
    else:
        content = page.model_dump_json()
    return file_answer(content, kind, "lr-history", next_page(request, page.next_cursor))


@router.get("/recommendation", summary="The learning rate to begin with", responses=documented(404, 422))
def recommendation(
    services: ServicesOf,
    model: Annotated[str, Query(max_length=100, pattern=NO_NUL, examples=["lenet5"])],
    dataset: Annotated[str, Query(max_length=100, pattern=NO_NUL, examples=["digits"])],
    batch: Annotated[
        int | None, Query(ge=1, le=MAX_BATCH, description="Global batch size; default: that of the best past run.")
    ] = None,
    optimizer: Annotated[OptimizerName | None, Query(description="Default: that of the best past run.")] = None,
    path: Annotated[
        str | None, Query(max_length=1024, pattern=NO_NUL, description="Folder of an image-folder.")
    ] = None,
) -> schemas.Recommendation:
    """By what stpt chose in the newest 100 succeeded jobs of the same model, dataset and, if given, optimizer, whose
    task is classification. Runs of the nearest batch are the evidence; their learning rates are scaled to the batch: in
    proportion for sgd, by the square root for the others. A job gets the same, of its own task, with
    `lr_set: {from_history: true}`."""
    if (dataset == "image-folder") != (path is not None):
        message = "names the folder of an image-folder; give it with dataset=image-folder, and with no other"
        raise InvalidInput([FieldError("path", path, message)])
    with services.store.read() as session:
        found = past_jobs.recommendation(
            session, model=model, dataset=dataset, path=path, optimizer=optimizer, batch=batch
        )
    return schemas.Recommendation.of(model, dataset, found)
