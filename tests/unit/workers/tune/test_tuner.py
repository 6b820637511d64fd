"""A search's searcher proposes what was planned."""

from typing import cast

from ray.tune.search import Searcher

from service.algorithms.search_space import most_trials
from service.spec.job import JobSpec
from service.spec.methods.grid import GridMethod
from tests.builders import spec_document
from workers.tune.tuner import make_searcher


def test_a_grid_of_whole_numbers_is_searched_as_it_was_planned() -> None:
    grid = {"name": "grid", "search_space": {"optimizer.delay_epochs": {"lograndint": [1, 10]}}, "max_trials": 9}
    spec = JobSpec.model_validate(spec_document(methods=[grid], optimizer="tvlars"))
    method = cast(GridMethod, spec.methods[0])
    searcher = make_searcher(spec, method, seed=0, samples=100, budget=None, admit=lambda key: True)
    assert isinstance(searcher, Searcher)
    proposed = [searcher.suggest(str(number)) for number in range(most_trials(spec, method, 100, None))]
    assert [config["optimizer.delay_epochs"] for config in proposed] == [1, 2, 3, 4, 5, 6, 8]
