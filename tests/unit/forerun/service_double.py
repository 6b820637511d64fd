"""The service as the tests of `forerun` need it: answers as the API gives them, and what was asked of it."""

import json
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any

import httpx
from pydantic import BaseModel

Document = dict[str, Any]
Step = httpx.Response | Exception


class Script(httpx.BaseTransport, httpx.AsyncBaseTransport):
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

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return self.handle_request(request)

    @property
    def asked(self) -> list[str]:
        return [f"{request.method} {request.url.raw_path.decode()}" for request in self.requests]


class Stream(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A stream of server-sent events; a last part that is an exception breaks it there."""

    def __init__(self, *parts: str | BaseException) -> None:
        self._parts = parts

    def __iter__(self) -> Iterator[bytes]:
        for part in self._parts:
            if isinstance(part, BaseException):
                raise part
            yield part.encode()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self:
            yield part


def answer(document: object, status: int = 200) -> httpx.Response:
    return httpx.Response(status, json=document)


def problem(status: int, code: str, title: str, detail: str, **more: Any) -> httpx.Response:
    document = {"type": f"urn:forerun:error:{code}", "title": title, "status": status, "detail": detail, "code": code}
    headers = {"Content-Type": "application/problem+json"}
    return httpx.Response(status, headers=headers, content=json.dumps(document | more))


def stream(*parts: str | BaseException) -> httpx.Response:
    return httpx.Response(200, headers={"Content-Type": "text/event-stream"}, stream=Stream(*parts))


def documents(answers: Iterable[BaseModel]) -> list[Document]:
    """The answers as the API sent them, as plain documents."""
    return [answer.model_dump(mode="json", exclude_unset=True) for answer in answers]


def sent(event: Document) -> str:
    return f"id: {event['number']}\r\nevent: {event['kind']}\r\ndata: {json.dumps(event)}\r\n\r\n"


def job(**changes: Any) -> Document:
    known: Document = {
        "id": "job-1",
        "name": "",
        "experiment": "",
        "state": "queued",
        "reason": "is submitted next",
        "queue_position": 1,
        "priority": 0,
        "time_limit": None,
        "retry_of": None,
        "error": None,
        "model": "lenet5",
        "dataset": "digits",
        "spec": {
            "epochs": 3,
            "workers": 2,
            "global_batch_size": 64,
            "seed": 0,
            "methods": [{"name": "stpt", "metric": "val_accuracy"}],
        },
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


def succeeded(**changes: Any) -> Document:
    return job(state="succeeded", epochs_done=3, test_accuracy=0.9375, **changes)


def state_event(number: int, state: str, **more: Any) -> Document:
    event: Document = {"number": number, "kind": "state", "created_at": "2025-01-01T00:00:00Z", "state": state}
    return event | more


def trial_event(number: int, epochs: int, **changes: Any) -> Document:
    """The event that a training of so many epochs begins."""
    event: Document = {"number": number, "kind": "trial", "created_at": "2025-01-01T00:00:00Z", "label": "stpt"}
    event |= {"method": "stpt", "trial": 1, "seed": 0, "config": {}, "epochs": epochs, "state": "running"}
    return event | {"message": None} | changes


def branch(number: int, learning_rate: float, metric: float | None, state: str = "lost", retry: int = 0) -> Document:
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


def epoch_event(number: int, epoch: int, *branches: Document, **changes: Any) -> Document:
    event: Document = {
        "number": number,
        "kind": "epoch",
        "created_at": "2025-01-01T00:00:00Z",
        "label": "stpt",
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


def epoch(number: int, **changes: Any) -> Document:
    event = epoch_event(1, number)
    about_the_event = {"number", "kind", "created_at", "branches"}
    known = {key: value for key, value in event.items() if key not in about_the_event}
    return known | {"source_trial": None, "source_epoch": None, "recorded_at": "2025-01-01T00:00:00Z"} | changes


def branch_of_epoch(number: int, epoch: int = 1, **changes: Any) -> Document:
    return branch(number, 0.1, 0.5) | {"label": "stpt", "method": "stpt", "trial": 1, "epoch": epoch} | changes


def lr_step(epoch: int, **changes: Any) -> Document:
    known: Document = {
        "label": "stpt",
        "method": "stpt",
        "trial": 1,
        "epoch": epoch,
        "attempt": 2,
        "phase": "stpt",
        "learning_rate": 0.085,
        "first_learning_rate": 0.085,
        "last_learning_rate": 0.08,
        "candidates": [0.1, 0.085],
        "val_accuracy": 0.75,
        "val_loss": None,
        "test_accuracy": 0.7,
        "samples": 1536,
        "samples_so_far": 1536,
        "seconds": 2.5,
    }
    return known | changes


def schedule(**changes: Any) -> Document:
    known: Document = {
        "job_id": "job-1",
        "label": "stpt",
        "method": "stpt",
        "trial": 1,
        "iterations_per_epoch": 20,
        "learning_rates": [0.1],
        "lr_schedule": "linear",
        "warmup_epochs": 0,
        "warmup_share": 0.0,
    }
    return known | changes


def replayed(**changes: Any) -> Document:
    return {"job_id": "job-1", "selector": {"name": "tolerance"}, "agreement": None, "items": []} | changes


def candidate(number: int, learning_rate: float, metric: float | None, state: str = "lost") -> Document:
    known: Document = {"number": number, "retry": 0, "learning_rate": learning_rate, "factor": 1.0, "metric": metric}
    return known | {"iterations": 4, "seconds": 0.25, "state": state, "curve": []}


def decision(epoch: int, *candidates: Document, **changes: Any) -> Document:
    """A choice of 0.1 where there are several candidates, else an epoch in which it stands."""
    known: Document = {
        "epoch": epoch,
        "phase": "stpt",
        "is_choice": len(candidates) > 1,
        "chosen_at": 1,
        "why": "the search ended after epoch 1; the learning rate stays as it is",
        "current_learning_rate": 0.1,
        "learning_rate": 0.1,
        "first_learning_rate": 0.1,
        "last_learning_rate": 0.1,
        "val_loss": 0.5,
        "val_accuracy": 0.75,
        "retries": 0,
        "rollbacks": 0,
        "regret": None,
        "candidates": list(candidates),
        "rule": None,
        "alternatives": [],
        "warnings": [],
    }
    return known | changes


def rule(**changes: Any) -> Document:
    known: Document = {
        "best": {"learning_rate": 0.1, "metric": 0.52},
        "runner_up": {"learning_rate": 0.3, "metric": 0.55},
        "margin": 0.03,
        "threshold": None,
        "ties": [],
        "passed_over": [],
    }
    return known | changes


def decided(*items: Document, **changes: Any) -> Document:
    known: Document = {"job_id": "job-1", "label": "stpt", "trial": 1, "metric": "val_loss"}
    return known | {"selector": {"name": "greedy"}, "items": list(items)} | changes


def planned(**changes: Any) -> Document:
    known: Document = {
        "train_samples": 1293,
        "iterations_per_epoch": 20,
        "runs": [],
    }
    return known | changes


def study_row(**changes: Any) -> Document:
    known: Document = {
        "variant": "linear",
        "global_batch_size": 64,
        "seeds": 2,
        "diverged": 1,
        "final_test_accuracy": {"mean": 0.7, "spread": 0.01},
        "best_test_accuracy": {"mean": 0.75, "spread": None},
    }
    return known | changes


def experiment_facts(**changes: Any) -> Document:
    known: Document = {
        "name": "mix",
        "paper": "STPT",
        "figures": "10, 11",
        "description": "All of it.",
        "jobs": ["mix"],
        "scales": ["paper"],
    }
    return known | changes


def trial_result(**changes: Any) -> Document:
    known: Document = {
        "label": "tpe",
        "method": "tpe",
        "trial": 2,
        "seed": 0,
        "config": {"learning_rate": 0.21234567, "optimizer": "adam"},
        "state": "stopped",
        "message": None,
        "epochs": 1,
        "length": 3,
        "samples": 1536,
        "lost_samples": 0,
        "val_accuracy": 0.75,
        "test_accuracy": 0.7,
        "best_epoch": 1,
        "learning_rate": 0.21234567,
        "last_learning_rate": 0.1,
    }
    return known | changes


def compared_run(method: str, **changes: Any) -> Document:
    known: Document = {
        "label": method,
        "method": method,
        "trials": 2,
        "seeds": 2,
        "val_accuracy": {"mean": 0.75, "spread": 0.01},
        "test_accuracy": {"mean": 0.7, "spread": 0.02},
        "samples": {"mean": 1536.5, "spread": 0.0},
        "lost_samples": {"mean": 0, "spread": 0.0},
        "evaluation_samples": {"mean": 504, "spread": None},
        "seconds": {"mean": 2.5, "spread": 0.25},
        "span_seconds": {"mean": None, "spread": None},
        "samples_to_stpt": {"mean": None, "spread": None},
        "relative_to_stpt": {"mean": 1.0, "spread": None},
        "by_seed": [],
    }
    return known | changes


def history_step(epoch: int, **changes: Any) -> Document:
    known: Document = {
        "job_id": "job-1",
        "model": "lenet5",
        "dataset": "digits",
        "optimizer": "sgd",
        "global_batch_size": 64,
        "label": "stpt",
        "method": "stpt",
        "trial": 1,
        "seed": 0,
        "epoch": epoch,
        "phase": "stpt",
        "learning_rate": 0.1,
        "first_learning_rate": 0.1,
        "last_learning_rate": 0.09,
        "val_accuracy": 0.75,
        "test_accuracy": 0.7,
        "samples": 1536,
    }
    return known | changes


def layer_epoch(epoch: int, **changes: Any) -> Document:
    known: Document = {
        "label": "stpt",
        "method": "stpt",
        "trial": 1,
        "epoch": epoch,
        "attempt": 1,
        "layer": "0.weight",
        "steps": [20 * epoch - 20, 20 * epoch - 10],
        "lwn": [1.5, 1.25],
        "lgn": [0.5, None],
        "lnr": [3.0, None],
        "trust_ratio": [0.003, 0.0123456],
    }
    return known | changes


def recommended(**changes: Any) -> Document:
    known: Document = {
        "model": "lenet5",
        "dataset": "digits",
        "optimizer": "sgd",
        "global_batch_size": 128,
        "learning_rate": 0.2,
        "low": 0.1,
        "high": 0.4,
        "schedule": {"learning_rates": [0.2], "lr_schedule": "linear", "warmup_epochs": 0, "warmup_share": 0.0},
        "rule": "linear",
        "note": "Scaled.",
        "evidence": [
            {
                "job_id": "job-1",
                "seed": 0,
                "optimizer": "sgd",
                "global_batch_size": 64,
                "lr_schedule": "linear",
                "learning_rate": 0.1,
                "scaled_learning_rate": 0.2,
                "val_accuracy": 0.75,
                "test_accuracy": 0.7,
            }
        ],
    }
    return known | changes
