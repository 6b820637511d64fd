"""The forecast of a job as the API answers with it: a function from values to bytes, to be run in a process of its
own."""

from service.algorithms.cost import Cost, forecast
from service.algorithms.epoch_plan import iterations_per_epoch
from service.spec.job import JobSpec
from service.wire import answers


def plan_json(spec: JobSpec, train_samples: int) -> bytes:
    """The answer about what a job with this spec would take, as JSON; `train_samples` are those that are not held out.
    Raises InvalidInput where an epoch has no whole batch."""
    answer = answers.Plan(
        train_samples=train_samples,
        iterations_per_epoch=iterations_per_epoch(spec, train_samples),
        runs=[_run(cost) for cost in forecast(spec, train_samples)],
    )
    return answer.model_dump_json().encode()


def _run(cost: Cost) -> answers.RunCost:
    plan = cost.plan
    return answers.RunCost(
        label=cost.label,
        method=cost.method,
        trainings=cost.trainings,
        samples=cost.samples,
        iterations=cost.iterations,
        relative_to_sweep=cost.relative_to_sweep,
        pretrain_iterations=None if plan is None else plan.pretrain_iterations,
        main_train_iterations=None if plan is None else plan.main_train_iterations,
        search_area=[answers.SearchArea(epoch=area.epoch, low=area.low, high=area.high) for area in cost.search_area],
    )
