"""Builds BOHB, a search by multivariate TPE under Hyperband (after Falkner et al. 2018, arXiv 1807.01774)."""

from optuna.samplers import TPESampler
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import SearchAlgorithm, Searcher

from service.spec.methods.bohb import BohbMethod
from workers.methods.hyperband import HyperBand
from workers.tune.searchers import TIME, Ask, Space, proposed_by_optuna


def make_searcher(method: BohbMethod, ask: Ask) -> Searcher | SearchAlgorithm:
    """The searcher that proposes the trials of BOHB, by multivariate TPE, for the job, seed and search space that `ask`
    names."""
    return proposed_by_optuna(TPESampler(seed=ask.seed, multivariate=True), ask)


def make_scheduler(method: BohbMethod, space: Space, epochs: int) -> TrialScheduler:
    """The scheduler that stops trials early by Hyperband. `space` has the ranges of their hyperparameters; a trial
    trains `epochs` epochs at most."""
    return HyperBand(time_attr=TIME, max_t=epochs, reduction_factor=method.reduction_factor)
