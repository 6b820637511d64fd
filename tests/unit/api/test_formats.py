"""The JSON of answers: the bytes that Pydantic writes."""

import json
import math
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter

from api.formats import to_json
from service.store.pages import Page
from service.store.records import EpochResult
from service.wire import answers
from service.wire.answers import Answer
from service.wire.states import JobState

EXAMPLES = [one for one in vars(answers).values() if isinstance(one, type) and issubclass(one, Answer)]


class Anything(Answer):
    state: JobState
    at: datetime
    number: int
    value: float
    text: str
    document: dict[str, object]


ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(
    st.builds(
        Anything,
        state=st.sampled_from(JobState),
        at=st.datetimes(datetime(1970, 1, 1), datetime(9000, 1, 1), timezones=st.just(UTC)),
        number=st.integers(-(2**63), 2**63),
        value=st.floats(),
        text=st.text(),
        document=st.dictionaries(st.text(), ANY),
    )
)
def test_it_is_what_pydantic_says(answer: Anything) -> None:
    assert json.loads(to_json(answer)) == json.loads(answer.model_dump_json())


@pytest.mark.parametrize("model", EXAMPLES, ids=lambda model: model.__name__)
def test_of_every_answer(model: type[BaseModel]) -> None:
    for example in model.model_json_schema().get("examples", ()):
        answer = model.model_validate(example)
        assert to_json(answer) == answer.model_dump_json().encode()  # type: ignore[arg-type]


def test_a_number_beyond_64_bits_beside_one_that_is_none() -> None:
    answer = Anything(
        state=JobState.QUEUED, at=datetime(2026, 1, 1, tzinfo=UTC), number=2**64, value=math.nan, text="", document={}
    )
    assert b'"number":18446744073709551616,"value":null' in to_json(answer)


def test_a_page_of_records() -> None:
    page = Page([EpochResult(1, 0.1, 0.05, 0.5, 0.25), EpochResult(2, math.nan, 0.05, 0.5, 0.25)], "c")
    assert to_json(page) == TypeAdapter(Page[EpochResult]).dump_json(page)
