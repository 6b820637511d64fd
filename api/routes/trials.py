"""The route to the trials of a job: its trainings."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BeforeValidator

from api import translate
from api.deps import JobId, RunLabel, ServicesOf, split
from api.problems import documented
from service.results import of_jobs
from service.store.jobs import check_job
from service.store.trials import trials_with_results
from service.wire import answers
from service.wire.worker import TrialState

router = APIRouter(prefix="/v1", tags=["comparison"])


@router.get("/jobs/{job_id}/trials", summary="Every training of every run", responses=documented(404, 422))
def trials(
    services: ServicesOf,
    job_id: JobId,
    label: Annotated[RunLabel | None, Query(description="Only trials of the run with this label.")] = None,
    state: Annotated[
        list[TrialState],
        BeforeValidator(split),
        Query(description="Only trials in these states; repeated or comma separated."),
    ] = [],  # noqa: B006 - FastAPI reads it
) -> answers.TrialList:
    """Lists every training of the job, by run in the order of the spec, and by number. A search adds its trials as they
    begin."""
    with services.store.read() as session:
        check_job(session, job_id)
        of_jobs.check_label(session, job_id, label)
        found = trials_with_results(session, job_id, label=label, state=state)
    return answers.TrialList(job_id=job_id, items=[translate.trial_result(trial) for trial in found])
