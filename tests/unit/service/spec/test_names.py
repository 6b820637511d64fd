"""Which characters names may have, and how others are shown."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import InvalidInput
from service.spec.job import JobSpec
from service.spec.names import printable, wrong_with_name
from service.validation.door import parse_spec
from tests.unit.service.specs import small

NAMES = ["", "lenet5 on digits", "Würfel №3", "学習率", "<b>&\"'$x_1^2$ =1+1", " spaces ", "🙂", "e\u0301", "\ufffd"]
OTHERS = {
    "\0": "U+0000 (a control character)",
    "\t": "U+0009 (a control character)",
    "\n": "U+000A (a control character)",
    "\x1b": "U+001B (a control character)",
    "\x7f": "U+007F (a control character)",
    "\x9b": "U+009B (a control character)",
    "\u00a0": "U+00A0 (NO-BREAK SPACE)",
    "\u200b": "U+200B (ZERO WIDTH SPACE)",
    "\u2028": "U+2028 (LINE SEPARATOR)",
    "\u202e": "U+202E (RIGHT-TO-LEFT OVERRIDE)",
    "\u2066": "U+2066 (LEFT-TO-RIGHT ISOLATE)",
    "\ue000": "U+E000 (unnamed)",
    "\ufeff": "U+FEFF (ZERO WIDTH NO-BREAK SPACE)",
    "\uffff": "U+FFFF (unnamed)",
    "\ud800": "U+D800 (unnamed)",
}


def study(name: str) -> dict:
    return {"name": "study", "batch_sizes": [64], "variants": [{"name": name, "method": "stpt"}]}


@pytest.mark.parametrize("name", NAMES)
def test_what_prints_is_a_name_and_is_shown_as_it_is(name):
    assert wrong_with_name(name) is None
    assert printable(name) == name
    spec = parse_spec(json.dumps(small(name=name, experiment=name, methods=[study(name or "x")])).encode())
    assert (spec.name, spec.experiment) == (name, name)


@pytest.mark.parametrize(("character", "called"), OTHERS.items())
def test_what_does_not_print_is_named_and_replaced(character, called):
    assert wrong_with_name(f"a{character}b") == f"has the character {called}, which does not print; leave it out"
    assert printable(f"a{character}b") == "a\ufffdb"
    assert printable(f"a{character}b", keep=character) == f"a{character}b"


def test_every_name_of_a_spec_is_looked_at():
    folder = {"name": "image-folder", "path": "tre\x1be"}
    document = small(name="a\tb", experiment="\x7f", dataset=folder, methods=["stpt", study("\u202evil")])
    document["model"] = "resnet18"
    with pytest.raises(InvalidInput) as caught:
        parse_spec(json.dumps(document).encode())
    found = {error.field: error.value for error in caught.value.errors}
    wrong = {"name": "a\tb", "experiment": "\x7f", "dataset.path": "tre\x1be"}
    assert found == wrong | {"methods[1].variants[0].name": "\u202evil"}


def test_a_job_that_was_accepted_before_keeps_its_name():
    assert JobSpec.model_validate(small(name="two\nlines")).name == "two\nlines"


@given(st.text(st.characters(codec=None)))
def test_whatever_is_made_printable_is_a_name_in_one_line(text):
    shown = printable(text)
    assert wrong_with_name(shown) is None
    assert len(shown) == len(text)
    assert len(shown.splitlines()) <= 1
    shown.encode()
