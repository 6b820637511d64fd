"""Hyperband, with its brackets in the paper's order."""

import pytest

from service.spec.methods.hyperband import HyperbandMethod
from workers.methods.hyperband import HyperBand
from workers.tune.tuner import make_scheduler


@pytest.mark.parametrize(
    ("eta", "epochs", "brackets"),
    [
        (3, 9, [(9, 1), (5, 3), (3, 9)]),
        (3, 81, [(81, 1), (34, 3), (15, 9), (8, 27), (5, 81)]),  # Li et al. 2018, table 1
        (2, 4, [(4, 1), (3, 2), (3, 4)]),
    ],
)
def test_hyperbands_brackets_in_the_papers_order(eta: int, epochs: int, brackets: list[tuple[int, int]]) -> None:
    """Trials and epochs of each bracket's first rung."""
    scheduler = make_scheduler(HyperbandMethod(reduction_factor=eta), {}, epochs)
    assert isinstance(scheduler, HyperBand)
    made = [scheduler._create_bracket(s) for s in range(len(brackets))]
    assert [(bracket._n0, bracket._r0) for bracket in made] == brackets
    assert [bracket._halves for bracket in made] == list(reversed(range(len(brackets))))
