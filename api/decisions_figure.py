"""The figure of a training's choices of the learning rate: over epochs, and a panel for each choice."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from api.figures import COLORS, drawing, saved
from service.algorithms.choices import LOSSES, JudgedBy, loss_of
from service.results.decisions import Candidate, Decision

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

MOST_CHOICES = 12  # that get a panel
ACROSS = 4  # panels in a row at most
FAR = 3, 0.1  # a loss, or an error, over so many times the best, and so much above it, is drawn at the edge
CHOSEN, LOST, OTHERS = COLORS[0], COLORS[1], (COLORS[2], COLORS[3], COLORS[7])
STATES = {  # of candidates: what they are called, and how they are marked
    "lost": ("lost", "o", LOST),
    "eliminated": ("no finalist", ".", LOST),
    "diverged": ("diverged", "x", "black"),
    "rolled_back": ("undone", "v", "black"),
    "chosen": ("chosen", "o", CHOSEN),
}
WARNINGS = {
    "lowest_tried": "lowest tried",
    "highest_tried": "highest tried",
    "all_tie": "all tie",
    "one_left": "all others diverged",
    "loss_rising": "loss rising",
}


def decisions_figure(title: str, decisions: Sequence[Decision], metric: JudgedBy, kind: Literal["png", "svg"]) -> bytes:
    """A figure of how the epochs of a training came to their learning rates, in the file format `kind`: the learning
    rate over epochs with all candidates, and below it a panel for each choice with the metric over the learning rate.
    Of more than `MOST_CHOICES` choices every second, third, … has one."""
    choices = [one for one in decisions if one.is_choice]
    shown = choices[:: -(-len(choices) // MOST_CHOICES) or 1]
    across = max(1, min(ACROSS, len(shown)))
    down = -(-len(shown) // across)
    with drawing() as figure:
        figure.set_size_inches(12, 3.6 + 3.2 * down)
        figure.suptitle(title, parse_math=False)
        grid = figure.add_gridspec(1 + down, across)
        over_epochs = figure.add_subplot(grid[0, :])
        _draw_over_epochs(over_epochs, decisions)
        panels = [figure.add_subplot(grid[1 + place // across, place % across]) for place in range(len(shown))]
        for axes, choice in zip(panels, shown, strict=True):
            _draw_choice(axes, choice, metric)
        named: dict[str, Artist] = {}
        for axes in (over_epochs, *panels):
            for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
                named.setdefault(name, handle)
        if named:
            figure.legend(list(named.values()), list(named), loc="outside right upper")
        return saved(figure, kind)


def _draw_over_epochs(axes: "Axes", decisions: Sequence[Decision]) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel("epoch")
    axes.set_ylabel("learning rate\nbefore lr_schedule")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    axes.grid(alpha=0.3)
    if not decisions:
        axes.set_yticks([])
        axes.text(0.5, 0.5, "no epoch is recorded yet", ha="center", transform=axes.transAxes)
        return
    axes.set_yscale("log")
    axes.set_xlim(0.5, decisions[-1].epoch + 0.5)
    axes.plot([one.epoch for one in decisions], [one.learning_rate for one in decisions], color=CHOSEN, linewidth=1.4)
    for state, (name, marker, color) in STATES.items():
        tried = [
            (one.epoch, candidate.learning_rate)
            for one in decisions
            for candidate in one.candidates
            if candidate.state == state and (one.is_choice or state != "chosen")
        ]
        if tried:
            axes.plot(*zip(*tried, strict=True), marker, color=color, markersize=5, label=name)
    warned = [(one.epoch, one.learning_rate) for one in decisions if one.warnings]
    if warned:
        axes.plot(
            *zip(*warned, strict=True), "s", color="black", markerfacecolor="none", markersize=11, label="warning"
        )
    for name, color in _others(decisions).items():
        taken = [(one.epoch, rate) for one in decisions if (rate := _taken_by(name, one)) is not None]
        axes.plot(*zip(*taken, strict=True), "D", color=color, markerfacecolor="none", markersize=9, label=_would(name))


def _draw_choice(axes: "Axes", choice: Decision, metric: JudgedBy) -> None:
    """The metric of the candidates of one choice over their learning rates, and which one each other selector takes."""
    _draw_candidates(axes, choice.candidates, metric)
    if choice.rule is not None and choice.rule.threshold is not None:
        axes.axhline(choice.rule.threshold, color="gray", linewidth=0.8, linestyle=":", label="nearly as good")
    for name, color in _others([choice]).items():
        rate = _taken_by(name, choice) or math.nan
        axes.axvline(rate, color=color, linewidth=1.0, linestyle="--", label=_would(name))
    told = ", ".join(WARNINGS[warning.code] for warning in choice.warnings)
    axes.set_title(f"epoch {choice.epoch}: {choice.learning_rate:.4g}" + (f"\n{told}" if told else ""), fontsize=9)
    axes.set_ylabel(metric, fontsize=8)
    axes.margins(y=0.12)  # room at the edges
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.3)
    _scale_rates(axes, [one.learning_rate for one in choice.candidates])


def _draw_candidates(axes: "Axes", candidates: Sequence[Candidate], metric: JudgedBy) -> None:
    """A mark for each candidate, at the edge where its metric is far off, and a hollow one for the end of its epoch."""
    in_order = sorted(candidates, key=lambda one: one.learning_rate)
    limit = _far([loss_of(one.metric, metric) for one in in_order if one.metric is not None])
    edge, beyond = (0.96, "^") if metric in LOSSES else (0.04, "v")  # where bad metrics are
    line = list[tuple[float, float]]()
    for one in in_order:
        name, marker, color = STATES[one.state]
        if one.metric is None or loss_of(one.metric, metric) > limit:
            if one.metric is not None:
                name, marker = "far off", beyond
            axes.plot(one.learning_rate, edge, marker, color=color, label=name, transform=axes.get_xaxis_transform())
            continue
        if one.state != "eliminated":  # looks of other rounds of a race are of other lengths
            line.append((one.learning_rate, one.metric))
        axes.plot(one.learning_rate, one.metric, marker, color=color, markersize=8 if one.state == "chosen" else 5)
        for point in one.curve:
            if point.iterations > one.iterations and loss_of(point.metric, metric) <= limit:
                end = (one.learning_rate, point.metric)
                axes.plot(*end, "o", color=color, markerfacecolor="none", label="end of the epoch")
    if line:
        axes.plot(*zip(*line, strict=True), color=LOST, linewidth=0.8, alpha=0.5, zorder=1)


def _far(losses: Sequence[float]) -> float:
    """The loss above which one of these would press the others together."""
    times, more = FAR
    best = min(losses, default=0.0)
    return best + max((times - 1) * abs(best), more)


def _scale_rates(axes: "Axes", rates: Sequence[float]) -> None:
    """A logarithmic axis that names the ends of what was tried, and the middle where there is room for it."""
    axes.set_xscale("log")
    low, high = min(rates), max(rates)
    ticks = sorted({low, math.sqrt(low) * math.sqrt(high), high})
    axes.set_xticks(ticks, [f"{tick:.3g}" for tick in ticks], minor=False)
    axes.set_xticks([], minor=True)
    axes.set_xlabel("learning rate", fontsize=8)


def _others(decisions: Sequence[Decision]) -> dict[str, str]:
    """The names of the selectors that would have chosen otherwise at one of these epochs, each with a colour."""
    every = dict.fromkeys(other.selector["name"] for one in decisions for other in one.alternatives)
    colors = {name: OTHERS[number % len(OTHERS)] for number, name in enumerate(every)}
    return {name: color for name, color in colors.items() if any(_taken_by(name, one) is not None for one in decisions)}


def _taken_by(selector: str, decision: Decision) -> float | None:
    """The learning rate that this selector would have taken; None where that is the one that was taken."""
    rates = [other.learning_rate for other in decision.alternatives if other.selector["name"] == selector]
    return next((rate for rate in rates if rate != decision.learning_rate), None)


def _would(selector: str) -> str:
    return f"{selector}'s choice"
