"""Translates the store's records and results into the answers that the API gives."""

from collections.abc import Mapping, Sequence

from api.deps import Services, sight_of
from service.algorithms.batch_ramp import Ramp
from service.jobs.reasons import Queue, look_at_queue, reason_of
from service.results import recommendation
from service.store import records
from service.store.engine import Session
from service.store.shown import shown_job
from service.wire import answers


def read_job(services: Services, job_id: str) -> answers.Job:
    """The job of this id as it is now. Raises NotFound where the store has none."""
    with services.store.read() as session:
        [answer] = jobs(session, [shown_job(session, job_id)], services)
    return answer


def jobs(session: Session, rows: Sequence[records.ShownJob], services: Services) -> list[answers.Job]:
    """The answers about jobs, each with what its first training came to so far, and why it is in its state."""
    queue, url = look_at_queue(session, rows, sight_of(services.fleet)), services.fleet.dashboard_url
    return [_job(row, queue, url) for row in rows]


def _job(row: records.ShownJob, queue: Queue, dashboard_url: str) -> answers.Job:
    submission_id = None if row.last_attempt is None else row.last_attempt.submission_id
    training = row.first_training  # None where a search has not begun it yet
    path = f"/v1/jobs/{row.id}"
    return answers.Job(
        id=row.id,
        name=row.name,
        experiment=row.experiment,
        state=row.state,
        reason=reason_of(row, queue),
        queue_position=queue.positions.get(row.id),
        priority=row.priority,
        time_limit=row.time_limit,
        retry_of=row.retry_of,
        error=answers.JobError(code=row.error_code, message=row.error_message or "") if row.error_code else None,
        model=row.model,
        dataset=row.dataset,
        spec=row.spec,
        owner=row.owner,
        attempt=row.attempt,
        submission_id=submission_id,
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        epochs=row.spec["epochs"] if training is None else training.length,
        trials=row.trials,
        epochs_done=training.epochs_done if training else 0,
        learning_rate=training.learning_rate if training else None,
        val_accuracy=training.val_accuracy if training else None,
        test_accuracy=training.test_accuracy if training else None,
        links=answers.Links(
            self=path,
            epochs=f"{path}/epochs",
            lr_history=f"{path}/lr-history",
            events=f"{path}/events",
            ray_dashboard=f"{dashboard_url.rstrip('/')}/#/jobs/{submission_id}" if submission_id else None,
        ),
    )


def event(row: records.Event) -> answers.KnownEvent:
    """The answer about one thing that happened to a job, as the stream of events sends it."""
    when = {"number": row.number, "kind": row.kind, "created_at": row.created_at}
    return answers.KNOWN_EVENT.validate_python(row.data | when)


def lr_history(job_id: str, rows: Sequence[records.LrStep]) -> answers.LrHistory:
    """The learning rates of the epochs of a job; `rows` are in the order of their trainings."""
    so_far: dict[int, int] = {}
    items = []
    for row in rows:
        so_far[row.trial_id] = so_far.get(row.trial_id, 0) + row.samples
        items.append(
            answers.LrStep(
                label=row.label,
                method=row.method,
                trial=row.trial,
                epoch=row.epoch,
                attempt=row.attempt,
                phase=row.phase,
                learning_rate=row.learning_rate,
                first_learning_rate=row.first_learning_rate,
                last_learning_rate=row.last_learning_rate,
                candidates=list(row.candidates),
                val_accuracy=row.val_accuracy,
                val_loss=row.val_loss,
                test_accuracy=row.test_accuracy,
                samples=row.samples,
                samples_so_far=so_far[row.trial_id],
                seconds=row.seconds,
            )
        )
    return answers.LrHistory(job_id=job_id, items=items)


def trial_result(trial: records.TrialWithResults) -> answers.TrialResult:
    """The answer about a trial, with the accuracies of its best epoch and the learning rate of its last."""
    best, last = trial.best, trial.last
    return answers.TrialResult(
        label=trial.label,
        method=trial.method,
        trial=trial.number,
        seed=trial.seed,
        config=trial.config or {},
        state=trial.state,
        message=trial.message,
        epochs=trial.epochs,
        length=trial.length,
        samples=trial.samples,
        lost_samples=trial.lost_samples,
        val_accuracy=best.val_accuracy if best else None,
        test_accuracy=best.test_accuracy if best else None,
        best_epoch=best.epoch if best else None,
        learning_rate=last.learning_rate if last else None,
        last_learning_rate=last.last_learning_rate if last else None,
    )


def batch_ramps(job_id: str, ramps: Mapping[int, Ramp]) -> answers.BatchRamps:
    """The answer about the batch ramps of a job; `ramps` has one for each seed."""
    items = [
        {"seed": seed, "by_learning_rate": one.by_learning_rate, "by_momentum": one.by_momentum}
        for seed, one in ramps.items()
    ]
    return answers.BatchRamps.model_validate({"job_id": job_id, "items": items})


def recommended(model: str, dataset: str, found: recommendation.Recommendation) -> answers.Recommendation:
    """The answer about what past jobs of this model and dataset recommend."""
    names = answers.Recommendation.model_fields.keys() - {"model", "dataset", "evidence"}
    values = {name: getattr(found, name) for name in names}
    evidence = [answers.Evidence(**vars(one)) for one in found.evidence]
    return answers.Recommendation(model=model, dataset=dataset, evidence=evidence, **values)
