"""The route to the comparison of the methods of a job."""

from fastapi import APIRouter
from starlette.responses import Response

from api.deps import Accept, JobId, ServicesOf
from api.figures import comparison_figure
from api.formats import chosen_format
from api.tables import TABLE_ANSWERS, TABLE_FORMATS, TableFormat, table_answer
from service.results import of_jobs
from service.store.engine import Session
from service.store.jobs import check_job, get_job
from service.wire import answers

router = APIRouter(prefix="/v1", tags=["comparison"])


@router.get(
    "/jobs/{job_id}/comparison",
    summary="The methods of a job side by side",
    response_model=answers.Comparison,
    responses=TABLE_ANSWERS,
)
def comparison(
    services: ServicesOf,
    job_id: JobId,
    format_: TableFormat = None,
    accept: Accept = "",
) -> Response:
    """Compares the runs of the job: as JSON; as CSV, with a line for each run and without the curves; or as a figure of
    accuracy over cost."""
    kind = chosen_format(format_, accept, TABLE_FORMATS)
    with services.store.read() as session:
        check_job(session, job_id)
        runs = of_jobs.comparison(session, job_id)
        title = _title(session, job_id) if kind in ("png", "svg") else ""
    answer = answers.Comparison.model_validate({"job_id": job_id, "items": runs})
    return table_answer(
        answer,
        answers.COMPARISON_COLUMNS,
        kind,
        f"{job_id}-comparison",
        lambda drawn_as: services.computing.run(comparison_figure, title, runs, drawn_as),
    )


def _title(session: Session, job_id: str) -> str:
    job = get_job(session, job_id)
    return f"{job.model} on {job.dataset}, {job.optimizer}, batch {job.global_batch_size} ({job.id})"
