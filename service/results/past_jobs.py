"""What past jobs in SQL teach: a learning rate to begin with, and what a spec takes from them."""

from service.errors import FieldError, InvalidInput, NotFound
from service.results.of_jobs import method_of
from service.results.recommendation import PastRun, Recommendation, recommend
from service.results.schedule_replay import with_schedules
from service.spec.data import FolderDataset
from service.spec.job import JobSpec
from service.spec.lr_set import HISTORY_LR_SET, HistoryLrSet
from service.spec.methods.stpt import StptMethod
from service.spec.task import TaskName
from service.store.engine import Session
from service.store.trials import succeeded_stpt_trainings

EVIDENCE_JOBS = 100  # the newest so many are asked for a recommendation


def complete(session: Session, spec: JobSpec, accepted: JobSpec | None = None) -> JobSpec:
    """The spec with what it takes from past jobs in place: schedules to replay, and learning rates of the history.

    `accepted` is the spec of the job that the same request has made before; what it was given stays, whatever was
    learned since. Raises InvalidInput where past jobs do not have what the spec takes.
    """
    spec = with_schedules(session, spec)
    if not isinstance(spec.lr_set, HistoryLrSet):
        return spec
    if accepted is not None and accepted.lr_set == HISTORY_LR_SET:
        learning_rate = accepted.initial_learning_rate
    else:
        learning_rate = _from_history(session, spec).learning_rate
    return spec.model_copy(update={"lr_set": HISTORY_LR_SET, "initial_learning_rate": learning_rate})


def _from_history(session: Session, spec: JobSpec) -> Recommendation:
    dataset = spec.dataset
    try:
        return recommendation(
            session,
            model=spec.model,
            dataset=dataset.name,
            path=dataset.path if isinstance(dataset, FolderDataset) else None,
            optimizer=spec.optimizer.name,
            batch=spec.global_batch_size,
            task=spec.task.name,
        )
    except NotFound as error:
        raise InvalidInput([FieldError("lr_set.from_history", True, error.detail)]) from None


def recommendation(
    session: Session,
    *,
    model: str,
    dataset: str,
    path: str | None,
    optimizer: str | None,
    batch: int | None,
    task: TaskName = "classification",
) -> Recommendation:
    """What the newest EVIDENCE_JOBS succeeded jobs of this model, dataset and task that ran stpt recommend.

    `path` is the folder, of an image-folder. Without an optimizer, or a batch in samples, those of the best run are
    taken. Raises NotFound when there is no such job.
    """
    trainings = succeeded_stpt_trainings(
        session, model=model, dataset=dataset, path=path, task=task, optimizer=optimizer, limit=EVIDENCE_JOBS
    )
    runs = [
        PastRun(
            job_id=one.job_id,
            spec=one.spec.model_copy(update={"epochs": one.length}),  # which a budget may have changed
            method=method_of(one.spec, one.job_id, StptMethod, one.label),
            seed=one.seed,
            epochs=one.epochs,
        )
        for one in trainings
    ]
    found = recommend(runs, optimizer=optimizer, batch=batch)
    if found is None:
        how = "" if optimizer is None else f" with {optimizer}"
        where = dataset if path is None else f"{dataset} {path}"
        what = "job" if task == "classification" else f"{task} job"
        raise NotFound(
            f"no succeeded {what} has trained {model} on {where}{how} by stpt yet; submit one with lr_set left out, "
            "and what it chooses is recommended from then on"
        )
    return found
