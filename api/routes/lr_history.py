"""The learning-rate history of a job, as JSON or CSV."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from starlette.responses import Response

from api import translate
from api.deps import FORMAT, Accept, JobId, ServicesOf
from api.formats import chosen_format, documented_formats, file_answer, to_json
from api.problems import documented
from service.store.epochs import lr_steps_of
from service.store.jobs import check_job
from service.wire import answers
from service.wire.csv_text import csv_text

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["history"])


@router.get(
    "/lr-history",
    summary="The learning rate of every epoch",
    response_model=answers.LrHistory,
    responses={200: documented_formats("csv"), **documented(404, 422)},
)
def lr_history(
    services: ServicesOf,
    job_id: JobId,
    format_: Annotated[Literal["json", "csv"] | None, Query(alias="format", description=FORMAT)] = None,
    accept: Accept = "",
) -> Response:
    """Lists the learning rate of every epoch of the job. The answer is CSV when `format=csv` or the Accept header
    prefers text/csv, else JSON. In CSV the candidates share one cell, separated by spaces, and a null is an empty
    cell."""
    kind = chosen_format(format_, accept, ("json", "csv"))
    with services.store.read() as session:
        check_job(session, job_id)
        steps = lr_steps_of(session, job_id)
    history = translate.lr_history(job_id, steps)
    content: str | bytes
    if kind == "csv":
        content = csv_text(list(answers.LrStep.model_fields), [step.model_dump() for step in history.items])
    else:
        content = to_json(history)
    return file_answer(content, kind, f"{job_id}-lr-history")
