"""Answers that explain the learning rates of a training of stpt or autolrs: what each was chosen from, by which rule,
and what speaks against the choice."""

from typing import Any

from pydantic import Field

from service.wire.answers.base import JOB_ID, Answer, example

# Examples: the first epoch of a job, whose second candidate was chosen.
_POINT = {"iterations": 20, "metric": 0.52}
_CANDIDATE = {
    "number": 2,
    "retry": 0,
    "learning_rate": 0.1,
    "factor": 1.0,
    "metric": 0.52,
    "iterations": 20,
    "seconds": 0.61,
    "state": "chosen",
    "curve": [_POINT],
}
_RATED = {"learning_rate": 0.1, "metric": 0.52}
_RULE = {
    "best": _RATED,
    "runner_up": {"learning_rate": 0.3, "metric": 0.55},
    "margin": 0.03,
    "threshold": None,
    "ties": [],
    "passed_over": [],
}
_ALTERNATIVE = {"selector": {"name": "tolerance", "tolerance": 0.03}, "learning_rate": 0.1, "regret": None}
_WARNING = {
    "code": "lowest_tried",
    "message": "0.1 is the lowest learning rate that was tried: a lower one may be better, widen lr_set",
}
_DECISION = {
    "epoch": 1,
    "phase": "stpt",
    "is_choice": True,
    "chosen_at": 1,
    "why": "selector greedy by val_loss: The best metric wins.",
    "current_learning_rate": 0.1,
    "learning_rate": 0.1,
    "first_learning_rate": 0.1,
    "last_learning_rate": 0.0905,
    "val_loss": 0.52,
    "val_accuracy": 0.8472,
    "retries": 0,
    "rollbacks": 0,
    "regret": None,
    "candidates": [_CANDIDATE],
    "rule": _RULE,
    "alternatives": [_ALTERNATIVE],
    "warnings": [_WARNING],
}


class BranchPoint(Answer):
    """The metric of a branch at one moment of its epoch."""

    model_config = example(_POINT)

    iterations: int = Field(description="Iterations of the epoch until then; 0: its start.")
    metric: float = Field(description="What the branch is judged by, as it was then.")


class Candidate(Answer):
    """One candidate of an epoch: what it was, what it was judged by, and what became of it."""

    model_config = example(_CANDIDATE)

    number: int = Field(description="Number of the candidate from 1, over all retries of the epoch.")
    retry: int = Field(description="The Pre-train that it belongs to: 0, or the number of the retry.")
    learning_rate: float = Field(description="Its learning rate, before lr_schedule.")
    factor: float = Field(description="Its learning rate over the one before the choice, to six digits.")
    metric: float | None = Field(description="What it was judged by; null: not finite.")
    iterations: int = Field(description="Iterations from the epoch's start after which it was judged.")
    seconds: float = Field(description="How long that took, in seconds.")
    state: str = Field(description="What became of it: chosen, lost, eliminated, diverged or rolled_back.")
    curve: list[BranchPoint] = Field(
        description="As much of its course as is stored: the model that the epoch began with, its end, and the epoch's "
        "end where it was chosen or audited. The first and the last are of last weights, its end as pretrain.weights "
        "has it."
    )


class RatedRate(Answer):
    """A learning rate and the metric that it was judged by."""

    model_config = example(_RATED)

    learning_rate: float = Field(description="The learning rate.")
    metric: float = Field(description="The metric of its branch.")


class Rule(Answer):
    """The numbers by which a choice was made."""

    model_config = example(_RULE)

    best: RatedRate | None = Field(description="The candidate with the best metric; null: all diverged.")
    runner_up: RatedRate | None = Field(description="The best of those that were not chosen; null: there is none.")
    margin: float | None = Field(
        description="How much better the chosen one was than the runner-up, in the metric; negative: it was worse."
    )
    threshold: float | None = Field(
        description="The worst metric that counts as nearly as good as the best; null: the selector has no tolerance."
    )
    ties: list[float] = Field(description="Learning rates with the very metric of the chosen one.")
    passed_over: list[float] = Field(
        description="Learning rates that looked better, but whose last weights had learned nothing (guard skip_dead)."
    )


class Alternative(Answer):
    """What another selector, with its defaults, would have chosen from the same candidates."""

    model_config = example(_ALTERNATIVE)

    selector: dict[str, Any] = Field(description="The other selector, with its options.")
    learning_rate: float | None = Field(
        description="The learning rate that it would have chosen: the epoch's where it is the same candidate; "
        "null: all diverged."
    )
    regret: float | None = Field(description="How much better the best audited branch ended; null: not audited.")


class ChoiceWarning(Answer):
    """Something that speaks against a choice."""

    model_config = example(_WARNING)

    code: str = Field(
        description="Stable, programs go by it: lowest_tried, highest_tried, all_tie, one_left or loss_rising."
    )
    message: str = Field(description="The same in a sentence, with its numbers.")


class Decision(Answer):
    """How an epoch came to its learning rate: by a choice, or by an earlier one that stands."""

    model_config = example(_DECISION)

    epoch: int = Field(description="Number of the epoch, from 1.")
    phase: str = Field(description="Phase of the training: warmup, stpt, or of autolrs within a stage scheduled.")
    is_choice: bool = Field(description="Whether the epoch had several candidates; if not, an earlier choice stands.")
    chosen_at: int | None = Field(description="Epoch of the last choice, this one included; null: there was none yet.")
    why: str = Field(description="Why this learning rate, in a sentence: the rule, or why nothing was chosen.")
    current_learning_rate: float = Field(description="The learning rate before the epoch, before lr_schedule.")
    learning_rate: float = Field(description="The epoch's learning rate before lr_schedule.")
    first_learning_rate: float = Field(description="Learning rate of the first iteration, under lr_schedule.")
    last_learning_rate: float = Field(description="Learning rate of the last iteration, under lr_schedule.")
    val_loss: float | None = Field(description="Validation loss at the end of the epoch; null: it was not finite.")
    val_accuracy: float = Field(description="Validation accuracy at the end of the epoch, from 0 to 1.")
    retries: int = Field(description="Pre-trains that were repeated with smaller learning rates.")
    rollbacks: int = Field(description="Main-trains that were undone.")
    regret: float | None = Field(description="How much better the best audited loser ended; null: not audited.")
    candidates: list[Candidate] = Field(description="What was tried, in that order.")
    rule: Rule | None = Field(description="The numbers of the choice; null: there was none.")
    alternatives: list[Alternative] = Field(description="What each other selector of stpt would have chosen.")
    warnings: list[ChoiceWarning] = Field(description="What speaks against the choice.")


class Decisions(Answer):
    """How each epoch of a training of stpt or autolrs came to its learning rate."""

    model_config = example(
        {
            "job_id": JOB_ID,
            "label": "stpt",
            "trial": 1,
            "metric": "val_loss",
            "selector": {"name": "greedy"},
            "items": [_DECISION],
        }
    )

    job_id: str = Field(description="Id of the job.")
    label: str = Field(description="Label of the run.")
    trial: int = Field(description="Number of the trial in its run, from 1.")
    metric: str = Field(
        description="What candidates are judged by: val_loss, val_accuracy or train_accuracy; of autolrs "
        "forecast_loss, the loss that is forecast for the end of the stage."
    )
    selector: dict[str, Any] = Field(
        description="What chooses between them, with its options: a selector of stpt, or autolrs."
    )
    items: list[Decision] = Field(description="The recorded epochs, in order.")
