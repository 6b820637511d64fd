"""CSV that a spreadsheet opens without running anything in it."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.wire.csv_text import csv_text

CELLS = [
    ('=HYPERLINK("http://x")', '\'=HYPERLINK("http://x")'),
    ("+1+cmd|' /C calc'!A0", "'+1+cmd|' /C calc'!A0"),
    ("-1", "'-1"),  # of text; numbers are below
    ("@SUM(1)", "'@SUM(1)"),
    ("\t=1", "'\ufffd=1"),
    ("\r=1", "'\ufffd=1"),
    ("\n=1", "'\ufffd=1"),
    ("＝1", "'＝1"),
    ("'=1", "'=1"),
    ("a=1", "a=1"),
    ('a,"b"', 'a,"b"'),
    ("two\nlines\x1b", "two\ufffdlines\ufffd"),
    ("", ""),
    (-0.5, "-0.5"),
    (-3, "-3"),
    (1e-12, "1e-12"),
    (True, "True"),
    (None, ""),
    ([-0.5, 0.25], "-0.5 0.25"),
    (["-x", "y"], "'-x y"),
    ([], ""),
]


@pytest.mark.parametrize(("value", "cell"), CELLS)
def test_a_cell(value, cell):
    text = csv_text(["a", "b"], [{"a": value, "b": 1}])
    header, row = csv.reader(io.StringIO(text, newline=""))
    assert header == ["a", "b"]
    assert row == [cell, "1"]


@given(st.lists(st.text(st.characters(codec=None)), min_size=1))
def test_whatever_a_text_is_its_cell_is_no_formula_and_one_line(texts):
    text = csv_text(["a"], [{"a": one} for one in texts])
    rows = list(csv.reader(io.StringIO(text, newline="")))
    assert [len(row) for row in rows[1:] if row] == [1] * sum(map(bool, rows[1:]))
    for line in text.split("\r\n")[1:-1]:
        assert line.isprintable()
        assert not line.lstrip('"').startswith(("=", "+", "-", "@"))


@given(st.floats(allow_nan=False))
def test_a_number_stays_the_number(value):
    assert float(csv_text(["a"], [{"a": value}]).split("\r\n")[1]) == value
