"""Multivariate TPE under Hyperband (after Falkner et al. 2018, arXiv 1807.01774)."""

from optuna.samplers import TPESampler
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import SearchAlgorithm, Searcher

from service.spec.methods.bohb import BohbMethod
from workers.methods.hyperband import HyperBand
from workers.tune.searchers import TIME, Ask, Space, proposed_by_optuna


def make_searcher(method: BohbMethod, ask: Ask) -> Searcher | SearchAlgorithm:
    """Who proposes the trials."""
    return proposed_by_optuna(TPESampler(seed=ask.seed, multivariate=True), ask)


def make_scheduler(method: BohbMethod, space: Space, epochs: int) -> TrialScheduler:
    """Who stops trials early, of at most `epochs` epochs each."""
    return HyperBand(time_attr=TIME, max_t=epochs, reduction_factor=method.reduction_factor)
