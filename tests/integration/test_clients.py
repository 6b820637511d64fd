"""Both clients against a real server, while a real training reports to it: events, history, weights that load."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from api.deps import Services
from forerun import ApiError, AsyncClient, AsyncJobHandle, Client
from service.cluster.base import Capacity
from service.cluster.controller import Leadership
from service.jobs.quota import NO_QUOTA
from service.spec.job import JobSpec
from service.store.engine import Store
from service.wire.checkpoint import checkpoints_of
from service.wire.worker import Outcome
from tests.application import serving
from tests.builders import claim
from workers.datasets.load import Data, load_data
from workers.engine.groups import Workers
from workers.models.build import build_model
from workers.report import Reporter, exchange_ticket
from workers.trainings import train_job

pytest_plugins = ["tests.databases"]

CPU = torch.device("cpu")
SPEC: dict[str, Any] = {
    "model": "lenet5-bn",
    "dataset": "digits",
    "epochs": 4,
    "seed": 3,
    "methods": ["stpt", "schedule-free"],
}


class Fleet:
    dashboard_url = "http://ray.test:8265"
    capacity = Capacity(cpus=2, gpus=0)
    trouble = None
    leadership = Leadership(True, None)
    quota = NO_QUOTA

    def wake(self) -> None:
        pass

    def logs(self, submission_id: str) -> str:
        return f"{submission_id} trains\n"


@pytest.fixture
def services(sqlite_store: Store, tmp_path: Path) -> Services:
    return Services(sqlite_store, Fleet(), tmp_path / "data", data_is_local=True, storage_dir=tmp_path / "jobs")


@pytest.fixture
def url(services: Services) -> Iterator[str]:
    with serving(services) as port:
        yield f"http://127.0.0.1:{port}"


def train(services: Services, url: str) -> None:
    """Play the controller and the Ray job of the job that waits, in this process."""
    claimed = claim(services.store)
    assignment = exchange_ticket(url, claimed.job_id, claimed.ticket)
    spec = JobSpec.model_validate_json(assignment.spec)
    with Reporter(url, assignment, services.storage_dir / "spool") as reporter:
        trained = train_job(
            spec,
            load_data(spec.dataset, services.data_dir, CPU),
            Workers(CPU),
            points=assignment.resume,
            trials=assignment.trials,
            attempt=assignment.attempt,
            folder=checkpoints_of(services.storage_dir, claimed.job_id),
            recorder=reporter,
        )
        for _ in trained:
            pass
        reporter.outcome(Outcome(state="succeeded"))


def accuracy_of(data: Data, weights: Path) -> float:
    """The test accuracy of a model with the weights of the file."""
    model = build_model(
        SPEC["model"], classes=data.classes, channels=data.channels, image_size=data.image_size, seed=99
    )
    model.load_state_dict(load_file(weights))
    model.eval()
    images, labels = data.test.batch(torch.arange(len(data.test)), CPU)
    with torch.no_grad():
        return int((model(images).argmax(1) == labels).sum()) / len(labels)


def test_downloaded_weights_reproduce_the_recorded_accuracies(services: Services, url: str, tmp_path: Path) -> None:
    with Client(url) as client:
        job = client.submit(SPEC)
        with pytest.raises(ApiError, match="wait for the first") as raised:
            job.download_weights(tmp_path / "weights")
        assert raised.value.code == "no_weights"
        train(services, url)
        assert job.wait().state == "succeeded"
        epochs = job.epochs()
        data = load_data(JobSpec.model_validate(SPEC).dataset, services.data_dir, CPU)
        for trial in job.trials():
            known = {epoch.epoch: epoch.test_accuracy for epoch in epochs if epoch.label == trial.label}
            for which, number in (("best", trial.best_epoch), ("last", 4)):
                path = job.download_weights(tmp_path / "weights", which=which, label=trial.label)
                with safe_open(path, "pt") as file:
                    metadata = file.metadata()
                assert (metadata["label"], metadata["epoch"]) == (trial.label, str(number))
                assert float(metadata["test_accuracy"]) == known[number]
                assert accuracy_of(data, path) == known[number]
        assert known[4] > 0.5  # it has learned something


def test_a_job_from_submission_to_weights_with_asyncio(services: Services, url: str, tmp_path: Path) -> None:
    async def follow(job: AsyncJobHandle) -> list[str]:
        return [event.kind async for event in job.follow()]

    async def main() -> None:
        async with AsyncClient(url) as client:
            job = await client.submit(SPEC | {"methods": ["stpt"]})
            followed = asyncio.create_task(follow(job))
            await asyncio.to_thread(train, services, url)
            assert (await followed).count("epoch") == 4
            assert (await job.wait()).state == job.answer.state == "succeeded"
            assert [step.epoch for step in await job.lr_history()] == [1, 2, 3, 4]
            assert [found.id async for found in client.jobs(state="succeeded")] == [job.id]
            path = await job.download_weights(tmp_path / "weights", which="last")
            with Client(url) as blocking:
                assert blocking.read_job(job.id) == job.answer
                same = blocking.download_weights(job.id, tmp_path / "same", which="last")
            assert same.read_bytes() == path.read_bytes()

    asyncio.run(main())
