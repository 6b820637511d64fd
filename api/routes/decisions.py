"""The route that explains the learning rates of a job: each choice, or why none was made."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from starlette.responses import Response

from api.decisions_figure import decisions_figure
from api.deps import FORMAT, MAX_INT, Accept, JobId, RunLabel, ServicesOf
from api.formats import chosen_format, documented_formats, file_answer, to_json
from api.problems import documented
from service.results import of_jobs
from service.store.jobs import get_job
from service.wire import answers

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["history"])


@router.get(
    "/decisions",
    summary="Why the learning rates are what they are",
    response_model=answers.Decisions,
    responses={200: documented_formats("png", "svg"), **documented(404, 422, 503)},
)
def decisions(
    services: ServicesOf,
    job_id: JobId,
    label: Annotated[
        RunLabel | None,
        Query(description="Label of a run of stpt or autolrs; default: the first, of stpt if there is one."),
    ] = None,
    trial: Annotated[int, Query(ge=1, le=MAX_INT, description="Number of the trial in its run, from 1.")] = 1,
    format_: Annotated[Literal["json", "png", "svg"] | None, Query(alias="format", description=FORMAT)] = None,
    accept: Accept = "",
) -> Response:
    """How each epoch of a training of stpt or autolrs came to its learning rate: the candidates, the numbers of the
    rule that chose, what each other selector of stpt would have chosen from the same candidates, and warnings; where
    nothing was chosen, why the learning rate is what it is. As JSON, or as a figure of the learning rate over epochs
    with a panel for each choice; of more than twelve choices it shows every second, third, …"""
    kind = chosen_format(format_, accept, ("json", "png", "svg"))
    with services.store.read() as session:
        job = get_job(session, job_id)
        found = of_jobs.decisions(session, job_id, label=label, trial=trial)
    if kind == "json":
        answer = answers.Decisions(
            job_id=job_id,
            label=found.label,
            trial=trial,
            metric=found.metric,
            selector=dict(found.selector),
            items=[answers.Decision.model_validate(one) for one in found.decisions],
        )
        content = to_json(answer)
    else:
        title = f"{job.model} on {job.dataset}, {job.optimizer}, batch {job.global_batch_size}"
        title += f" ({job.id}, {found.label} {trial})"
        drawn_as: Literal["png", "svg"] = "png" if kind == "png" else "svg"
        content = services.computing.run(decisions_figure, title, found.decisions, found.metric, drawn_as)
    return file_answer(content, kind, f"{job_id}-decisions")
