"""Population-based bandits, as Ray Tune has them."""

from functools import partial

from ray.tune.schedulers import TrialScheduler
from ray.tune.schedulers.pb2 import PB2
from ray.tune.search import BasicVariantGenerator, SearchAlgorithm, Searcher

from service.spec.methods.pb2 import Pb2Method
from workers.methods.pbt import within
from workers.tune.searchers import TIME, Ask, Space


def make_searcher(method: Pb2Method, ask: Ask) -> Searcher | SearchAlgorithm:
    """Return what draws the first hyperparameters of each member."""
    return BasicVariantGenerator(random_state=ask.seed)  # its scheduler takes no other


def make_scheduler(method: Pb2Method, space: Space, epochs: int) -> TrialScheduler:
    """Return what lets bad members go on from good ones, in trainings of at most `epochs` epochs each."""
    return PB2(
        time_attr=TIME,
        perturbation_interval=method.interval(epochs),
        hyperparam_bounds={key: distribution.extremes for key, distribution in space.items()},
        custom_explore_fn=partial(within, space),  # it proposes single precision, which may lie outside by a rounding
        synch=True,  # nobody copies from the past, and runs with one seed agree
    )
