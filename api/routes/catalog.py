"""The route to the catalog: the names that a spec may use."""

from dataclasses import asdict
from typing import get_args

from fastapi import APIRouter

from service.algorithms.candidates import LR_SETS, MIX, MIX_EPOCHS
from service.algorithms.selectors import SELECTORS
from service.spec.catalog import DATASETS, MODELS
from service.spec.experiments import EXPERIMENTS
from service.spec.methods import METHODS
from service.spec.optimizer import OptimizerName
from service.spec.presets import PRESETS
from service.spec.stpt import Metric
from service.spec.task import TaskName
from service.wire import answers

router = APIRouter(prefix="/v1/catalog", tags=["catalog"])

_MIX = answers.LrSetFacts(
    name="mix",
    factors=None,
    phases=[answers.LrSetPhaseFacts(lr_set=name, until=last / MIX_EPOCHS) for last, name in MIX],
)
_CATALOG = answers.Catalog(
    models=list(MODELS),
    datasets=[answers.DatasetFacts(**asdict(facts)) for facts in DATASETS.values()],
    lr_sets=[
        *(answers.LrSetFacts(name=name, factors=list(factors), phases=None) for name, factors in LR_SETS.items()),
        _MIX,
    ],
    tasks=list(get_args(TaskName)),
    optimizers=list(get_args(OptimizerName)),
    metrics=list(get_args(Metric)),
    selectors=list(SELECTORS),
    methods=list(METHODS),
    presets=list(PRESETS),
    experiments=list(EXPERIMENTS),
)


@router.get("", summary="Models, datasets, learning-rate sets, tasks, optimizers, metrics, selectors")
async def catalog() -> answers.Catalog:
    """Lists every name that a spec may use: models, datasets, learning-rate sets, tasks, optimizers, metrics,
    selectors. The list changes only with the version of the service."""
    return _CATALOG
