"""The answers are plain models, which the client can use without the service."""

import json
import subprocess
import sys

import pytest
from pydantic import BaseModel

from service.wire import answers
from service.wire.answers import EpochEvent, OtherEvent, StateEvent, TrialEvent, parse_event
from service.wire.worker import EpochRecord, TrialRecord

MODELS = [model for name in answers.__all__ if isinstance(model := getattr(answers, name), type)]


def test_they_need_neither_sql_nor_the_web_framework() -> None:
    program = "import sys, service.wire.answers; print(*{name.partition('.')[0] for name in sys.modules})"
    imported = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert not {"sqlalchemy", "fastapi", "starlette", "torch", "ray"} & set(imported.split())
    program = "import sys, service.wire.answers; print(*sys.modules)"
    imported = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert not [name for name in imported.split() if name.startswith(("service.store", "service.results"))]


@pytest.mark.parametrize("model", MODELS)
def test_every_field_has_a_description(model: type[BaseModel]) -> None:
    assert model.__doc__
    assert [name for name, field in model.model_fields.items() if not field.description] == []
    assert model.model_config["frozen"]


def test_an_epoch_event_is_the_record_with_its_attempt() -> None:
    about_the_event = {"number", "kind", "created_at"}
    of_the_record = EpochRecord.model_fields.keys() - {"checkpoint", "layers"}
    about_the_event |= {"method"}  # of the run, which the record knows by its label
    assert set(EpochEvent.model_fields) == {*of_the_record, "attempt", *about_the_event}
    assert set(TrialEvent.model_fields) == {*TrialRecord.model_fields.keys() - {"key"}, *about_the_event}


def test_the_kind_of_an_event_says_what_it_is() -> None:
    known = {"number": 1, "kind": "state", "created_at": "2026-01-01T12:00:00Z", "state": "queued"}
    event = parse_event(json.dumps(known | {"newer": 1}))
    assert isinstance(event, StateEvent)
    assert event.model_dump(mode="json", exclude_unset=True) == known
    other = parse_event(json.dumps(known | {"kind": "telemetry"}))
    assert isinstance(other, OtherEvent)
    assert other.model_dump() == known | {"kind": "telemetry"}
    with pytest.raises(ValueError, match="state"):
        parse_event('{"number": 1, "kind": "state", "created_at": "2026-01-01T12:00:00Z"}')
