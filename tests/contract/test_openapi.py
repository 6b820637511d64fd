"""The OpenAPI document: complete, true to its own examples, and true to what the service does (schemathesis)."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import httpx
import jsonschema
import pytest
import schemathesis
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import settings
from schemathesis import Case
from schemathesis.specs.openapi.checks import ignored_auth, negative_data_rejection, positive_data_acceptance

from api.app import create_app
from api.deps import Services
from service.store.engine import Store
from tests.builders import run_to_success
from tests.contract.conftest import FakeFleet

pytest_plugins = ["tests.databases"]


@pytest.fixture
def document(client: httpx.Client) -> dict[str, Any]:
    document: dict[str, Any] = client.get("/openapi.json").json()
    return document


def walk(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from walk(child)


def operations(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    paths = document["paths"].items()
    return {f"{method.upper()} {path}": operation for path, item in paths for method, operation in item.items()}


def test_operations(document: dict[str, Any]) -> None:
    job = "/v1/jobs/{job_id}"
    assert set(operations(document)) == {
        *("POST /v1/jobs", "GET /v1/jobs", f"GET {job}", f"POST {job}/cancel", f"PATCH {job}", f"DELETE {job}"),
        *(f"POST {job}/pause", f"POST {job}/resume", f"POST {job}/retry"),
        *(f"GET {job}/epochs", f"GET {job}/epochs/{{epoch}}", f"GET {job}/branches", f"GET {job}/lr-history"),
        *(
            f"GET {job}/schedule",
            f"GET {job}/weights",
            f"GET {job}/selector-replay",
            f"GET {job}/decisions",
            f"GET {job}/events",
            f"GET {job}/logs",
        ),
        *(f"GET {job}/layers", f"GET {job}/trials", f"GET {job}/comparison", f"GET {job}/study", f"GET {job}/ramp"),
        *("GET /v1/study", "GET /v1/lr-history", "GET /v1/recommendation"),
        *("POST /v1/webhooks", "GET /v1/webhooks", "DELETE /v1/webhooks/{webhook_id}"),
        "POST /v1/webhooks/{webhook_id}/test",
        *("POST /v1/plan", "GET /v1/experiments", "POST /v1/experiments"),
        *("GET /v1/catalog", "GET /healthz", "GET /readyz", "GET /metrics"),
        *("GET /v1/keys", "POST /v1/keys", "DELETE /v1/keys/{key_id}"),
        *("GET /v1/session", "POST /v1/session", "DELETE /v1/session"),
    }
    known = {tag["name"] for tag in document["tags"]}
    for name, operation in operations(document).items():
        assert operation["summary"], name
        assert set(operation["tags"]) <= known, name


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    names = document["components"]["schemas"]
    discriminators = [node["mapping"].values() for node in walk(document) if isinstance(node.get("mapping"), dict)]
    references = [node["$ref"] for node in walk(document) if isinstance(node.get("$ref"), str)]
    references += [reference for mapping in discriminators for reference in mapping]
    assert {"#/components/schemas/JobSpec", "#/components/schemas/Problem"} <= set(references)
    assert {reference.removeprefix("#/components/schemas/") for reference in references} <= set(names)
    assert "HTTPValidationError" not in names


def test_errors_are_problem_documents(document: dict[str, Any]) -> None:
    problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    for name, operation in operations(document).items():
        failures = {status: answer for status, answer in operation["responses"].items() if status >= "4"}
        assert all(answer["content"] == problem for answer in failures.values()), name
        assert "422" in failures, name


def test_examples_are_true(document: dict[str, Any], client: httpx.Client, services: Services) -> None:
    (services.data_dir / "cifar10").mkdir(parents=True)
    body = operations(document)["POST /v1/jobs"]["requestBody"]["content"]["application/json"]
    schema = body["schema"] | {"components": document["components"]}
    examples = [example["value"] for example in body["examples"].values()]
    assert len(examples) == 2
    preset = {"preset": "stpt-paper-fashion-mnist", "dataset": "digits"}  # model and epochs are the preset's
    for example in [*examples, preset]:
        jsonschema.validate(example, schema)
        assert client.post("/v1/jobs", json=example).status_code == 202


def test_examples_of_answers_are_true(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    answers = ("Job", "JobPage", "Epoch", "EpochList", "EpochWithBranches", "Branch", "BranchOfEpoch", "BranchList")
    compared = ("TrialResult", "TrialList", "Statistic", "CurvePoint", "SeedComparison", "ComparedRun", "Comparison")
    compared += ("StudyRow", "Study", "ExperimentStudy", "RampStep", "BatchRamp", "BatchRamps")
    decided = ("BranchPoint", "Candidate", "RatedRate", "Rule", "Alternative", "ChoiceWarning", "Decision", "Decisions")
    of_all_jobs = ("HistoryStep", "HistoryPage", "Evidence", "Recommendation")
    of_service = ("ApiKey", "ApiKeyList", "NewApiKey", "Login", "Webhook", "NewWebhook", "WebhookTest")
    of_job = ("LrStep", "LrHistory", "LayerEpoch", "LayerPage")
    for name in (*answers, *of_job, *compared, *decided, *of_all_jobs, *of_service):
        (example,) = schemas[name]["examples"]
        assert set(example) == set(schemas[name]["properties"]), name
        jsonschema.validate(example, {"$ref": f"#/components/schemas/{name}", "components": document["components"]})


def test_every_field_of_a_spec_is_described(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    names = {"JobSpec"}
    while (
        more := {
            node["$ref"].rpartition("/")[2]
            for name in names
            for node in walk(schemas[name])
            if isinstance(node.get("$ref"), str)
        }
        - names
    ):
        names |= more
    assert len(names) == 67
    silent = [
        f"{name}.{field}"
        for name in names
        for field, facts in schemas[name]["properties"].items()
        if not facts.get("description")
    ]
    assert silent == []


def test_everything_is_described(document: dict[str, Any]) -> None:
    silent = [name for name, schema in document["components"]["schemas"].items() if not schema.get("description")]
    silent += [
        f"{name}.{field}"
        for name, schema in document["components"]["schemas"].items()
        for field, facts in schema.get("properties", {}).items()
        if not facts.get("description")
    ]
    for name, operation in operations(document).items():
        silent += [] if operation.get("description") else [name]
        silent += [f"{name} {p['name']}" for p in operation.get("parameters", ()) if not p.get("description")]
    assert silent == []


# --- schemathesis ----------------------------------------------------------------------------------

# A spec has thousands of boundaries; POST /v1/jobs is asked about all of them, the two others read the same document.
config = schemathesis.Config.from_dict(
    {"operations": [{"include-path-regex": "^/v1/(plan|experiments)$", "phases": {"coverage": {"enabled": False}}}]}
)
# The document depends on no service; the application under test is handed over with each call.
PATIENCE = 120  # seconds that a request may take: a forecast of 100,000 epochs on a busy machine takes more than ten
schema = schemathesis.openapi.from_dict(create_app(cast(Services, None)).openapi(), config=config).exclude(
    path_regex="/events$"
)


@pytest.fixture(scope="module")
def lived_in(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[FastAPI, str]]:
    """The application with a job that ran to its end, and the job's id."""
    folder = tmp_path_factory.mktemp("lived-in")
    store = Store(f"sqlite:///{shutil.copy(sqlite_template, folder)}")
    app = create_app(
        Services(store, FakeFleet(), folder, data_is_local=True, hosts=frozenset({"testserver", "localhost"}))
    )
    with TestClient(app) as client:
        yield app, run_to_success(client, store)
    store.close()


@schema.parametrize()
@settings(max_examples=4)
def test_service_keeps_its_document(case: Case, lived_in: tuple[FastAPI, str]) -> None:
    """No server error; no status, media type, header or body that is not documented; wrong input is refused."""
    # This service has no keys, so it looks at none; who is refused is told in test_access.
    # Not every wrong spec or cursor can be told by a schema, so not everything a schema allows is accepted.
    case.call_and_validate(app=lived_in[0], timeout=PATIENCE, excluded_checks=[ignored_auth, positive_data_acceptance])


@schema.include(path_regex="job_id").parametrize()
@settings(max_examples=2)
def test_and_with_a_job_that_is_there(case: Case, lived_in: tuple[FastAPI, str]) -> None:
    app, case.path_parameters["job_id"] = lived_in
    # With the job's id in place of a wrong one, a request that was made to be refused no longer is.
    case.call_and_validate(
        app=app, timeout=PATIENCE, excluded_checks=[ignored_auth, positive_data_acceptance, negative_data_rejection]
    )
