"""Which error ends a training when several workers have one."""

import pickle

import pytest
import torch
from ray.train import WorkerGroupError

from service.errors import Diverged, ForerunError, OutOfMemory, WorkerFailed
from service.spec.job import JobSpec
from tests.unit.service.specs import small
from workers.launch import _cause

SPEC = JobSpec.model_validate(small(global_batch_size=64, workers=4))
COLLECTIVE = RuntimeError("Connection closed by peer")
NO_MEMORY = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


@pytest.mark.parametrize(
    ("failures", "expected"),
    [
        ([COLLECTIVE, COLLECTIVE], WorkerFailed("worker 0 raised RuntimeError: Connection closed by peer")),
        ([COLLECTIVE, Diverged("in epoch 3")], Diverged("in epoch 3")),
        (
            [COLLECTIVE, NO_MEMORY],
            OutOfMemory(
                "a worker's share of global_batch_size 64 over workers 4 (16 samples, 16 at once) does not fit its "
                "GPU; lower microbatch_size, raise workers, or choose a smaller model: CUDA out of memory. Tried to "
                "allocate 2.00 GiB."
            ),
        ),
    ],
)
def test_a_workers_own_error_comes_before_what_it_does_to_the_others(
    failures: list[Exception], expected: ForerunError
) -> None:
    as_ray_sends_them = [pickle.loads(pickle.dumps(failure)) for failure in failures]  # noqa: S301
    group = WorkerGroupError("some failed", dict(enumerate(as_ray_sends_them)))
    cause = _cause(group, SPEC)
    assert (type(cause), cause.detail) == (type(expected), expected.detail)
