"""The routes to the epochs that a job has recorded."""

from fastapi import APIRouter

from api.deps import EpochNumber, JobId, ServicesOf
from api.problems import documented
from service.errors import NotFound
from service.store.epochs import epochs_of, epochs_with_branches
from service.store.jobs import check_job
from service.store.trials import list_trials
from service.wire import answers

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["history"])


@router.get("/epochs", summary="Every recorded epoch", responses=documented(404, 422))
def epochs(services: ServicesOf, job_id: JobId) -> answers.EpochList:
    """Lists every recorded epoch of all trainings of the job, by run, trial and epoch."""
    with services.store.read() as session:
        check_job(session, job_id)
        found = epochs_of(session, job_id)
    return answers.EpochList(job_id=job_id, items=[answers.Epoch.model_validate(one) for one in found])


@router.get("/epochs/{epoch}", summary="One epoch of the first run, with its branches", responses=documented(404, 422))
def epoch(services: ServicesOf, job_id: JobId, epoch: EpochNumber) -> answers.EpochWithBranches:
    """One epoch of the job's first training, with its branches in the order in which they were tried, retries
    included."""
    with services.store.read() as session:
        check_job(session, job_id)
        trials = list_trials(session, job_id)  # none, until the first search has begun
        first = trials[0] if trials else None
        found = (
            epochs_with_branches(session, job_id, label=first.label, trial=first.number, epoch=epoch) if first else []
        )
    if not found:
        raise NotFound(
            f"epoch {epoch} of job {job_id} is not recorded; GET /v1/jobs/{job_id}/epochs lists those that are"
        )
    return answers.EpochWithBranches.model_validate(found[0])
