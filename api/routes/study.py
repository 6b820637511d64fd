"""The routes to the tables of studies: that of one job, and that of all jobs of an experiment."""

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from api.deps import NO_NUL, Accept, JobId, RunLabel, ServicesOf
from api.figures import study_figure
from api.formats import chosen_format
from api.tables import TABLE_ANSWERS, TABLE_FORMATS, TableFormat, table_answer
from service.results import of_jobs
from service.store.jobs import get_job
from service.wire import answers

router = APIRouter(prefix="/v1", tags=["comparison"])


@router.get(
    "/jobs/{job_id}/study",
    summary="The table of a study",
    response_model=answers.Study,
    responses=TABLE_ANSWERS,
)
def study(
    services: ServicesOf,
    job_id: JobId,
    label: Annotated[RunLabel | None, Query(description="Label of the study; default: the first.")] = None,
    format_: TableFormat = None,
    accept: Accept = "",
) -> Response:
    """Test accuracy of every variant of a study at every batch size, over the seeds whose trial has ended: as JSON, as
    CSV, or as a figure of accuracy over epochs and, where there are several batch sizes, over batch size."""
    kind = chosen_format(format_, accept, TABLE_FORMATS)
    with services.store.read() as session:
        job = get_job(session, job_id)
        title = f"{job.model} on {job.dataset} ({job.id})"
        rows = of_jobs.study(session, [job], label)
    answer = answers.Study.model_validate({"job_id": job_id, "items": rows})
    return table_answer(
        answer,
        answers.STUDY_COLUMNS,
        kind,
        f"{job_id}-study",
        lambda drawn_as: services.computing.run(study_figure, title, rows, drawn_as),
    )


@router.get(
    "/study",
    summary="The studies of an experiment as one table",
    response_model=answers.ExperimentStudy,
    responses=TABLE_ANSWERS,
)
def study_of_experiment(
    services: ServicesOf,
    experiment: Annotated[
        str,
        Query(
            min_length=1, max_length=100, pattern=NO_NUL, description="Name of the experiment; the whole name, exactly."
        ),
    ],
    format_: TableFormat = None,
    accept: Accept = "",
) -> Response:
    """Test accuracy of every variant at every batch size, over the studies of all jobs of an experiment taken as one.
    The jobs may differ in batch sizes, variants and seeds alone, and a variant must be the same in each. Where several
    jobs have trained the same point with the same seed, the newest counts. A job that ended without a result is left
    out."""
    kind = chosen_format(format_, accept, TABLE_FORMATS)
    with services.store.read() as session:
        jobs = of_jobs.study_jobs(session, experiment)
        title = f"{jobs[0].model} on {jobs[0].dataset} ({experiment})"
        rows = of_jobs.study(session, jobs)
    answer = answers.ExperimentStudy.model_validate({"experiment": experiment, "items": rows})
    return table_answer(
        answer,
        answers.STUDY_COLUMNS,
        kind,
        "study",
        lambda drawn_as: services.computing.run(study_figure, title, rows, drawn_as),
    )
