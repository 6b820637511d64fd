"""What a job's training did: epochs, branches, and the learning-rate history as JSON or CSV."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import TypeAdapter, ValidationError
from starlette.responses import Response

from api import schemas
from api.deps import FORMAT, MAX_INT, NO_NUL, Accept, EpochNumber, JobId, ServicesOf
from api.formats import chosen_format, csv_text, documented_formats, file_answer
from api.problems import documented
from service.algorithms.candidates import search_start
from service.algorithms.selectors import MAXIMIZE
from service.errors import FieldError, InvalidInput, NotFound
from service.results import of_jobs, schedule_replay
from service.results.selector_replay import replay
from service.spec.stpt import Selector, SelectorName
from service.store import jobs as stored_jobs
from service.store.epochs import branches_of, epochs_of, get_epoch
from service.store.jobs import get_job
from service.store.trials import list_trials

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["history"])


@router.get("/epochs", summary="Every recorded epoch", responses=documented(404, 422))
def epochs(services: ServicesOf, job_id: JobId) -> schemas.EpochList:
    with services.store.read() as session:
        get_job(session, job_id)
        items = [schemas.Epoch.of(row) for row in epochs_of(session, job_id)]
        return schemas.EpochList(job_id=job_id, items=items)


@router.get("/epochs/{epoch}", summary="One epoch of the first run, with its branches", responses=documented(404, 422))
def epoch(services: ServicesOf, job_id: JobId, epoch: EpochNumber) -> schemas.EpochWithBranches:
    with services.store.read() as session:
        get_job(session, job_id)
        trials = list_trials(session, job_id)  # none, until the first search has begun
        row = get_epoch(session, trials[0][1].id, epoch) if trials else None
        if row is None:
            raise NotFound(
                f"epoch {epoch} of job {job_id} is not recorded; GET /v1/jobs/{job_id}/epochs lists those that are"
            )
        branches = [schemas.Branch.model_validate(branch) for branch in row.branches]
        return schemas.EpochWithBranches.of(row, branches=branches)


@router.get("/branches", summary="Every branch of every Pre-train", responses=documented(404, 422))
def branches(
    services: ServicesOf,
    job_id: JobId,
    epoch: Annotated[int | None, Query(ge=1, le=MAX_INT, description="Of this epoch alone.")] = None,
) -> schemas.BranchList:
    with services.store.read() as session:
        get_job(session, job_id)
        items = [schemas.BranchOfEpoch.of(row) for row in branches_of(session, job_id, epoch)]
        return schemas.BranchList(job_id=job_id, items=items)


@router.get(
    "/lr-history",
    summary="The learning rate of every epoch",
    response_model=schemas.LrHistory,
    responses={200: documented_formats("csv"), **documented(404, 422)},
)
def lr_history(
    services: ServicesOf,
    job_id: JobId,
    format_: Annotated[Literal["json", "csv"] | None, Query(alias="format", description=FORMAT)] = None,
    accept: Accept = "",
) -> Response:
    """JSON, or CSV when `format=csv` or the Accept header prefers text/csv. In CSV the candidates share one cell,
    separated by spaces, and a null is an empty cell."""
    kind = chosen_format(format_, accept, ("json", "csv"))
    with services.store.read() as session:
        get_job(session, job_id)
        history = schemas.LrHistory.of(job_id, epochs_of(session, job_id))
    if kind == "csv":
        content = csv_text(list(schemas.LrStep.model_fields), [step.model_dump() for step in history.items])
    else:
        content = history.model_dump_json()
    return file_answer(content, kind, f"{job_id}-lr-history")


@router.get("/schedule", summary="The learning rates as a schedule", responses=documented(404, 409, 422))
def schedule(
    services: ServicesOf,
    job_id: JobId,
    method: Annotated[str | None, Query(max_length=50, pattern=NO_NUL, description="Default: the first run.")] = None,
    trial: Annotated[int, Query(ge=1, le=MAX_INT)] = 1,
) -> schemas.JobSchedule:
    """For `forerun.schedules.Replay`, or for the method `replay` of another job."""
    with services.store.read() as session:
        made, iterations = schedule_replay.schedule(session, job_id, method=method, trial=trial)
        name = method or stored_jobs.job_spec(get_job(session, job_id)).methods[0].name
    return schemas.JobSchedule(
        **made.model_dump(), job_id=job_id, method=name, trial=trial, iterations_per_epoch=iterations
    )


@router.get("/selector-replay", summary="What another selector would have chosen", responses=documented(404, 422))
def selector_replay(
    services: ServicesOf,
    job_id: JobId,
    selector: SelectorName,
    tolerance: Annotated[float | None, Query(ge=0, le=1, description="Of the selector tolerance.")] = None,
) -> schemas.SelectorReplay:
    """Offline, over the stored branches: each choice starts from the learning rate that the job really had."""
    options = {"name": selector} | ({} if tolerance is None else {"tolerance": tolerance})
    try:
        other: Selector = TypeAdapter[Selector](Selector).validate_python(options)
    except ValidationError:
        message = f"selector {selector} has no tolerance; leave it out"
        raise InvalidInput([FieldError("tolerance", tolerance, message)]) from None
    with services.store.read() as session:
        spec = stored_jobs.job_spec(get_job(session, job_id))
        epochs = of_jobs.stored_epochs(session, job_id)
    replayed = replay(other, epochs, initial_learning_rate=search_start(spec), maximize=MAXIMIZE[spec.metric])
    same = [step.recorded == step.replayed for step in replayed]
    return schemas.SelectorReplay(
        job_id=job_id,
        selector=other.model_dump(),
        agreement=sum(same) / len(same) if same else None,
        items=[
            schemas.ReplayedEpoch(
                epoch=step.epoch,
                recorded_learning_rate=step.recorded,
                learning_rate=step.replayed,
                regret=step.regret,
            )
            for step in replayed
        ],
    )
