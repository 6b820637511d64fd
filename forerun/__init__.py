"""Forerun's public face: a client for the service, and the command line `forerun`.

from forerun import Client

with Client("http://127.0.0.1:8000") as client:
    job = client.submit({"model": "lenet5", "dataset": "digits", "epochs": 10, "lr_set": "middle"})
    print(job.wait().test_accuracy)
    print(job.lr_history().to_pandas())

`AsyncClient` has the same methods for asyncio. Each name is imported when it is first asked for, so that `import
forerun` costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from forerun.client import ApiError, AsyncClient, Client, JobFailed, ServiceUnreachable
    from forerun.jobs import AsyncJobHandle, JobHandle
    from service.spec.job import JobSpec

__all__ = [
    "ApiError",
    "AsyncClient",
    "AsyncJobHandle",
    "Client",
    "JobFailed",
    "JobHandle",
    "JobSpec",
    "ServiceUnreachable",
]

_MODULES = {"AsyncJobHandle": "forerun.jobs", "JobHandle": "forerun.jobs", "JobSpec": "service.spec.job"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES.get(name, "forerun.client")), name)
