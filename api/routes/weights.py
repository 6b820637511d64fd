"""The route to the weights of a training's model."""

from base64 import b64encode
from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.responses import StreamingResponse

from api.deps import MAX_INT, JobId, RunLabel, ServicesOf
from api.problems import documented
from service.results.weights import open_weights
from service.wire.checkpoint import Which

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["jobs"])

MEDIA_TYPE = "application/octet-stream"
_ANSWER: dict[str, Any] = {
    "description": "A safetensors file; its metadata say of which epoch the weights are, and how accurate.",
    "content": {MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}},
    "headers": {
        "Content-Disposition": {"description": "A name for the file.", "schema": {"type": "string"}},
        "Repr-Digest": {"description": "SHA-256 of the file (RFC 9530).", "schema": {"type": "string"}},
    },
}


@router.get(
    "/weights",
    summary="The weights of a training, as safetensors",
    response_class=StreamingResponse,
    responses={200: _ANSWER, **documented(404, 422)},
)
def weights(
    services: ServicesOf,
    job_id: JobId,
    which: Annotated[
        Which,
        Query(
            description="Weights after the epoch with the best validation accuracy (of equals the first), or the last."
        ),
    ] = "best",
    label: Annotated[RunLabel | None, Query(description="Label of the run; default: the first.")] = None,
    trial: Annotated[int, Query(ge=1, le=MAX_INT, description="Number of the trial in its run, from 1.")] = 1,
) -> StreamingResponse:
    """The parameters and buffers of a trained model, under the names of its `state_dict`; while the job runs, those so
    far. The trials of searches have no weights."""
    found = open_weights(services.store, services.storage_dir, job_id, which=which, label=label, trial=trial)
    headers = {
        "Content-Disposition": f'attachment; filename="{found.file_name}"',
        "Content-Length": str(found.size),
        "Repr-Digest": f"sha-256=:{b64encode(found.sha256).decode()}:",
    }
    return StreamingResponse(found.chunks, media_type=MEDIA_TYPE, headers=headers)
