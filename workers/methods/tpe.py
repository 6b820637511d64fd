"""Builds a search by the tree-structured Parzen estimator, as Optuna has it."""

from optuna.samplers import TPESampler
from ray.tune.search import SearchAlgorithm, Searcher

from service.spec.methods.tpe import TpeMethod
from workers.tune.searchers import Ask, proposed_by_optuna


def make_searcher(method: TpeMethod, ask: Ask) -> Searcher | SearchAlgorithm:
    """The searcher that proposes the trials of TPE, for the job, seed and search space that `ask` names."""
    return proposed_by_optuna(TPESampler(seed=ask.seed), ask)
