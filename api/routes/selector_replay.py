"""The route to what another selector would have chosen."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import TypeAdapter, ValidationError

from api.deps import JobId, RunLabel, ServicesOf
from api.problems import documented
from service.algorithms.selectors import MAXIMIZE
from service.errors import FieldError, InvalidInput
from service.results import of_jobs
from service.results.selector_replay import replay
from service.spec.methods.stpt import StptMethod
from service.spec.stpt import Selector, SelectorName
from service.store.jobs import get_job, job_spec
from service.wire import answers

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["history"])


@router.get("/selector-replay", summary="What another selector would have chosen", responses=documented(404, 422))
def selector_replay(
    services: ServicesOf,
    job_id: JobId,
    selector: Annotated[SelectorName, Query(description="Name of the other selector.")],
    label: Annotated[RunLabel | None, Query(description="Label of a run of stpt; default: the first.")] = None,
    tolerance: Annotated[
        float | None, Query(ge=0, le=1, description="Option of the selector `tolerance`; default: its own.")
    ] = None,
) -> answers.SelectorReplay:
    """What another selector would have chosen at each epoch of each trial of a run, from the stored branches; nothing
    is trained. Each choice starts from the learning rate that the trial really had."""
    options = {"name": selector} | ({} if tolerance is None else {"tolerance": tolerance})
    try:
        other: Selector = TypeAdapter[Selector](Selector).validate_python(options)
    except ValidationError:
        message = f"selector {selector} has no tolerance; leave it out"
        raise InvalidInput([FieldError("tolerance", tolerance, message)]) from None
    with services.store.read() as session:
        spec = job_spec(get_job(session, job_id))
        method = of_jobs.method_of(spec, job_id, StptMethod, label)
        trials = of_jobs.stored_epochs(session, job_id, method.label)
    first, maximize = method.first_learning_rate(spec), MAXIMIZE[method.metric]
    items = [
        answers.ReplayedEpoch(
            trial=trial,
            epoch=step.epoch,
            recorded_learning_rate=step.recorded,
            learning_rate=step.replayed,
            regret=step.regret,
        )
        for trial, epochs in trials.items()
        for step in replay(other, epochs, initial_learning_rate=first, maximize=maximize)
    ]
    same = [item.recorded_learning_rate == item.learning_rate for item in items]
    return answers.SelectorReplay(
        job_id=job_id,
        selector=other.model_dump(),
        agreement=sum(same) / len(same) if same else None,
        items=items,
    )
