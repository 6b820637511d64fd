"""Queries over many epochs: results of trials, what a comparison is made of, the history of all jobs, past choices."""

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, func, or_, select, tuple_
from sqlalchemy.orm import Session, aliased, selectinload

from service.results.layer_norms import LayerEpoch
from service.spec.task import TaskName
from service.store.engine import Page, decode_cursor, page_of
from service.store.tables import Epoch, Job, Layer, Run, Trial
from service.wire.states import JobState


def trials_with_results(
    session: Session, job_id: str, *, method: str | None = None, state: Sequence[str] = ()
) -> Sequence[tuple[str, Trial, int, int, Epoch | None, Epoch | None]]:
    """Every trial of a job: (method, trial, recorded epochs, their training samples, the epoch with the best validation
    accuracy, the last epoch). Of equal validation accuracies the first epoch counts."""
    ranked = (
        select(
            Epoch.id,
            Epoch.trial_id,
            func.count().over(partition_by=Epoch.trial_id).label("epochs"),
            func.sum(Epoch.samples).over(partition_by=Epoch.trial_id).label("samples"),
            _rank(Epoch.val_accuracy.desc(), Epoch.epoch).label("by_accuracy"),
            _rank(Epoch.epoch.desc()).label("by_number"),
        )
        .join(Trial)
        .join(Run)
        .where(Run.job_id == job_id)
        .subquery()
    )
    best_rank, last_rank = aliased(ranked), aliased(ranked)
    best, last = aliased(Epoch), aliased(Epoch)
    query = (
        select(
            Run.method, Trial, func.coalesce(last_rank.c.epochs, 0), func.coalesce(last_rank.c.samples, 0), best, last
        )
        .join(Trial, Trial.run_id == Run.id)
        .outerjoin(best_rank, and_(best_rank.c.trial_id == Trial.id, best_rank.c.by_accuracy == 1))
        .outerjoin(last_rank, and_(last_rank.c.trial_id == Trial.id, last_rank.c.by_number == 1))
        .outerjoin(best, best.id == best_rank.c.id)
        .outerjoin(last, last.id == last_rank.c.id)
        .where(Run.job_id == job_id)
        .order_by(Run.id, Trial.number)
    )
    if method is not None:
        query = query.where(Run.method == method)
    if state:
        query = query.where(Trial.state.in_(state))
    return [
        (method, trial, int(epochs), int(samples), best, last)
        for method, trial, epochs, samples, best, last in session.execute(query)
    ]


def _rank(*order: Any) -> ColumnElement[int]:
    return func.row_number().over(partition_by=Epoch.trial_id, order_by=order)


def points_of(session: Session, job_id: str) -> Sequence[tuple[Any, ...]]:
    """Every epoch of a job in the order recorded: method, seed, samples, val_accuracy, test_accuracy,
    evaluation_samples, seconds, recorded_at."""
    query = (
        select(
            Run.method,
            Trial.seed,
            Epoch.samples,
            Epoch.val_accuracy,
            Epoch.test_accuracy,
            Epoch.evaluation_samples,
            Epoch.seconds,
            Epoch.recorded_at,
        )
        .join(Trial, Trial.run_id == Run.id)
        .join(Epoch, Epoch.trial_id == Trial.id)
        .where(Run.job_id == job_id)
        .order_by(Epoch.recorded_at, Epoch.id)
    )
    return [tuple(row) for row in session.execute(query)]


def study_trials(session: Session, job_id: str) -> Sequence[tuple[Trial, Sequence[float]]]:
    """The trials of a job's study that have begun, each with the test accuracies of its epochs in order."""
    query = (
        select(Trial)
        .join(Run, Run.id == Trial.run_id)
        .where(Run.job_id == job_id, Run.method == "study")
        .options(selectinload(Trial.epochs))
        .order_by(Trial.number)
    )
    return [(trial, [epoch.test_accuracy for epoch in trial.epochs]) for trial in session.scalars(query)]


def has_study_trials(session: Session, job_id: str, states: Sequence[str]) -> bool:
    """Whether any trial of the job's study is in one of these states."""
    query = select(Trial.id).join(Run, Run.id == Trial.run_id)
    query = query.where(Run.job_id == job_id, Run.method == "study", Trial.state.in_(states))
    return session.scalar(query.limit(1)) is not None


def epochs_of_all_jobs(
    session: Session,
    *,
    model: str | None = None,
    dataset: str | None = None,
    optimizer: str | None = None,
    batch: int | None = None,
    method: str | None = None,
    state: Sequence[JobState] = (),
    limit: int,
    cursor: str | None = None,
) -> Page[Mapping[str, Any]]:
    """The learning rate of every epoch of every job: newest jobs first; inside a job by run, trial and epoch.

    Optimizer and batch are those of the trial, where a search has chosen them, else those of the job.
    """
    searched = Trial.config["optimizer"]
    its_optimizer = func.coalesce(Trial.config["optimizer", "name"].as_string(), searched.as_string(), Job.optimizer)
    its_batch = func.coalesce(Trial.config["global_batch_size"].as_integer(), Job.global_batch_size)
    place = tuple_(Run.id, Trial.number, Epoch.epoch)
    query = (
        select(
            Job.number.label("job_number"),
            Run.id.label("run_id"),
            Job.id.label("job_id"),
            Job.model,
            Job.dataset,
            its_optimizer.label("optimizer"),
            its_batch.label("global_batch_size"),
            Run.method,
            Trial.number.label("trial"),
            Trial.seed,
            Epoch.epoch,
            Epoch.phase,
            Epoch.learning_rate,
            Epoch.first_learning_rate,
            Epoch.last_learning_rate,
            Epoch.val_accuracy,
            Epoch.test_accuracy,
            Epoch.samples,
        )
        .join(Run, Run.job_id == Job.id)
        .join(Trial, Trial.run_id == Run.id)
        .join(Epoch, Epoch.trial_id == Trial.id)
        .order_by(Job.number.desc(), Run.id, Trial.number, Epoch.epoch)
        .limit(limit + 1)
    )
    its_own = [(its_optimizer, optimizer), (its_batch, batch), (Run.method, method)]
    wanted = [(Job.model, model), (Job.dataset, dataset), *its_own]
    query = query.where(*(column == value for column, value in wanted if value is not None))
    if state:
        query = query.where(Job.state.in_(state))
    if cursor is not None:
        number, *after = decode_cursor(cursor, 4)
        query = query.where(or_(Job.number < number, and_(Job.number == number, place > tuple_(*after))))
    rows = [row._asdict() for row in session.execute(query)]
    return page_of(rows, limit, itemgetter("job_number", "run_id", "trial", "epoch"))


def succeeded_stpt_epochs(
    session: Session, *, model: str, dataset: str, path: str | None, task: TaskName, optimizer: str | None, limit: int
) -> Sequence[tuple[Job, Trial]]:
    """The trials of stpt, with their epochs, of the newest `limit` succeeded jobs that have such a run, newest first.
    `path`: the folder, of an image-folder."""
    its_task = func.coalesce(Job.spec["task", "name"].as_string(), "classification")  # the oldest jobs name none
    jobs = (
        select(Job.number)
        .join(Run, Run.job_id == Job.id)
        .where(Job.state == JobState.SUCCEEDED, Job.model == model, Job.dataset == dataset, its_task == task)
        .where(Run.method == "stpt")
        .order_by(Job.number.desc())
        .limit(limit)
    )
    if path is not None:
        jobs = jobs.where(Job.spec["dataset", "path"].as_string() == path)
    if optimizer is not None:
        jobs = jobs.where(Job.optimizer == optimizer)
    query = (
        select(Job, Trial)
        .join(Run, Run.job_id == Job.id)
        .join(Trial, Trial.run_id == Run.id)
        .where(Job.number.in_(jobs.scalar_subquery()), Run.method == "stpt")
        .options(selectinload(Trial.epochs))
        .order_by(Job.number.desc(), Trial.number)
    )
    return [(job, trial) for job, trial in session.execute(query) if trial.epochs]


def layers_of(
    session: Session,
    job_id: str,
    *,
    method: str | None = None,
    trial: int | None = None,
    layer: str | None = None,
    first_epoch: int | None = None,
    last_epoch: int | None = None,
    limit: int,
    cursor: str | None = None,
) -> Page[LayerEpoch]:
    """Telemetry of a job by run, trial, epoch and layer, the latter from the input on."""
    query = _layers(job_id, method, trial, layer, first_epoch, last_epoch).limit(limit + 1)
    if cursor is not None:
        query = query.where(tuple_(Run.id, Trial.number, Epoch.epoch, Layer.number) > tuple_(*decode_cursor(cursor, 4)))
    page = page_of(session.execute(query).all(), limit, itemgetter(0, 3, 4, 1))  # run, trial, epoch, layer
    return Page([LayerEpoch(*row[2:]) for row in page.items], page.next_cursor)


def layers_of_training(
    session: Session,
    job_id: str,
    *,
    method: str | None,
    trial: int,
    layer: str | None,
    first_epoch: int | None,
    last_epoch: int | None,
    most_epochs: int,
) -> Sequence[LayerEpoch]:
    """The same of one trial, of the job's first run unless a method is named, and of every second, third, … epoch
    alone where there are more than `most_epochs`."""
    if method is None:
        method = session.scalar(select(Run.method).where(Run.job_id == job_id).order_by(Run.id).limit(1))
    query = _layers(job_id, method, trial, layer, first_epoch, last_epoch)
    numbers = query.with_only_columns(Epoch.epoch, maintain_column_froms=True).order_by(None).distinct()
    epochs = sorted(session.scalars(numbers))
    kept = epochs[:: max(1, -(-len(epochs) // most_epochs))]
    return [LayerEpoch(*row[2:]) for row in session.execute(query.where(Epoch.epoch.in_(kept)))]


def _layers(
    job_id: str,
    method: str | None,
    trial: int | None,
    layer: str | None,
    first_epoch: int | None,
    last_epoch: int | None,
) -> Select[*tuple[Any, ...]]:
    """Run, number of the layer, and the fields of LayerEpoch."""
    query: Select[*tuple[Any, ...]] = (
        select(
            Run.id,
            Layer.number,
            Run.method,
            Trial.number,
            Epoch.epoch,
            Epoch.attempt,
            Layer.name,
            Layer.first_step,
            Layer.every,
            Layer.lwn,
            Layer.lgn,
            Layer.trust_ratio,
        )
        .join(Trial, Trial.run_id == Run.id)
        .join(Epoch, Epoch.trial_id == Trial.id)
        .join(Layer, Layer.epoch_id == Epoch.id)
        .where(Run.job_id == job_id)
        .order_by(Run.id, Trial.number, Epoch.epoch, Layer.number)
    )
    wanted = [(Run.method, method), (Trial.number, trial), (Layer.name, layer)]
    query = query.where(*(column == value for column, value in wanted if value is not None))
    if first_epoch is not None:
        query = query.where(Epoch.epoch >= first_epoch)
    if last_epoch is not None:
        query = query.where(Epoch.epoch <= last_epoch)
    return query
