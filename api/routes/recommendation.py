"""The route that recommends a learning rate to begin with, from what past jobs chose."""

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from api import translate
from api.deps import NO_NUL, ServicesOf
from api.formats import json_answer
from api.problems import documented
from service.errors import FieldError, InvalidInput
from service.results import past_jobs
from service.spec.optimizer import OptimizerName
from service.spec.types import MAX_BATCH
from service.wire import answers

router = APIRouter(prefix="/v1", tags=["comparison"])


@router.get(
    "/recommendation",
    response_model=answers.Recommendation,
    summary="The learning rate to begin with",
    responses=documented(404, 422),
)
def recommendation(
    services: ServicesOf,
    model: Annotated[str, Query(max_length=100, pattern=NO_NUL, description="Name of the model.", examples=["lenet5"])],
    dataset: Annotated[
        str, Query(max_length=100, pattern=NO_NUL, description="Name of the dataset.", examples=["digits"])
    ],
    batch: Annotated[
        int | None, Query(ge=1, le=MAX_BATCH, description="Global batch size; default: that of the best past run.")
    ] = None,
    optimizer: Annotated[
        OptimizerName | None, Query(description="Name of the optimizer; default: that of the best past run.")
    ] = None,
    path: Annotated[
        str | None,
        Query(max_length=1024, pattern=NO_NUL, description="Folder of the images, for the dataset image-folder."),
    ] = None,
) -> Response:
    """Recommends a learning rate by what the method stpt chose in the newest 100 succeeded jobs of the same model,
    dataset and, if given, optimizer, whose task is classification. Runs of the nearest batch are the evidence; their
    learning rates are scaled to the batch: in proportion for sgd, by the square root for other optimizers. A job with
    `lr_set: {from_history: true}` begins with the same recommendation, made of jobs of its own task."""
    if (dataset == "image-folder") != (path is not None):
        message = "names the folder of an image-folder; give it with dataset=image-folder, and with no other"
        raise InvalidInput([FieldError("path", path, message)])
    with services.store.read() as session:
        found = past_jobs.recommendation(
            session, model=model, dataset=dataset, path=path, optimizer=optimizer, batch=batch
        )
    return json_answer(translate.recommended(model, dataset, found))
