"""Explains the learning rates of a training in sentences: a line for each choice, and one for the epochs without a
choice between two of them."""

from collections.abc import Iterator, Sequence
from itertools import groupby

from forerun.display.text import clean
from service.wire.answers import Alternative, Decision, Decisions, Rule

INDENT = "  "


def text_of(decisions: Decisions) -> str:
    """The decisions as lines of text, without characters that could command a terminal."""
    if not decisions.items:
        return "no epoch is recorded yet"
    return "\n".join(" ".join(clean(line).split("\n")) for line in _lines(decisions))


def _lines(decisions: Decisions) -> Iterator[str]:
    groups = groupby(decisions.items, lambda one: (one.is_choice, one.epoch if one.is_choice else one.why))
    for (is_choice, _), group in groups:
        its = list(group)
        yield _choice(its[0], decisions) if is_choice else _standing(its)
        # a warning that goes on is told once, as it was last
        last = {warning.code: warning.message for one in its for warning in one.warnings}
        yield from (f"{INDENT}Warning: {message}." for message in last.values())


def _choice(one: Decision, decisions: Decisions) -> str:
    rates = [candidate.learning_rate for candidate in one.candidates]
    sentences = [
        f"Epoch {one.epoch}: {len(rates)} candidates from {min(rates):.4g} to {max(rates):.4g}; "
        f"{_result(one, decisions)}{_failures(one)}."
    ]
    if one.rule is not None and one.rule.passed_over:
        sentences.append(f"{_list(one.rule.passed_over)} looked better, but had learned nothing.")
    if _chosen_rate(one) != one.learning_rate:
        sentences.append(
            f"The training takes {one.learning_rate:.4g}, between the finalists by how much each had learned."
        )
    sentences += [sentence for other in one.alternatives if (sentence := _alternative(other, one.learning_rate))]
    if one.regret:
        sentences.append(f"By the audit, another candidate ended the epoch better, by {one.regret:.4g}.")
    return " ".join(sentences)


def _chosen_rate(one: Decision) -> float:
    """The learning rate of the candidate that was chosen."""
    return next((its.learning_rate for its in one.candidates if its.state == "chosen"), one.learning_rate)


def _result(one: Decision, decisions: Decisions) -> str:
    """What was chosen and what it won by, such as `0.1 was best (val_loss 0.52, next best 0.3 with 0.55)`."""
    taken = _chosen_rate(one)
    metric = next((candidate.metric for candidate in one.candidates if candidate.state == "chosen"), None)
    if one.rule is None or one.rule.best is None or metric is None:
        return f"{taken:.4g} was chosen"
    numbers = f"{decisions.metric} {metric:.4g}{_beside(one.rule)}"
    if one.rule.best.metric == metric:
        return f"{taken:.4g} was best ({numbers})"
    selector = decisions.selector["name"]
    return f"{taken:.4g} was chosen by {selector} ({numbers})"


def _beside(rule: Rule) -> str:
    if rule.ties:
        return f", the same as {_list(rule.ties)}"
    if rule.runner_up is None:
        return ""
    what = "best was" if rule.margin is not None and rule.margin < 0 else "next best"
    limit = "" if rule.threshold is None else f"; nearly as good is up to {rule.threshold:.4g}"
    return f", {what} {rule.runner_up.learning_rate:.4g} with {rule.runner_up.metric:.4g}{limit}"


def _failures(one: Decision) -> str:
    """What became of the others, where it was not just that they lost."""
    diverged = sum(candidate.state == "diverged" for candidate in one.candidates)
    told = f"; {diverged} diverged" if diverged else ""
    if one.rollbacks:
        told += f"; {one.rollbacks} chosen before it came to nothing and was undone"
    if one.retries:
        told += f"; it took {one.retries} {'retry' if one.retries == 1 else 'retries'} with smaller ones"
    return told


def _alternative(other: Alternative, taken: float) -> str:
    """What another selector would have taken; nothing where that is what the epoch has `taken`."""
    if other.learning_rate is None or other.learning_rate == taken:
        return ""
    return f"{other.selector['name']} would have taken {other.learning_rate:.4g}."


def _standing(epochs: Sequence[Decision]) -> str:
    first, last = epochs[0], epochs[-1]
    which = f"Epoch {first.epoch}" if len(epochs) == 1 else f"Epochs {first.epoch} to {last.epoch}"
    rates = f"{first.first_learning_rate:.4g}"
    if last.last_learning_rate != first.first_learning_rate:
        rates += f" to {last.last_learning_rate:.4g}"
    return f"{which}: {first.why}: {rates}."


def _list(rates: Sequence[float]) -> str:
    return " and ".join(f"{rate:.4g}" for rate in rates) if len(rates) < 3 else f"{len(rates)} others"
