"""The phases of short-term pre-training (STPT, Yamada et al., Algorithm 1): warm-up, Pre-train, Main-train; the
selector that chooses between branches; the guards and the audit beside them."""

from typing import Annotated, Literal

from pydantic import (
    Field,
)

from service.spec.types import Frozen, LearningRate, named


class Warmup(Frozen):
    """The warm-up of stpt: the first epochs at one small learning rate, without Pre-train."""

    epochs: int | None = Field(
        0, ge=0, description="Epochs of warm-up; null: a tenth of all, rounded (Yamada et al.: 4 of 40)."
    )
    learning_rate: LearningRate = Field(0.005, description="The learning rate of all warm-up epochs.")


class Pretrain(Frozen):
    """The Pre-train of an epoch of stpt: alpha iterations of every candidate from the same state."""

    weights: Literal["raw", "averaged"] = Field(
        "averaged", description="What is judged: the last weights, or the mean of those of the last half of alpha."
    )

    iterations: int | None = Field(None, ge=1, description="alpha; null: 8 % of an epoch (Yamada et al.: 200 of 2500).")
    placement: Literal["split", "sequential"] = Field(
        "split", description="split: branches side by side on groups of workers; sequential: one after another on all."
    )
    batch: Literal["global", "per_worker"] = Field(
        "global",
        description="split only: a branch takes the global batch, or one worker's share for each of its workers.",
    )
    max_retries: int = Field(
        2, ge=0, le=10, description="When every branch diverges: again with all candidates / 10 (a single one: / 2)."
    )


class MainTrain(Frozen):
    """The Main-train of an epoch of stpt: beta iterations at the chosen learning rate on all workers."""

    iterations: int | None = Field(None, ge=0, description="beta; null: the rest of the epoch.")


class Guards(Frozen):
    """Guards of stpt, which save a training from a choice that turns out badly. Each is on unless switched off."""

    extend: bool = Field(True, description="When no branch improves on the epoch's start, try far smaller ones too.")
    skip_dead: bool = Field(
        True, description="In the first epoch, a branch whose last weights have learned nothing is not chosen."
    )
    rollback: bool = Field(True, description="Undo a Main-train that diverges or collapses; go on with the runner-up.")
    max_accuracy_drop: float = Field(
        0.2, gt=0, le=1, description="A Main-train has collapsed when validation accuracy falls by more than this."
    )
    rescale_momentum: bool = Field(
        True,
        description="sgd, lars, tvlars: a rise of the learning rate does not enlarge what momentum carries over.",
    )


class Audit(Frozen):
    """Train losing branches of stpt to the end of the epoch too, to see whether the choice was right. It changes
    nothing else."""

    every: int = Field(5, ge=1, le=100_000, description="Epochs from one audit to the next, from the first Pre-train.")
    branches: int = Field(2, ge=1, le=64, description="Losing branches that are trained on, drawn at random.")


class GreedySelector(Frozen):
    """The selector of STPT (Yamada et al., Algorithm 1): the branch with the best metric goes on."""

    name: Literal["greedy"] = Field("greedy", description="The best metric wins.")


class ToleranceSelector(Frozen):
    """A selector that takes the largest learning rate whose metric is nearly as good as the best."""

    name: Literal["tolerance"] = Field("tolerance", description="The largest that is nearly as good as the best.")
    tolerance: float = Field(
        0.03,
        ge=0,
        le=1,
        description="How much worse it may be, as a share of the best loss, or of the best error (1 - accuracy).",
    )


_Selectors = Annotated[GreedySelector | ToleranceSelector, Field(discriminator="name")]
SelectorName = Literal["greedy", "tolerance"]
Selector = Annotated[_Selectors, named(SelectorName, _Selectors)]
Metric = Literal["val_accuracy", "val_loss", "train_accuracy"]
