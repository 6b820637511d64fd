"""Every epoch that a job has recorded."""

from fastapi import APIRouter

from api import translate
from api.deps import EpochNumber, JobId, ServicesOf
from api.problems import documented
from service.errors import NotFound
from service.store.epochs import epochs_of, get_epoch
from service.store.jobs import get_job
from service.store.trials import list_trials
from service.wire import answers

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["history"])


@router.get("/epochs", summary="Every recorded epoch", responses=documented(404, 422))
def epochs(services: ServicesOf, job_id: JobId) -> answers.EpochList:
    """Of all trainings of the job, by run, trial and epoch."""
    with services.store.read() as session:
        get_job(session, job_id)
        items = [translate.epoch(row) for row in epochs_of(session, job_id)]
        return answers.EpochList(job_id=job_id, items=items)


@router.get("/epochs/{epoch}", summary="One epoch of the first run, with its branches", responses=documented(404, 422))
def epoch(services: ServicesOf, job_id: JobId, epoch: EpochNumber) -> answers.EpochWithBranches:
    """Of the job's first training. The branches come in the order that they were tried in, retries included."""
    with services.store.read() as session:
        get_job(session, job_id)
        trials = list_trials(session, job_id)  # none, until the first search has begun
        row = get_epoch(session, trials[0][1].id, epoch) if trials else None
        if row is None:
            raise NotFound(
                f"epoch {epoch} of job {job_id} is not recorded; GET /v1/jobs/{job_id}/epochs lists those that are"
            )
        return translate.epoch_with_branches(row)
