"""The route to the learning-rate history of all jobs."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, BeforeValidator, Field
from starlette.responses import Response

from api.deps import FORMAT, MAX_INT, Accept, AnyMethod, RunLabel, ServicesOf, Text, split
from api.formats import NEXT_PAGE, chosen_format, documented_formats, file_answer, next_page, to_json
from api.problems import documented
from service.spec.optimizer import OptimizerName
from service.store.epochs import epochs_of_all_jobs
from service.wire import answers
from service.wire.csv_text import csv_text
from service.wire.states import JobState

router = APIRouter(prefix="/v1", tags=["comparison"])


class HistoryFilter(BaseModel):
    """The query parameters of the learning-rate history of all jobs."""

    model: Text | None = Field(None, description="Only epochs of jobs with this model.")
    dataset: Text | None = Field(None, description="Only epochs of jobs on this dataset.")
    optimizer: OptimizerName | None = Field(None, description="Only epochs of jobs with this optimizer.")
    batch: int | None = Field(None, ge=1, le=MAX_INT, description="Only epochs of jobs with this global batch size.")
    method: AnyMethod | None = Field(None, description="Only epochs of runs of this method.")
    label: RunLabel | None = Field(None, description="Only epochs of runs with this label.")
    state: Annotated[list[JobState], BeforeValidator(split)] = Field(
        [], description="Only epochs of jobs in these states; repeated or comma separated."
    )
    limit: int = Field(500, ge=1, le=5000, description="Most epochs on a page.")
    cursor: Text | None = Field(None, description="`next_cursor` of the page before; default: the first page.")
    format: Literal["json", "csv"] | None = Field(None, description=FORMAT)


@router.get(
    "/lr-history",
    summary="The learning rate of every epoch of all jobs",
    response_model=answers.HistoryPage,
    responses={200: documented_formats("csv") | NEXT_PAGE, **documented(422)},
)
def lr_history(
    services: ServicesOf, request: Request, query: Annotated[HistoryFilter, Query()], accept: Accept = ""
) -> Response:
    """Lists the epochs of all jobs that match, newest jobs first; the epochs of a job come by run, trial and epoch.
    Pages stay put while new jobs arrive. The answer is JSON or CSV; in both the header `Link` leads to the next
    page."""
    kind = chosen_format(query.format, accept, ("json", "csv"))
    with services.store.read() as session:
        found = epochs_of_all_jobs(session, **query.model_dump(exclude={"format"}))
    content: str | bytes
    if kind == "csv":
        content = csv_text(list(answers.HistoryStep.model_fields), map(vars, found.items))
    else:
        # the store's records as they are: to make answers of them took most of the time
        content = to_json(found)
    return file_answer(content, kind, "lr-history", next_page(request, found.next_cursor))
