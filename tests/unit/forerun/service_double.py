"""The service as the tests of `forerun` need it: answers as the API gives them, and what was asked of it."""

import json
from collections.abc import Iterator
from typing import Any

import httpx

from forerun.answers import Branch, EpochEvent, Job, StateEvent

Step = httpx.Response | Exception


class Script(httpx.BaseTransport):
    """Plays `steps`, one a request: an answer is given, an exception raised. `requests` are those that came."""

    def __init__(self, *steps: Step) -> None:
        self.steps, self.requests = list(steps), list[httpx.Request]()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.read()
        self.requests.append(request)
        assert self.steps, f"nothing was expected any more, but {request.method} {request.url} came"
        step = self.steps.pop(0)
        if isinstance(step, Exception):
            raise step
        return step

    @property
    def asked(self) -> list[str]:
        return [f"{request.method} {request.url.raw_path.decode()}" for request in self.requests]


class Stream(httpx.SyncByteStream):
    """A stream of server-sent events; a last part that is an exception breaks it there."""

    def __init__(self, *parts: str | BaseException) -> None:
        self._parts = parts

    def __iter__(self) -> Iterator[bytes]:
        for part in self._parts:
            if isinstance(part, BaseException):
                raise part
            yield part.encode()


def answer(document: object, status: int = 200) -> httpx.Response:
    return httpx.Response(status, json=document)


def problem(status: int, code: str, title: str, detail: str, **more: Any) -> httpx.Response:
    document = {"type": f"urn:forerun:error:{code}", "title": title, "status": status, "detail": detail, "code": code}
    headers = {"Content-Type": "application/problem+json"}
    return httpx.Response(status, headers=headers, content=json.dumps(document | more))


def stream(*parts: str | BaseException) -> httpx.Response:
    return httpx.Response(200, headers={"Content-Type": "text/event-stream"}, stream=Stream(*parts))


def sent(event: StateEvent | EpochEvent) -> str:
    return f"id: {event['number']}\r\nevent: {event['kind']}\r\ndata: {json.dumps(event)}\r\n\r\n"


def job(**changes: Any) -> Job:
    known: Job = {
        "id": "job-1",
        "name": "",
        "experiment": "",
        "state": "queued",
        "error": None,
        "model": "lenet5",
        "dataset": "digits",
        "spec": {"workers": 2, "global_batch_size": 64, "seed": 0, "metric": "val_accuracy"},
        "attempt": 0,
        "submission_id": None,
        "created_at": "2025-01-01T00:00:00Z",
        "started_at": None,
        "finished_at": None,
        "epochs": 3,
        "trials": 1,
        "epochs_done": 0,
        "learning_rate": None,
        "val_accuracy": None,
        "test_accuracy": None,
        "links": {
            "self": "/v1/jobs/job-1",
            "epochs": "/v1/jobs/job-1/epochs",
            "lr_history": "/v1/jobs/job-1/lr-history",
            "events": "/v1/jobs/job-1/events",
            "ray_dashboard": None,
        },
    }
    return known | changes


def succeeded(**changes: Any) -> Job:
    return job(state="succeeded", epochs_done=3, test_accuracy=0.9375, **changes)


def state_event(number: int, state: str, **more: Any) -> StateEvent:
    event: StateEvent = {"number": number, "kind": "state", "created_at": "2025-01-01T00:00:00Z", "state": state}
    return event | more


def branch(number: int, learning_rate: float, metric: float | None, state: str = "lost", retry: int = 0) -> Branch:
    return {
        "number": number,
        "retry": retry,
        "learning_rate": learning_rate,
        "metric": metric,
        "end_metric": None,
        "state": state,
        "iterations": 2,
        "samples": 128,
        "seconds": 0.25,
    }


def epoch_event(number: int, epoch: int, *branches: Branch, **changes: Any) -> EpochEvent:
    event: EpochEvent = {
        "number": number,
        "kind": "epoch",
        "created_at": "2025-01-01T00:00:00Z",
        "method": "stpt",
        "trial": 1,
        "epoch": epoch,
        "attempt": 1,
        "phase": "stpt" if branches else "warmup",
        "learning_rate": 0.1,
        "first_learning_rate": 0.1,
        "last_learning_rate": 0.09,
        "train_loss": 0.5,
        "val_loss": 0.5,
        "val_accuracy": 0.75,
        "test_accuracy": 0.7,
        "retries": 0,
        "rollbacks": 0,
        "iterations": 24,
        "samples": 1536,
        "evaluation_samples": 504,
        "seconds": 2.5,
        "pretrain_seconds": 0.5,
        "main_train_seconds": 1.5,
        "audit": None,
        "branches": list(branches),
    }
    return event | changes
