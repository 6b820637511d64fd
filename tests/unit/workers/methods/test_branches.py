"""Where the branches of a Pre-train run, and who has their end states."""

import pytest
import torch

from service.spec.stpt import Pretrain
from tests.unit.workers.ranks import CPU, Ranks, make_trainer
from workers.engine.groups import Group, Workers
from workers.engine.trainer import Measurement
from workers.methods.branches import Branches, End, Placement, placed

pytest_plugins = ["tests.unit.workers.ranks"]


def placements(branches: int, settings: dict[str, str]) -> tuple[int, list[int], tuple[int, ...], int]:
    found = placed(Workers(CPU), branches, Pretrain.model_validate(settings))
    return found.groups, list(found.mine(branches)), found.group.ranks, found.microbatches


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"placement": "sequential"}, [(1, [0, 1, 2, 3, 4], (0, 1, 2), 3)] * 3),
        ({}, [(3, [0, 3], (0,), 3), (3, [1, 4], (1,), 3), (3, [2], (2,), 3)]),
        ({"batch": "per_worker"}, [(3, [0, 3], (0,), 1), (3, [1, 4], (1,), 1), (3, [2], (2,), 1)]),
    ],
)
def test_five_branches_on_three_workers(ranks: Ranks, settings: dict[str, str], expected: list[object]) -> None:
    assert ranks(3, placements, 5, settings) == expected


def test_two_branches_on_three_workers_take_the_shares_of_the_smaller_group(ranks: Ranks) -> None:
    expected = [(2, [0], (0, 2), 1), (2, [1], (1,), 1), (2, [0], (0, 2), 1)]
    assert ranks(3, placements, 2, {"batch": "per_worker"}) == expected


def adopted(placement: str) -> list[tuple[list[tuple[int, float, float]], list[float]]]:
    """Run two Pre-trains of one epoch, whose branches fill the state with their learning rates, and adopt each
    branch."""
    trainer = make_trainer("plain")
    branches = Branches(trainer, Pretrain.model_validate({"placement": placement}))
    weight = next(trainer.model.parameters())

    def train_branch(learning_rate: float, _: Placement, end: torch.Tensor) -> End:
        with torch.no_grad():
            weight.fill_(learning_rate)
        trainer.state.save(end)
        return End(Measurement(1.0, 1.0, 2), 1, learning_rate / 2, dead=False)

    branches.begin()
    branches.train([0.5, 0.25, 2.0], train_branch)
    branches.train([4.0], train_branch)
    told = [(branch.number, branch.learning_rate, branch.result.metric) for branch in branches.all]
    ends = []
    for branch in branches.all:
        branches.adopt(branch)
        ends.append(float(weight.flatten()[0]))
    return [(told, ends)]


@pytest.mark.parametrize("placement", ["sequential", "split"])
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_every_worker_knows_every_branch_and_can_adopt_it(ranks: Ranks, workers: int, placement: str) -> None:
    told = [(1, 0.5, 0.25), (2, 0.25, 0.125), (3, 2.0, 1.0), (4, 4.0, 2.0)]
    assert ranks(workers, adopted, placement) == [[(told, [0.5, 0.25, 2.0, 4.0])]] * workers


def gone_on(placement: str) -> list[float]:
    """Let branches go on from where others have ended: each adds its learning rate to the state that it begins with."""
    trainer = make_trainer("plain")
    branches = Branches(trainer, Pretrain.model_validate({"placement": placement}))
    weight = next(trainer.model.parameters())

    def train_branch(learning_rate: float, _: Placement, end: torch.Tensor) -> End:
        with torch.no_grad():
            weight.add_(learning_rate)
        trainer.state.save(end)
        return End(Measurement(1.0, 1.0, 2), 1, float(weight.flatten()[0]), dead=False)

    with torch.no_grad():
        weight.fill_(0.0)
    branches.begin()
    branches.train([8.0], train_branch)
    branches.forget()
    first = branches.train([1.0, 2.0, 4.0, 0.5], train_branch)
    second = branches.train([64.0, 32.0], train_branch, [first[2], first[1]])
    metrics = [branch.result.metric for branch in (*first, *second)]
    branches.restart()
    return [*metrics, float(weight.flatten()[0])]


@pytest.mark.parametrize("placement", ["sequential", "split"])
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_branches_go_on_from_where_others_ended(ranks: Ranks, workers: int, placement: str) -> None:
    assert ranks(workers, gone_on, placement) == [[1.0, 2.0, 4.0, 0.5, 68.0, 34.0, 0.0]] * workers


def test_what_is_done_aside_leaves_the_state_as_it_was() -> None:
    trainer = make_trainer("plain")
    branches, before = Branches(trainer, Pretrain()), trainer.state.digest()
    with branches.aside(), torch.no_grad():
        next(trainer.model.parameters()).fill_(7.0)
    assert trainer.state.digest() == before


def test_a_placement_shares_out_branches_in_turn() -> None:
    group = Group(1, (1, 3), 0, None)
    assert list(Placement(2, group, 4).mine(5)) == [1, 3]
