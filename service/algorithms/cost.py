"""What a job will take, run by run, and the learning rates within its reach, forecast from its spec alone."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from service.algorithms.candidates import first_candidates, rules
from service.algorithms.epoch_plan import samples_per_epoch
from service.algorithms.race import reach
from service.algorithms.search_space import budget_samples
from service.spec.job import JobSpec
from service.spec.lr_set import RaceLrSet
from service.spec.methods.base import Facts
from service.spec.methods.stpt import EpochPlan, StptMethod

MOST_AREAS = 1000  # of a forecast: about as many as a figure has pixels


@dataclass(frozen=True)
class SearchArea:
    """The smallest and largest learning rate that a Pre-train of `epoch` can try (STPT, Yamada et al., Fig. 9)."""

    epoch: int
    low: float
    high: float


@dataclass(frozen=True)
class Cost:
    """The training work of one run over all its seeds, search included, evaluation not; an upper bound where candidates
    coincide. `plan` is None and `search_area` empty where the run has no Pre-trains."""

    label: str
    method: str
    trainings: int
    samples: int
    iterations: float  # of the global batch: samples / global_batch_size
    relative_to_sweep: float  # to a whole training for each candidate, STPT's conventional method
    plan: EpochPlan | None = None
    search_area: Sequence[SearchArea] = ()


def forecast(spec: JobSpec, train_samples: int) -> list[Cost]:
    """Return the cost of each run of the job over all its seeds, in the order of its methods; `train_samples` are those
    of the dataset that are not held out (STPT, Yamada et al., Fig. 4: 87.5 % less than the sweep for 8 candidates on 8
    workers). It is an upper bound where a search stops trials early and where candidates are equal after the cap;
    candidates that a stage adds without a budget are not foreseen. Raises InvalidInput where an epoch has no whole
    batch."""
    facts = _facts(spec, train_samples)
    facts = replace(facts, budget=budget_samples(spec, facts.epoch_samples, _measure(spec, facts)))
    sweep = _most_branches(spec) * spec.epochs * facts.epoch_samples
    searching = {method.label: method for method in spec.methods_of(StptMethod)}
    costs = []
    for method in spec.methods:
        work = method.work(spec, facts)
        samples = spec.seeds * work.samples
        cost = Cost(
            label=method.label,
            method=method.name,
            trainings=spec.seeds * work.trainings,
            samples=samples,
            iterations=samples / spec.global_batch_size,
            relative_to_sweep=samples / sweep,
        )
        if stpt := searching.get(method.label):
            budget = facts.budget if stpt.holds_budget(spec) else None
            shares = stpt.shares(spec, facts.epoch_samples, budget)
            plan = stpt.training_plan(spec, facts.epoch_samples, shares)
            trained = spec.model_copy(update={"epochs": shares.epochs})
            area = search_area(trained, stpt, has_room=shares.race is not None)
            cost = replace(cost, plan=plan, search_area=area)
        costs.append(cost)
    return costs


def _facts(spec: JobSpec, train_samples: int) -> Facts:
    """What the job, or a trial of it, amounts to, without a budget."""
    return Facts(
        candidates=first_candidates(spec),
        epoch_samples=samples_per_epoch(spec, train_samples),
        budget=None,
        of_trial=lambda trial: _facts(trial, train_samples),
    )


def _measure(spec: JobSpec, facts: Facts) -> int | None:
    """Samples of the run that budgets are relative to."""
    label = spec.measuring_run
    return next((method.work(spec, facts).samples for method in spec.methods if method.label == label), None)


def _most_branches(spec: JobSpec) -> int:
    """Candidates of the job's widest Pre-train, each from where it begins; without stpt, of what its lr_set tries."""
    return max(
        (
            len(rule.candidates(start))
            for method in spec.methods_of(StptMethod) or [StptMethod()]
            for first, start in [method.first_pretrain(spec)]
            for _, _, rule in rules(spec, method, first, spec.epochs)
        ),
        default=1,
    )


def search_area(spec: JobSpec, method: StptMethod, *, has_room: bool = True) -> list[SearchArea]:
    """The smallest and largest candidate of each epoch behind the warm-up, whatever is chosen (STPT, Yamada et al.,
    Fig. 9); of more than MOST_AREAS epochs those of every second, third, … and of the last. A race has its probes and
    its window among them; `has_room` says whether the search's share of the training has room for one."""
    areas = []
    lr_set = method.candidates_of(spec)
    first, low = method.first_pretrain(spec)
    high, step = low, -(-(spec.epochs - first + 1) // MOST_AREAS) or 1
    for begin, end, rule in rules(spec, method, first, spec.epochs):
        rule, before = rule.narrowed(), begin - 1
        for epoch in sorted({begin, *range(begin + (first - begin) % step, end + 1, step), end}):
            if isinstance(lr_set, RaceLrSet) and epoch == first:
                cap = lr_set.max_learning_rate
                looks = lr_set.first_looks(low)
                low, high = reach(looks, spec.optimizer.name, cap) if has_room else (min(low, cap), min(high, cap))
            else:
                low, high = rule.reach(low, high, epoch - before)
            before = epoch
            if (epoch - first) % step == 0 or epoch == spec.epochs:
                areas.append(SearchArea(epoch, low, high))
    return areas
