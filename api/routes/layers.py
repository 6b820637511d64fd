"""Telemetry of layers: norms and trust ratios at sampled steps of a training."""

from itertools import chain
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from api.deps import FORMAT, MAX_INT, Accept, JobId, RunLabel, Services, ServicesOf, Text
from api.figures import layers_figure
from api.formats import NEXT_PAGE, chosen_format, csv_text, documented_formats, file_answer, next_page
from api.problems import documented
from service.results import of_jobs
from service.results.layer_norms import curves
from service.store.jobs import get_job
from service.store.layers import layers_of, layers_of_training
from service.wire import answers

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["history"])

FIGURE_EPOCHS = 100  # read for a figure
FIGURE_POINTS = 1000  # of a line: about as many pixels


class LayerFilter(BaseModel):
    """The query of a job's layers."""

    label: RunLabel | None = Field(None, description="Of the run with this label alone.")
    trial: int | None = Field(None, ge=1, le=MAX_INT, description="Of this trial of each run alone.")
    layer: Text | None = Field(None, description="The whole name, exactly.")
    first_epoch: int | None = Field(None, ge=1, le=MAX_INT, description="No earlier epoch.")
    last_epoch: int | None = Field(None, ge=1, le=MAX_INT, description="No later epoch.")
    limit: int = Field(100, ge=1, le=1000, description="Layers, each in one epoch, on a page.")
    cursor: Text | None = Field(None, description="`next_cursor` of the page before.")
    format: Literal["json", "csv", "png", "svg"] | None = Field(None, description=FORMAT)


@router.get(
    "/layers",
    summary="Norms and trust ratios of each layer",
    response_model=answers.LayerPage,
    responses={200: documented_formats("csv", "png", "svg") | NEXT_PAGE, **documented(404, 422)},
)
def layers(
    services: ServicesOf,
    request: Request,
    job_id: JobId,
    query: Annotated[LayerFilter, Query()],
    accept: Accept = "",
) -> Response:
    """What a job with `telemetry` has recorded. JSON, or CSV with a line a sampled step, in pages; in both the header
    `Link` leads to the next one. Or a figure of one training, which knows no pages: of the first trial, of the job's
    first run, unless the query says another; of more than 100 epochs it shows every second, third, …"""
    kind = chosen_format(query.format, accept, ("json", "csv", "png", "svg"))
    match kind:
        case "png" | "svg":
            return _figure(services, job_id, query, kind)
    with services.store.read() as session:
        get_job(session, job_id)
        of_jobs.check_label(session, job_id, query.label)
        page = layers_of(session, job_id, **query.model_dump(exclude={"format"}))
    items = [answers.LayerEpoch.model_validate(row) for row in page.items]
    if kind == "csv":
        content = csv_text(answers.LAYER_COLUMNS, chain.from_iterable(item.table_rows() for item in items))
    else:
        content = answers.LayerPage(job_id=job_id, items=items, next_cursor=page.next_cursor).model_dump_json()
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
    return file_answer(layers_figure(title, curves(rows, FIGURE_POINTS), kind), kind, f"{job_id}-layers")
