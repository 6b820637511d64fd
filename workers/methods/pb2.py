"""Builds population-based bandits (PB2, Parker-Holder et al. 2020, arXiv 2002.02518), a search by Ray Tune."""

from functools import partial

from ray.tune.schedulers import TrialScheduler
from ray.tune.schedulers.pb2 import PB2
from ray.tune.search import BasicVariantGenerator, SearchAlgorithm, Searcher

from service.spec.methods.pb2 import Pb2Method
from workers.methods.pbt import within
from workers.tune.searchers import TIME, Ask, Space


def make_searcher(method: Pb2Method, ask: Ask) -> Searcher | SearchAlgorithm:
    """The searcher that proposes the trials of population-based bandits, their first hyperparameters drawn at random,
    for the job, seed and search space that `ask` names."""
    return BasicVariantGenerator(random_state=ask.seed)  # its scheduler takes no other


def make_scheduler(method: Pb2Method, space: Space, epochs: int) -> TrialScheduler:
    """Make the scheduler that has trials of low accuracy go on from the checkpoints of better ones, with
    hyperparameters that a Gaussian process proposes. `space` has the ranges of these; a trial trains `epochs` epochs at
    most."""
    return PB2(
        time_attr=TIME,
        perturbation_interval=method.interval(epochs),
        hyperparam_bounds={key: distribution.extremes for key, distribution in space.items()},
        custom_explore_fn=partial(within, space),  # it proposes single precision, which may lie outside by a rounding
        synch=True,  # nobody copies from the past, and runs with one seed agree
    )
