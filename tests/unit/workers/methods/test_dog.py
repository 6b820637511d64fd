"""DoG as a method: its first step, and what it is judged by."""

from unittest.mock import patch

import pytest
import torch

from service.spec.job import JobSpec
from tests.builders import spec_document
from tests.unit.workers.ranks import CPU, NETS, digits
from workers.engine.groups import Workers
from workers.methods import make_training
from workers.methods.base import Training
from workers.models import build as models

pytest_plugins = ["tests.unit.workers.ranks"]

TRAIN_SAMPLES = 6 * 48  # six iterations an epoch


def training(net: str, **method: float) -> Training:
    document = spec_document(
        epochs=2,
        global_batch_size=48,
        dataset={"name": "digits", "train_samples": TRAIN_SAMPLES},
        methods=[{"name": "dog", **method}],
    )
    with patch.dict(models.BUILDERS, {"lenet5": NETS[net]}):
        spec = JobSpec.model_validate(document)
        return make_training(spec.methods[0], 1, spec, digits(TRAIN_SAMPLES), Workers(CPU))


@pytest.mark.parametrize(
    ("net", "method", "share"),
    [("plain", {}, 1e-6), ("batch-norm", {}, 1e-4), ("batch-norm", {"initial_distance": 0.01}, 0.01)],
)
def test_the_first_step_goes_as_far_as_the_authors_advise(net: str, method: dict[str, float], share: float) -> None:
    dog = training(net, **method)
    weights = list(dog.trainer.model.parameters())
    start = [weight.detach().clone() for weight in weights]
    norm = torch.stack([weight.norm() for weight in start]).norm().item()
    dog.main_train(1, range(1), [1.0])
    moved = torch.stack([(weight - first).norm() for weight, first in zip(weights, start, strict=True)]).norm().item()
    assert moved == pytest.approx(share * (1 + norm), rel=2e-2)


def test_it_is_judged_by_the_average_and_trains_on_from_the_iterate() -> None:
    dog = training("plain", initial_distance=0.01)
    first, second = dog.epochs()
    assert (first.learning_rate, first.iterations, first.samples) == (1.0, 6, TRAIN_SAMPLES)
    assert second.val_loss is not None
    trainer = dog.trainer
    judged = trainer.evaluate(trainer.data.validation, trainer.workers.world).loss
    assert judged == second.val_loss
    trainer.optimizer.train()  # type: ignore[attr-defined]
    trainer.model.eval()
    with torch.no_grad():
        iterate = trainer.task.evaluate(trainer.model, trainer.data.validation, trainer.workers.world, accuracy=False)
    assert (iterate[0] / iterate[2]).item() != judged
