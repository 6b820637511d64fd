"""What past jobs in SQL teach: a learning rate to begin with, and what a spec takes from them."""

from collections.abc import Sequence
from functools import partial

from service.errors import FieldError, InvalidInput, NotFound
from service.results.recommendation import PastRun, Recommendation, recommend, schedule_of, settled_learning_rate
from service.results.schedule_replay import with_schedules
from service.spec.data import FolderDataset
from service.spec.job import JobSpec
from service.spec.lr_set import HISTORY_LR_SET, HistoryLrSet
from service.spec.methods.base import Schedule
from service.spec.methods.stpt import StptMethod
from service.spec.task import TaskName
from service.store.engine import Session
from service.store.epochs import results_of_trials
from service.store.jobs import job_spec, jobs_by_id
from service.store.records import Job, PastTraining, Trial
from service.store.trials import keep_settled, list_trials, succeeded_stpt_trainings

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
    settled = _settled(session, [one for one in trainings if one.settled_learning_rate is None])
    runs = [
        PastRun(
            job_id=one.job_id,
            seed=one.seed,
            optimizer=one.optimizer,
            global_batch_size=one.global_batch_size,
            lr_schedule=one.lr_schedule,
            learning_rate=settled[one.trial_id] if one.settled_learning_rate is None else one.settled_learning_rate,
            val_accuracy=one.val_accuracy,
            test_accuracy=one.test_accuracy,
            schedule=partial(_schedule, session, one),
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


def keep_settled_learning_rates(session: Session, job: Job) -> None:
    """Keep with each training of stpt of a job that has succeeded what its search came to, so that recommendations need
    not read its epochs."""
    spec = job_spec(job)
    its_stpt = {method.label: method for method in spec.methods_of(StptMethod)}
    trials = [trial for trial in list_trials(session, job.id) if trial.label in its_stpt]
    epochs = results_of_trials(session, [trial.id for trial in trials])
    for trial in trials:
        if its := epochs.get(trial.id):
            keep_settled(session, trial.id, settled_learning_rate(*_trained(spec, trial), its))


def _settled(session: Session, trainings: Sequence[PastTraining]) -> dict[int, float]:
    """What the searches of these trainings came to, by the ids of their trials, for those that it is not kept of: their
    jobs succeeded before it was."""
    if not trainings:
        return {}
    specs = {job.id: job_spec(job) for job in jobs_by_id(session, {one.job_id for one in trainings})}
    epochs = results_of_trials(session, [one.trial_id for one in trainings])
    return {
        one.trial_id: settled_learning_rate(*_trained(specs[one.job_id], one), epochs[one.trial_id])
        for one in trainings
    }


def _schedule(session: Session, training: PastTraining, factor: float) -> Schedule:
    [job] = jobs_by_id(session, {training.job_id})
    [epochs] = results_of_trials(session, [training.trial_id]).values()
    return schedule_of(*_trained(job_spec(job), training), epochs, factor)


def _trained(spec: JobSpec, training: PastTraining | Trial) -> tuple[JobSpec, StptMethod]:
    """The spec with as many epochs as the training had at most, which a budget may have changed, and its method."""
    [method] = [method for method in spec.methods_of(StptMethod) if method.label == training.label]
    return spec.model_copy(update={"epochs": training.length}), method
