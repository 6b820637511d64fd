"""Workers that become a process group: on which address they listen, and that they reach each other."""

import multiprocessing
import socket
from collections.abc import Callable
from multiprocessing.connection import Connection
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import ray.train
import torch
import torch.distributed as dist

from workers import torch_group
from workers.torch_group import GroupBackend, GroupConfig


class FakeGroup:
    """A worker group whose workers run on these nodes, and what was to be executed on it."""

    def __init__(self, *nodes: tuple[str, str], gpus: int = 0) -> None:
        self.nodes, self.gpus, self.joined, self.listens = nodes, gpus, [], []

    def __len__(self) -> int:
        return len(self.nodes)

    def get_resources_per_worker(self) -> dict[str, float]:
        return {"CPU": 1, "GPU": self.gpus}

    def execute(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        if function is torch_group._node:
            return list(self.nodes)
        assert function is torch_group._join
        self.joined.append(arguments)
        return [None] * len(self)

    def execute_single(self, rank: int, function: Callable[..., Any], host: str) -> int:
        assert (rank, function) == (0, torch_group._listen)
        self.listens.append(host)
        return 4321


@pytest.mark.parametrize(
    ("nodes", "gpus", "listens", "joined"),
    [
        ([("n1", "10.0.0.1")], 0, [], []),
        ([("n1", "10.0.0.1")] * 2, 0, ["127.0.0.1"], [("127.0.0.1", 4321, "gloo", 2, True)]),
        ([("n1", "10.0.0.1")] * 3, 1, ["127.0.0.1"], [("127.0.0.1", 4321, "nccl", 3, True)]),
        ([("n1", "10.0.0.1"), ("n2", "10.0.0.2")], 0, ["10.0.0.1"], [("10.0.0.1", 4321, "gloo", 2, False)]),
    ],
    ids=["one worker", "one machine", "one machine with GPUs", "two machines"],
)
def test_where_the_first_worker_listens(nodes: Any, gpus: int, listens: list[str], joined: list[Any]) -> None:
    group: Any = FakeGroup(*nodes, gpus=gpus)
    backend = GroupConfig().backend_cls()
    assert isinstance(backend, GroupBackend)
    backend.on_start(group, GroupConfig())
    assert (group.listens, group.joined) == (listens, joined)


def member(rank: int, others: Connection) -> None:
    """Join a group of two as one of them, and send what this process listens on and the sum of both ranks plus one."""
    ray.train.get_context = lambda: SimpleNamespace(get_world_rank=lambda: rank)
    if rank == 0:
        others.send(torch_group._listen("127.0.0.1"))
    torch_group._join("127.0.0.1", others.recv(), "gloo", 2, True)
    total = torch.tensor(rank + 1)
    dist.all_reduce(total)
    sockets = psutil.Process().net_connections("inet")
    others.send(({s.laddr.ip for s in sockets if s.status == psutil.CONN_LISTEN}, int(total)))
    others.recv()  # not before both have looked


def test_a_group_listens_on_loopback_alone() -> None:
    context = multiprocessing.get_context("spawn")
    pipes = [context.Pipe() for _ in range(2)]
    members = [context.Process(target=member, args=(rank, theirs)) for rank, (_, theirs) in enumerate(pipes)]
    for process in members:
        process.start()
    first, second = (ours for ours, _ in pipes)
    port = first.recv()
    with pytest.raises(OSError, match="in use"), socket.socket() as another:
        another.bind(("127.0.0.1", port))
    for ours in (first, second):
        ours.send(port)
    assert [ours.recv() for ours in (first, second)] == [({"127.0.0.1"}, 3)] * 2
    for ours in (first, second):
        ours.send("done")
    for process in members:
        process.join(60)
        assert process.exitcode == 0
