"""What the audit tells of an epoch's choice, from the metrics of branches after alpha iterations and at its end."""

import math

import pytest

from service.algorithms.selectors import BranchResult
from service.spec.stpt import Audit
from workers.engine.trainer import Measurement
from workers.methods.audit import audit_record, draw, is_due
from workers.methods.branches import Branch


def branch(number: int, metric: float, end: float | None = None) -> Branch:
    return Branch(
        result=BranchResult(number, 0.1 * number, metric),
        retry=0,
        iterations=1,
        training=Measurement(1.0, 1.0, 1),
        seconds=0.0,
        place=number - 1,
        groups=1,
        slot=number - 1,
        end_metric=end,
    )


def test_every_so_many_epochs_from_the_first_pretrain_on() -> None:
    assert [epoch for epoch in range(3, 12) if is_due(Audit(every=4), epoch, first=3)] == [3, 7, 11]


def test_losers_are_drawn_in_their_order_alike_on_every_worker() -> None:
    losers = [branch(number, 1.0) for number in range(1, 9)]
    drawn = draw(losers, Audit(branches=3), seed=5, epoch=2)
    assert [loser.number for loser in drawn] == sorted({loser.number for loser in drawn})
    assert len(drawn) == 3
    assert draw(losers, Audit(branches=3), seed=5, epoch=2) == drawn
    assert draw(losers[:2], Audit(branches=3), seed=5, epoch=2) == losers[:2]


@pytest.mark.parametrize(("maximize", "regret"), [(False, 0.25), (True, 0.5)])
def test_regret_is_what_the_best_end_would_have_been_better_by(maximize: bool, regret: float) -> None:
    record = audit_record(
        branch(1, 1.0, 0.75), [branch(2, 2.0, 0.5), branch(3, 3.0, 1.25)], maximize=maximize, samples=96
    )
    assert (record.branches, record.samples, record.regret) == (2, 96, regret)
    assert record.rank_correlation == pytest.approx(0.5)  # ranks 1, 2, 3 and 2, 1, 3


def test_a_loser_that_diverges_later_is_no_better_and_has_no_rank() -> None:
    record = audit_record(branch(1, 1.0, 0.5), [branch(2, 2.0, math.nan)], maximize=False, samples=48)
    assert (record.branches, record.regret, record.rank_correlation) == (1, 0.0, None)
