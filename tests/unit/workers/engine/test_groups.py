"""Groups of workers, on real processes."""

import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from tests.unit.workers.ranks import CPU
from workers.engine.groups import Workers, group_members

pytest_plugins = ["tests.unit.workers.ranks"]

SIZES = st.integers(1, 64).flatmap(lambda size: st.tuples(st.just(size), st.integers(1, size)))


@given(SIZES)
def test_groups_share_out_the_world(sizes):
    world_size, count = sizes
    groups = group_members(world_size, count)
    assert len(groups) == count
    assert sorted(rank for ranks in groups for rank in ranks) == list(range(world_size))
    assert max(map(len, groups)) - min(map(len, groups)) <= 1
    assert [ranks[0] for ranks in groups] == list(range(count))  # the first worker of group k has rank k


# --- one worker ------------------------------------------------------------------------------------


def test_a_worker_alone_needs_no_torch_distributed():
    workers = Workers(CPU)
    assert (workers.rank, workers.size, workers.world.ranks, workers.world.size) == (0, 1, (0,), 1)
    assert workers.split(1) is workers.world
    model, tensor = nn.Linear(2, 1), torch.tensor([1.0])
    assert workers.replicate(model) is model
    assert workers.world.sum_(tensor) is tensor
    assert workers.world.broadcast_(tensor, 0) is tensor
    assert tensor.item() == 1
    workers.world.sum_gradients(model.parameters())
    assert [parameter.grad for parameter in model.parameters()] == [None, None]


def one_worker_of_a_world_of_one():
    workers, model = Workers(CPU), nn.Linear(2, 1)
    plain = workers.replicate(model) is model
    return workers.size, plain, workers.split(1) is workers.world, workers.world.sum_(torch.tensor([2.0])).item()


def test_a_world_of_one_is_the_same(ranks):
    assert ranks(1, one_worker_of_a_world_of_one) == [(1, True, True, 2.0)]


# --- splits ----------------------------------------------------------------------------------------


def membership(*counts):
    """Each group of this rank in splits of these counts, and what its sum and its broadcasts from the first and the
    last worker give."""
    workers, seen = Workers(CPU), []
    for count in counts:
        group = workers.split(count)
        assert workers.split(count) is group  # made once
        total = group.sum_(torch.tensor([10.0**workers.rank])).item()
        told = [group.broadcast_(torch.tensor([workers.rank]), group.ranks[i]).item() for i in (0, -1)]
        seen.append((group.number, group.ranks, group.position, total, told))
    assert workers.split(1) is workers.world
    return seen


def test_three_workers_in_groups(ranks):
    whole, pair, alone = (0, 1, 2), (0, 2), (1,)
    assert ranks(3, membership, 1, 2, 3) == [
        [(0, whole, 0, 111, [0, 2]), (0, pair, 0, 101, [0, 2]), (0, (0,), 0, 1, [0, 0])],
        [(0, whole, 1, 111, [0, 2]), (1, alone, 0, 10, [1, 1]), (1, (1,), 0, 10, [1, 1])],
        [(0, whole, 2, 111, [0, 2]), (0, pair, 1, 101, [0, 2]), (2, (2,), 0, 100, [2, 2])],
    ]


def test_splits_may_be_asked_for_in_any_order(ranks):
    even, odd = (0, 2), (1, 3)
    assert [seen[1:] for seen in ranks(4, membership, 4, 2, 1, 2)] == [
        [(0, even, 0, 101, [0, 2]), (0, (0, 1, 2, 3), 0, 1111, [0, 3]), (0, even, 0, 101, [0, 2])],
        [(1, odd, 0, 1010, [1, 3]), (0, (0, 1, 2, 3), 1, 1111, [0, 3]), (1, odd, 0, 1010, [1, 3])],
        [(0, even, 1, 101, [0, 2]), (0, (0, 1, 2, 3), 2, 1111, [0, 3]), (0, even, 1, 101, [0, 2])],
        [(1, odd, 1, 1010, [1, 3]), (0, (0, 1, 2, 3), 3, 1111, [0, 3]), (1, odd, 1, 1010, [1, 3])],
    ]


# --- gradients -------------------------------------------------------------------------------------


def summed_gradients(count, idle):
    """The gradients of rank r are r + 1 times [0, 1, 2, 3, 4, 5] and [[7, 8], [9, 10]]; that of `idle` are missing."""
    workers = Workers(CPU)
    model = nn.ParameterList([torch.zeros(2, 3), torch.zeros(2, 2), torch.zeros(())])
    if workers.rank != idle:
        model[0].grad = (workers.rank + 1) * torch.arange(6.0).view(2, 3)
        model[1].grad = (workers.rank + 1) * torch.tensor([[7.0, 9.0], [8.0, 10.0]]).T  # not contiguous
        model[2].grad = torch.tensor(workers.rank + 1.0)
    workers.split(count).sum_gradients(model.parameters())
    return [parameter.grad.tolist() for parameter in model]


@pytest.mark.parametrize(
    ("count", "idle", "factors"),
    [(1, None, [6, 6, 6]), (1, 2, [3, 3, 3]), (2, None, [4, 2, 4]), (2, 2, [1, 2, 1]), (3, None, [1, 2, 3])],
)
def test_gradients_are_summed_in_the_group_and_an_idle_worker_adds_zeros(ranks, count, idle, factors):
    one = torch.arange(6.0).view(2, 3), torch.tensor([[7.0, 8.0], [9.0, 10.0]]), torch.tensor(1.0)
    assert ranks(3, summed_gradients, count, idle) == [[(k * g).tolist() for g in one] for k in factors]


# --- DDP -------------------------------------------------------------------------------------------


def summed_with_gradients():
    """Every rank's loss is its rank + 1 times the square of the sum of 2 and 3, …: of the ranks' values."""
    workers = Workers(CPU)
    value = torch.tensor([2.0 + workers.rank], requires_grad=True)
    total = workers.world.sum(value)
    ((workers.rank + 1) * total.square()).sum().backward()
    return value.item(), total.item(), value.grad.item()


def test_gradients_flow_from_every_loss_to_every_value_of_a_sum(ranks):
    # 2 + 3 + 4 = 9; the losses add up to (1 + 2 + 3) x total^2, whose derivative is 12 x 9
    assert ranks(3, summed_with_gradients) == [(2, 9, 108), (3, 9, 108), (4, 9, 108)]
    assert ranks(1, summed_with_gradients) == [(2, 2, 4)]


def replicated():
    workers = Workers(CPU)
    torch.manual_seed(workers.rank)
    model = nn.Sequential(nn.Linear(2, 1), nn.BatchNorm1d(1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        replica = workers.replicate(model)
    assert isinstance(replica, DistributedDataParallel)
    assert replica.module is model
    model[1].running_mean.fill_(workers.rank)
    replica(torch.ones(4, 2)).sum().backward()
    return model[0].weight.tolist(), model[1].running_mean.item() == pytest.approx(0.9 * workers.rank, abs=0.2)


def test_a_replica_starts_as_rank_0_and_leaves_buffers_alone(ranks):
    (weights, own), (others, others_own) = ranks(2, replicated)
    assert weights == others
    assert (own, others_own) == (True, True)
