"""Figures: what they show, read from their SVG; what they are to the eye is looked at by people."""

import re
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from xml.etree import ElementTree

import pytest

from api.figures import comparison_figure, layers_figure, study_figure
from service.results.comparison import Run, RunResult, SeedRun, Statistic, compare
from service.results.layer_norms import LayerCurve
from service.results.study import StudyRow
from service.store.records import EpochCost

METHODS = ("stpt", "sweep", "reference", "cosine", "one-cycle", "schedule-free", "prodigy", "tpe", "asha", "pbt")


def runs(*methods: str, seeds: int = 1, start: float = 0.7) -> list[RunResult]:
    def points(number: int) -> list[EpochCost]:
        accuracies = (start, 0.85, 0.9 + number / 1000)
        return [EpochCost(1000, a, a - 0.01, 100, 1.0, datetime(2026, 1, 1, tzinfo=UTC)) for a in accuracies]

    return compare([Run(name, name, [SeedRun(n, 1, 0, points(n)) for n in range(seeds)]) for name in methods])


def words(svg: bytes) -> list[str]:
    """The texts of a figure: matplotlib draws their outlines, and names each in a comment."""
    return re.findall(r"<!-- (.*?) -->", svg.decode())


def test_every_method_and_both_axes_are_named() -> None:
    svg = comparison_figure("lenet5 on digits", runs(*METHODS, seeds=3), "svg")
    assert svg.startswith(b"<?xml")
    shown = words(svg)
    assert set(METHODS) <= set(shown)
    assert shown.count("training samples processed, search included") == 2
    labels = {"lenet5 on digits", "run", "best validation accuracy so far", "test accuracy of that epoch"}
    assert labels <= set(shown)
    assert "3k" in shown


def test_accuracies_far_below_the_ends_are_cut_off() -> None:
    shown = {word for word in words(comparison_figure("", runs("stpt", start=0.1), "svg")) if word.endswith("%")}
    assert shown
    assert all(float(word.rstrip("%")) >= 80 for word in shown)


def test_without_an_epoch_it_says_so() -> None:
    nothing = compare([Run("stpt", "stpt", [SeedRun(0, 1, 0, [])])])
    assert words(comparison_figure("", nothing, "svg")).count("no epoch is recorded yet") == 2


def test_the_same_values_give_the_same_bytes() -> None:
    first, second = (comparison_figure("$a", runs("stpt"), "svg") for _ in range(2))  # a dollar is no formula
    assert first == second
    assert comparison_figure("$a", runs("stpt"), "png").startswith(b"\x89PNG\r\n\x1a\n")


EVIL = "".join(map(chr, range(0xA1))) + "]]><script>alert(1)</script>--><!--\u202e\ufffe\U0001f642$x_{$\\frac"


def test_an_svg_is_well_formed_whatever_the_names_in_it() -> None:
    """Jobs may be older than the rule about the characters of names."""
    curve = LayerCurve("stpt", [0], [1.0], [1.0], [1.0], None)
    svgs = [
        comparison_figure(EVIL, runs(EVIL), "svg"),
        study_figure(EVIL, study_rows([EVIL, f"_{EVIL}"], [64, 128]), "svg"),
        layers_figure(EVIL, [curve], "svg"),
    ]
    for svg in svgs:
        root = ElementTree.fromstring(svg)  # noqa: S314 - our own
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert {element.tag.partition("}")[2] for element in root.iter()}.isdisjoint({"script", "a", "foreignObject"})
        assert "\ufffd" in svg.decode()
        assert "\x1b" not in svg.decode()


# --- studies -------------------------------------------------------------------------------------------


def study_row(variant: str, batch: int, seeds: int = 3) -> StudyRow:
    curve = [0.5, 0.8, 0.9 - batch / 100_000 - len(variant) / 100] if seeds else []
    value = Statistic(curve[-1], 0.01) if curve else Statistic(None, None)
    return StudyRow(variant, batch, seeds, 0, value, value, curve)


def study_rows(variants: Sequence[str], batches: Sequence[int], seeds: int = 3) -> list[StudyRow]:
    return [study_row(variant, batch, seeds) for variant in variants for batch in batches]


def lines(svg: bytes) -> int:
    """Lines of their width, those in a legend included."""
    return svg.count(b"stroke-width: 1.4")


def test_a_study_has_a_panel_for_each_variant_and_one_over_batch_sizes() -> None:
    rows = study_rows(["linear", "sq$rt"], [64, 256, 1024])
    first, second = (study_figure("lenet5 on mnist", rows, "svg") for _ in range(2))
    assert first == second
    shown = words(first)
    assert {"lenet5 on mnist", "variant", "batch size", "the last epoch"} <= set(shown)
    assert (shown.count("global batch size"), shown.count("epoch"), shown.count("test accuracy")) == (1, 2, 3)
    assert shown.count("linear") == shown.count("sq$rt") == 2  # above its panel, and in the legend
    assert shown.count("64") == shown.count("256") == shown.count("1024") == 2  # on an axis, and in the legend
    assert lines(first) == 6 + 3  # three of them in the legend


def test_a_study_of_one_batch_is_drawn_over_epochs_alone() -> None:
    svg = study_figure("", study_rows(["lars", "lamb"], [512]), "svg")
    shown = words(svg)
    assert (shown.count("epoch"), shown.count("batch size 512"), shown.count("variant")) == (1, 1, 1)
    assert shown.count("lars") == shown.count("lamb") == 1
    assert "global batch size" not in shown
    assert lines(svg) == 2 + 2


def test_more_variants_than_batches_take_a_panel_for_each_batch() -> None:
    shown = words(study_figure("", study_rows(["none", "sqrt", "linear"], [1024, 16384]), "svg"))
    assert [word for word in shown if word.startswith("batch size")] == ["batch size 1024", "batch size 16384"]
    assert (shown.count("the last epoch"), shown.count("variant"), shown.count("sqrt")) == (1, 1, 1)


def test_variants_of_their_own_at_each_batch_are_named_beside_its_panel() -> None:
    rows = [study_row(f"lars, {rate}", batch) for batch, rates in {512: (1, 2), 1024: (2, 3)}.items() for rate in rates]
    shown = words(study_figure("", rows, "svg"))
    assert (shown.count("lars, 1"), shown.count("lars, 2"), shown.count("lars, 3"), shown.count("variant")) == (
        1,
        2,
        1,
        2,
    )
    assert "the last epoch" not in shown


@pytest.mark.parametrize(
    ("variants", "batches"),
    [(list(range(40)), [512]), (list(range(30)), [64, 128]), (list(range(12)), [2**n for n in range(20)])],
)
def test_a_figure_is_high_enough_for_all_its_names(variants: list[int], batches: list[int]) -> None:
    names = [f"variant {number}" for number in variants]
    whole = study_rows(names, batches)
    for rows in (whole, whole[1:]):  # each panel has its own names where one is missing
        svg = study_figure("", rows, "svg").decode()
        height = float(re.search(r'viewBox="0 0 \S+ (\S+)"', svg)[1])
        places = re.findall(r"<!-- (?:variant )?\d+ -->\s*<g [^>]*translate\(\S+ (\S+)\)", svg)
        assert len(places) > len(names)
        assert all(0 < float(place) < height for place in places)


def test_the_same_variants_in_another_order_keep_their_colours() -> None:
    rows = study_rows(["none", "sqrt", "linear"], [64, 128])
    mixed = [*rows[::2], *rows[5::-2]]  # the second batch, by the last variant first
    assert study_figure("", mixed, "svg") == study_figure("", rows, "svg")


def test_a_study_without_a_trial_that_has_ended_says_so() -> None:
    assert words(study_figure("", study_rows(["none"], [64, 128], seeds=0), "svg")) == ["no trial has ended yet"]
    some = [study_row("none", 64), study_row("none", 128, seeds=0)]
    assert "no trial has ended yet" not in words(study_figure("", some, "svg"))


# --- layers --------------------------------------------------------------------------------------------


def curve(layer: str, **changes: list[float | None]) -> LayerCurve:
    values = {"lwn": [3.0, 2.0, None], "lgn": [1.5, 0.5, 0.0], "lnr": [2.0, 4.0, None], "trust_ratio": []}
    return LayerCurve(layer, [0, 1000, 2000], **values | changes)


def test_norms_of_layers_and_both_axes_are_named() -> None:
    svg = layers_figure("lenet5 on digits", [curve("0.weight"), curve("3.weight")], "svg")
    shown = words(svg)
    assert {"lenet5 on digits", "0.weight", "3.weight", "LNR: ‖w‖ / ‖g‖", "LWN: ‖w‖", "LGN: ‖g‖"} <= set(shown)
    assert shown.count("steps taken") == 3
    assert "trust ratio" not in shown
    assert "2k" in shown
    assert layers_figure("lenet5 on digits", [curve("0.weight"), curve("3.weight")], "svg") == svg


def test_trust_ratios_have_a_panel_beside_norm_ratios() -> None:
    shown = words(layers_figure("", [curve("0.weight", trust_ratio=[0.002, 0.004, None])], "svg"))
    panels = ["LWN: ‖w‖", "LGN: ‖g‖", "LNR: ‖w‖ / ‖g‖", "trust ratio"]
    assert [word for word in shown if word in panels] == panels
    assert shown.count("steps taken") == 4


def test_of_many_layers_some_are_named() -> None:
    shown = words(layers_figure("", [curve(f"layer-{n}") for n in range(54)], "svg"))
    assert [word for word in shown if word.startswith("layer-")] == [f"layer-{n}" for n in range(0, 54, 3)]


def test_layers_without_a_number_that_can_be_drawn() -> None:
    nothing = {name: [None, None, 0.0] for name in ("lwn", "lgn", "lnr")}
    assert "0.weight" in words(layers_figure("", [curve("0.weight", **nothing)], "svg"))
    assert words(layers_figure("", [], "svg")).count("no layer is recorded") == 3


def test_matplotlib_is_imported_only_when_a_figure_is_made() -> None:
    code = "import api.app, sys; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
