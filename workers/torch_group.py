"""How the workers of a Ray Train run become a process group of torch: what Ray's own backend does, less open ports.

torch's store listens on every address of the machine, without asking who connects. Here the first worker opens its
socket itself, on the one address at which the others reach it: on loopback where all run on one machine, where gloo and
NCCL keep to loopback, too. A single worker needs no group, and listens on nothing.
"""

import os
import socket
from dataclasses import dataclass

import ray
import ray.train
import ray.util
import torch.distributed as dist
from ray.train._internal.base_worker_group import BaseWorkerGroup
from ray.train.backend import Backend, BackendConfig
from ray.train.torch import TorchConfig

from workers.engine.groups import PATIENCE

LOOPBACK = "127.0.0.1"

_listener: socket.socket | None = None  # of the first worker, from when its port is told until the group has it


@dataclass
class GroupConfig(TorchConfig):
    """The configuration of Ray Train by which its workers become a group as this module says."""

    @property
    def backend_cls(self) -> type[Backend]:
        return GroupBackend


class GroupBackend(Backend):
    """Forms the group before the training begins; it ends with the workers' processes."""

    share_cuda_visible_devices = True

    def on_start(self, worker_group: BaseWorkerGroup, backend_config: BackendConfig) -> None:
        size = len(worker_group)
        if size == 1:
            return
        nodes = worker_group.execute(_node)
        alone = len({node for node, _ in nodes}) == 1
        host = LOOPBACK if alone else nodes[0][1]
        port = worker_group.execute_single(0, _listen, host)
        backend = "nccl" if worker_group.get_resources_per_worker().get("GPU", 0) > 0 else "gloo"
        worker_group.execute(_join, host, port, backend, size, alone)


def _node() -> tuple[str, str]:
    """The id of the node that this worker runs on, and its address."""
    return ray.get_runtime_context().get_node_id(), ray.util.get_node_ip_address()


def _listen(host: str) -> int:
    """Open the socket of the store on one address alone, and return its port."""
    global _listener
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    _listener = socket.create_server((host, 0), family=family)
    return int(_listener.getsockname()[1])


def _join(host: str, port: int, backend: str, size: int, alone: bool) -> None:
    global _listener
    rank = ray.train.get_context().get_world_rank()
    if alone:
        interface = next(name for _, name in socket.if_nameindex() if name.startswith("lo"))
        os.environ["GLOO_SOCKET_IFNAME"] = os.environ["NCCL_SOCKET_IFNAME"] = interface
    descriptor = None if _listener is None else _listener.detach()  # the store closes it
    _listener = None
    store = dist.TCPStore(  # type: ignore[attr-defined]
        host, port, size, is_master=rank == 0, wait_for_workers=False, master_listen_fd=descriptor
    )
    store.set_timeout(PATIENCE)
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE)
