"""The route to the telemetry of layers: norms and trust ratios at sampled steps of a training."""

from itertools import chain
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from api.deps import FORMAT, MAX_INT, Accept, JobId, RunLabel, Services, ServicesOf, Text
from api.figures import layers_figure
from api.formats import NEXT_PAGE, chosen_format, documented_formats, file_answer, next_page, to_json
from api.problems import documented
from service.results import of_jobs
from service.results.layer_norms import curves
from service.store.jobs import get_job
from service.store.layers import layers_of, layers_of_training
from service.wire import answers
from service.wire.csv_text import csv_text

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["history"])

FIGURE_EPOCHS = 100  # read for a figure
FIGURE_POINTS = 1000  # of a line: about as many pixels


class LayerFilter(BaseModel):
    """The query parameters of the telemetry of a job's layers."""

    label: RunLabel | None = Field(None, description="Only layers of the run with this label.")
    trial: int | None = Field(
        None, ge=1, le=MAX_INT, description="Only layers of the trial with this number, in each run."
    )
    layer: Text | None = Field(None, description="Only the layer with this name; the whole name, exactly.")
    first_epoch: int | None = Field(None, ge=1, le=MAX_INT, description="Only this epoch and later ones.")
    last_epoch: int | None = Field(None, ge=1, le=MAX_INT, description="Only this epoch and earlier ones.")
    limit: int = Field(100, ge=1, le=1000, description="Most items on a page; an item is one layer in one epoch.")
    cursor: Text | None = Field(None, description="`next_cursor` of the page before; default: the first page.")
    format: Literal["json", "csv", "png", "svg"] | None = Field(None, description=FORMAT)


@router.get(
    "/layers",
    summary="Norms and trust ratios of each layer",
    response_model=answers.LayerPage,
    responses={200: documented_formats("csv", "png", "svg") | NEXT_PAGE, **documented(404, 422, 503)},
)
def layers(
    services: ServicesOf,
    request: Request,
    job_id: JobId,
    query: Annotated[LayerFilter, Query()],
    accept: Accept = "",
) -> Response:
    """The telemetry that a job with `telemetry` in its spec has recorded: as JSON, or as CSV with a line for each
    sampled step, both in pages whose header `Link` leads to the next one. Or as a figure of one training, in no pages:
    that of the first trial of the job's first run, unless the query names another. Of more than 100 epochs the figure
    shows every second, third, …"""
    kind = chosen_format(query.format, accept, ("json", "csv", "png", "svg"))
    match kind:
        case "png" | "svg":
            return _figure(services, job_id, query, kind)
    with services.store.read() as session:
        get_job(session, job_id)
        of_jobs.check_label(session, job_id, query.label)
        page = layers_of(session, job_id, **query.model_dump(exclude={"format"}))
    items = [answers.LayerEpoch.model_validate(row) for row in page.items]
    content: str | bytes
    if kind == "csv":
        content = csv_text(answers.LAYER_COLUMNS, chain.from_iterable(item.table_rows() for item in items))
    else:
        content = to_json(answers.LayerPage(job_id=job_id, items=items, next_cursor=page.next_cursor))
    return file_answer(content, kind, f"{job_id}-layers", next_page(request, page.next_cursor))


def _figure(services: Services, job_id: str, query: LayerFilter, kind: Literal["png", "svg"]) -> Response:
    with services.store.read() as session:
        job = get_job(session, job_id)
        of_jobs.check_label(session, job_id, query.label)
        rows = layers_of_training(
            session,
            job_id,
            label=query.label,
            trial=query.trial or 1,
            layer=query.layer,
            first_epoch=query.first_epoch,
            last_epoch=query.last_epoch,
            most_epochs=FIGURE_EPOCHS,
        )
    training = f", {rows[0].label} {rows[0].trial}" if rows else ""
    title = f"{job.model} on {job.dataset}, {job.optimizer}, batch {job.global_batch_size} ({job.id}{training})"
    figure = services.computing.run(layers_figure, title, curves(rows, FIGURE_POINTS), kind)
    return file_answer(figure, kind, f"{job_id}-layers")
