"""The figures that the API answers with: methods side by side, studies, layers. They are drawn in processes of their
own (api.computing); the service itself does not import matplotlib, which takes a second."""

import io
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from service.results.comparison import MeanPoint, RunResult, mean_curve
from service.results.layer_norms import LayerCurve
from service.results.study import StudyRow
from service.spec.names import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS = {
    "val_accuracy": "best validation accuracy so far",
    "test_accuracy": "test accuracy of that epoch",
}
# Okabe & Ito 2008: told apart by the colour-blind too; the dashes tell more than eight methods apart
COLORS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D1F")
MOST_NAMES = 24  # of layers, in a legend
NAME_INCHES = 0.2  # the height of a name in a study's legend
DASHES = ("-", "--", ":", "-.")


def comparison_figure(title: str, runs: Sequence[RunResult], kind: Literal["png", "svg"]) -> bytes:
    """A figure of accuracy over cost with a line for each run, in the file format `kind`. A line is the mean over the
    seeds of its run, the band around it the spread."""
    from matplotlib.ticker import EngFormatter, PercentFormatter

    curves = {run.label: mean_curve([seed.curve for seed in run.by_seed]) for run in runs}
    with drawing() as figure:
        figure.set_size_inches(11, 4.8)
        panels = figure.subplots(1, len(PANELS), sharex=True, sharey=True)
        figure.suptitle(title, parse_math=False)
        for axes, (value, name) in zip(panels, PANELS.items(), strict=True):
            for number, (label, curve) in enumerate(curves.items()):
                _draw(axes, label, curve, value, number)
            axes.set_xlabel("training samples processed, search included")
            axes.set_ylabel(name)
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
            axes.yaxis.set_major_formatter(PercentFormatter(1.0))
            axes.set_xlim(left=0)
            axes.tick_params(labelleft=True)
            axes.grid(alpha=0.3)
        if any(curves.values()):
            if (bounds := _ends(list(curves.values()))) is not None:
                panels[0].set_ylim(*bounds)
            figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper", title="run")
        else:
            for axes in panels:
                axes.set_xticks([])
                axes.text(0.5, 0.5, "no epoch is recorded yet", ha="center", transform=axes.transAxes)
        return saved(figure, kind)


def study_figure(title: str, rows: Sequence[StudyRow], kind: Literal["png", "svg"]) -> bytes:
    """A figure of a study in the file format `kind`: test accuracy over epochs and, where every variant has been
    trained at several batch sizes, over batch size. All are means over seeds."""
    with drawing(legend_size=9) as figure:
        figure.suptitle(title, parse_math=False)
        if any(row.seeds for row in rows):
            _draw_study(figure, rows)
        else:
            figure.text(0.5, 0.5, "no trial has ended yet", ha="center")
        return saved(figure, kind)


def _draw_study(figure: "Figure", rows: Sequence[StudyRow]) -> None:
    """Draw a panel for each variant with a line for each batch size, as Signer & Barbier have it in figures 1 to 5; or
    the other way round where that takes fewer panels, as with one batch size."""
    from matplotlib.ticker import PercentFormatter

    variants = list(dict.fromkeys(row.variant for row in rows))
    batches = sorted({row.global_batch_size for row in rows})
    rows = sorted(rows, key=lambda row: (variants.index(row.variant), row.global_batch_size))
    by_variant = len(variants) <= len(batches) > 1
    panels = [[row for row in rows if row.variant == one] for one in variants]
    if not by_variant:
        panels = [[row for row in rows if row.global_batch_size == one] for one in batches]
    complete = len(rows) == len(variants) * len(batches)
    first = int(complete and len(batches) > 1)  # of the panels over epochs
    count = first + len(panels)
    across, down = min(3, count), math.ceil(count / 3)
    named = NAME_INCHES * (3 + max(len(panel) for panel in panels))  # the height of a legend, its title included
    if complete and by_variant:
        named += NAME_INCHES * (3 + len(variants))
    row = 3.6 if complete else max(3.6, named)
    figure.set_size_inches(max(9, 5 * across), max(4.8, named, row * down))
    places = [figure.add_subplot(down, across, number) for number in range(1, count + 1)]
    if first:
        _draw_over_batches(places[0], rows, variants, batches)
    for axes, its in zip(places[first:], panels, strict=True):
        axes.sharex(places[first])
        axes.sharey(places[first])
        _draw_over_epochs(axes, its, by_variant=by_variant)
    for axes in places:
        axes.set_ylabel("test accuracy")
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.grid(alpha=0.3)
    what = "batch size" if by_variant else "variant"
    if complete:  # each panel has the same lines
        figure.legend(*places[first].get_legend_handles_labels(), loc="outside right upper", title=what)
        if by_variant:
            figure.legend(*places[0].get_legend_handles_labels(), loc="outside right lower", title="variant")
    else:
        for axes in places:
            axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.02), title=what, frameon=False)


def _draw_over_epochs(axes: "Axes", rows: Sequence[StudyRow], *, by_variant: bool) -> None:
    """A line for each batch size of one variant, or for each variant at one batch size."""
    from matplotlib.ticker import MaxNLocator

    for number, row in enumerate(rows):
        color, dash = _style(number)
        name = str(row.global_batch_size) if by_variant else row.variant
        epochs = range(1, len(row.curve) + 1)
        axes.plot(epochs, row.curve, dash, color=color, linewidth=1.4, label=_plain(name))
        axes.plot(epochs[-1:], row.curve[-1:], "o", color=color, markersize=4)
    title = rows[0].variant if by_variant else f"batch size {rows[0].global_batch_size}"
    axes.set_title(title, fontsize="medium", parse_math=False)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))


def _draw_over_batches(axes: "Axes", rows: Sequence[StudyRow], variants: Sequence[str], batches: Sequence[int]) -> None:
    for number, variant in enumerate(variants):
        its = [
            (row.global_batch_size, final.mean, final.spread or 0.0)
            for row in rows
            if row.variant == variant and (final := row.final_test_accuracy).mean is not None
        ]
        color, dash = _style(number)
        axes.errorbar(
            [batch for batch, _, _ in its],
            [mean for _, mean, _ in its],
            [spread for _, _, spread in its],
            fmt="o" + dash,
            color=color,
            label=_plain(variant),
            capsize=3,
            markersize=4,
        )
    axes.set_title("the last epoch", fontsize="medium")
    axes.set_xscale("log", base=2)
    axes.set_xticks(batches, [str(batch) for batch in batches], minor=False, rotation=90)
    axes.set_xlabel("global batch size")


def _style(number: int) -> tuple[str, str]:
    """Colour and dashes of the line with this number, from 0."""
    return COLORS[number % len(COLORS)], DASHES[number // len(COLORS) % len(DASHES)]


def _plain(name: str) -> str:
    """The name as matplotlib shows it literally: it reads formulas between two dollars and hides what begins with an
    underscore."""
    return ("\u200b" if name.startswith("_") else "") + name.replace("$", r"\$")


def layers_figure(title: str, curves: Sequence[LayerCurve], kind: Literal["png", "svg"]) -> bytes:
    """A figure of the norms of layers over steps, a line for each layer, in the file format `kind` (Do et al., Fig. 2).

    It has a panel each for the norm of the weights (LWN), of the gradient (LGN), their ratio (LNR), and the trust ratio
    where the optimizer has one.
    """
    import matplotlib
    from matplotlib.ticker import EngFormatter

    panels = {"lwn": "LWN: ‖w‖", "lgn": "LGN: ‖g‖", "lnr": "LNR: ‖w‖ / ‖g‖"}
    if any(curve.trust_ratio for curve in curves):
        panels["trust_ratio"] = "trust ratio"
    shades = matplotlib.colormaps["viridis"].resampled(max(2, len(curves)))
    named = range(0, len(curves), -(-len(curves) // MOST_NAMES) or 1)
    with drawing() as figure:
        figure.set_size_inches(2 + 4 * len(panels), 4.8)
        figure.suptitle(title, parse_math=False)
        for axes, (quantity, label) in zip(figure.subplots(1, len(panels), sharex=True), panels.items(), strict=True):
            for number, curve in enumerate(curves):
                values = [math.nan if value is None else value for value in getattr(curve, quantity)]
                name = curve.layer if number in named else None
                axes.plot(curve.steps, values, color=shades(number), linewidth=1.2, label=name)
            axes.set_xlabel("steps taken")
            axes.set_ylabel(label)
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
            axes.grid(alpha=0.3)
            if any(value for curve in curves for value in getattr(curve, quantity)):
                axes.set_yscale("log")
            if not curves:
                axes.text(0.5, 0.5, "no layer is recorded", ha="center", transform=axes.transAxes)
        if curves:
            figure.legend(
                *axes.get_legend_handles_labels(), loc="outside right upper", title="layer, from the input on"
            )
        return saved(figure, kind)


@contextmanager
def drawing(*, legend_size: int = 10) -> Iterator["Figure"]:
    """An empty figure that is saved to the same bytes each time it is drawn; `legend_size` is that of the texts of its
    legends, in points. matplotlib is not made for threads: a process draws one at a time (api.computing)."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.hashsalt": "forerun", "font.size": 10, "legend.fontsize": legend_size}):
        yield Figure(layout="constrained")


def saved(figure: "Figure", kind: Literal["png", "svg"]) -> bytes:
    """The figure as a file of that kind. An SVG is well-formed XML whatever the names in it: U+FFFD stands in place of
    what does not print."""
    target = io.BytesIO()
    figure.savefig(target, format=kind, dpi=120, metadata={"Date": None} if kind == "svg" else None)
    if kind == "png":
        return target.getvalue()
    return printable(target.getvalue().decode(), keep="\n\u200b").encode()


def _ends(curves: Sequence[Sequence[MeanPoint]]) -> tuple[float, float] | None:
    """The smallest and largest accuracy of the part of the axis in which the curves end, as beginnings far below would
    press all ends together at the top. None where nothing lies far below."""
    known = [curve for curve in curves if curve]
    ends = [getattr(curve[-1], value).mean for curve in known for value in PANELS]
    starts = [getattr(curve[0], value).mean for curve in known for value in PANELS]
    lowest, highest = min(ends), max(ends)
    bottom = lowest - max(0.05, 2 * (highest - lowest))
    return (bottom, highest + 0.2 * (highest - bottom)) if bottom > min(starts) else None


def _draw(axes: "Axes", label: str, curve: Sequence[MeanPoint], value: str, number: int) -> None:
    if not curve:
        return
    costs = [point.samples for point in curve]
    statistics = [getattr(point, value) for point in curve]
    means = [statistic.mean for statistic in statistics]
    color, dash = _style(number)
    axes.step(costs, means, dash, where="post", color=color, linewidth=1.6, label=label)
    axes.plot(costs[-1], means[-1], "o", color=color, markersize=5)
    if any(statistic.spread for statistic in statistics):
        spreads = [statistic.spread or 0.0 for statistic in statistics]
        low = [mean - spread for mean, spread in zip(means, spreads, strict=True)]
        high = [mean + spread for mean, spread in zip(means, spreads, strict=True)]
        axes.fill_between(costs, low, high, step="post", color=color, alpha=0.15, linewidth=0)
