"""Learning-rate sets: the candidates of an epoch (STPT, Yamada et al., Tables 2 to 4), absolute or relative, by name,
by phases, by stages, by a race, or from past jobs."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    model_validator,
)

from service.errors import FieldError
from service.spec.types import (
    MAX_LEARNING_RATE,
    MAX_LEARNING_RATES,
    Factor,
    Frozen,
    LearningRate,
    allowed_learning_rate,
)

LrSetName = Literal["paper-alpha", "narrow", "middle", "wide", "mix"]
_KIND = "May be left out: the other keys tell it."
_CAP = "Candidates above it are lowered to it."
NAMED_CANDIDATES = 8  # of each of the paper's sets (Yamada et al., Tables 2 and 3)


def relative_candidates(factors: Sequence[float], current: float, cap: float) -> tuple[float, ...]:
    """The learning rate `current` times each factor, capped at `cap`; values equal after the cap become one."""
    return tuple(dict.fromkeys(allowed_learning_rate(current * factor, cap) for factor in factors))


@dataclass(frozen=True)
class Pretrains:
    """Epochs whose Pre-trains are planned alike: how many epochs, with how many candidates at most (some may be equal
    after the cap), and alpha as a share of an epoch (None: as the method has it)."""

    epochs: int
    candidates: int
    share: float | None = None


class _LrSet(Frozen):
    why_not_scaled: ClassVar[str | None] = None  # to the batch; None: they can be

    def pretrains(self, first: int, last: int) -> list[Pretrains]:
        """The Pre-trains of a training from epoch `first`, the one behind the warm-up, to epoch `last`, which are
        planned whatever comes out; without epochs that have a single candidate."""
        return []


def _every_epoch(candidates: int, first: int, last: int) -> list[Pretrains]:
    return [Pretrains(max(0, last - first + 1), candidates)]


class RelativeLrSet(_LrSet):
    """A learning-rate set whose candidates are the current learning rate times each factor, capped at
    `max_learning_rate`."""

    kind: Literal["relative"] = Field("relative", description=_KIND)
    factors: list[Factor] = Field(
        min_length=1, max_length=MAX_LEARNING_RATES, description="What the current learning rate is multiplied by."
    )
    max_learning_rate: LearningRate = Field(1.0, description=_CAP)

    def pretrains(self, first: int, last: int) -> list[Pretrains]:
        """One every epoch, over all factors."""
        return _every_epoch(self.distinct, first, last)

    @cached_property  # a budget asks for it many times
    def distinct(self) -> int:
        """The number of factors, equal ones once."""
        return len(set(self.factors))


class AbsoluteLrSet(_LrSet):
    """A learning-rate set that lists the candidates themselves, the same ones every epoch."""

    why_not_scaled: ClassVar[str | None] = "are absolute"

    kind: Literal["absolute"] = Field("absolute", description=_KIND)
    learning_rates: list[LearningRate] = Field(
        min_length=1, max_length=MAX_LEARNING_RATES, description="The candidates of every epoch."
    )

    def pretrains(self, first: int, last: int) -> list[Pretrains]:
        """One every epoch, over all learning rates."""
        return _every_epoch(self.distinct, first, last)

    @cached_property
    def distinct(self) -> int:
        """The number of learning rates, equal ones once."""
        return len(set(self.learning_rates))


class NamedLrSet(_LrSet):
    """A learning-rate set of STPT's paper (Yamada et al., Tables 2 and 3) by its name: capped relative factors. `mix`
    is Table 4, scaled to the epochs."""

    kind: Literal["named"] = Field("named", description=_KIND)
    name: LrSetName = Field(description="The set's name; GET /v1/catalog has its factors.")
    max_learning_rate: LearningRate = Field(1.0, description=_CAP)

    def pretrains(self, first: int, last: int) -> list[Pretrains]:
        """One every epoch, with as many candidates in each of the sets that `mix` is made of."""
        return _every_epoch(NAMED_CANDIDATES, first, last)


def _tagged(shorthand: dict[str, str], union: Any) -> Any:
    """Fill in `kind` where the keys tell it, and read a bare string as a set's name. The JSON schema has both."""

    def tag(value: Any) -> Any:
        if isinstance(value, str):
            return {"kind": "named", "name": value}
        if isinstance(value, dict) and "kind" not in value:
            for key, kind in shorthand.items():
                if key in value:
                    return {"kind": kind, **value}
        return value

    return BeforeValidator(tag, json_schema_input_type=LrSetName | union)


_KINDS = {"factors": "relative", "learning_rates": "absolute", "name": "named"}
_SimpleLrSets = Annotated[RelativeLrSet | AbsoluteLrSet | NamedLrSet, Field(discriminator="kind")]
SimpleLrSet = Annotated[_SimpleLrSets, _tagged(_KINDS, _SimpleLrSets)]


class LrSetPhase(Frozen):
    """A phase of a learning-rate set, from `first_epoch` (counted from 1) until the next phase begins."""

    first_epoch: int = Field(ge=1, description="The first epoch that takes this set; no later than the last epoch.")
    lr_set: SimpleLrSet = Field(description="The set: any but one of phases or stages, a race or the history.")


class PhasedLrSet(_LrSet):
    """One learning-rate set after another (STPT, Yamada et al., Table 4): each phase lasts until the next begins."""

    kind: Literal["phases"] = Field("phases", description=_KIND)
    phases: list[LrSetPhase] = Field(min_length=1, max_length=64, description="The phases, by ascending first epoch.")

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        firsts = [phase.first_epoch for phase in self.phases]
        if firsts != sorted(set(firsts)):
            raise ValueError(f"phases must begin at ascending epochs, not {firsts}; reorder them")
        return self

    def pretrains(self, first: int, last: int) -> list[Pretrains]:
        """Those of each phase in turn; the first one holds from the first epoch behind the warm-up on."""
        begins = [first, *(max(first, phase.first_epoch) for phase in self.phases[1:])]
        ends = [*(min(last, begin - 1) for begin in begins[1:]), last]
        spans = zip(self.phases, begins, ends, strict=True)
        return [alike for phase, begin, end in spans for alike in phase.lr_set.pretrains(begin, end)]

    def late_phases(self, epochs: int, field: str) -> list[FieldError]:
        """An error for each phase that begins behind the last of `epochs`; `field` is the set's place in the spec."""
        message = f"after the last epoch ({epochs}); lower it, raise epochs, or leave the phase out"
        return [
            FieldError(f"{field}.phases[{number}].first_epoch", phase.first_epoch, message)
            for number, phase in enumerate(self.phases)
            if phase.first_epoch > epochs
        ]


class Stage(Frozen):
    """The search of one epoch: its candidates, as factors on the current learning rate, and how long each is tried."""

    factors: list[Factor] = Field(
        min_length=1, max_length=MAX_LEARNING_RATES, description="Factors on the current learning rate."
    )
    pretrain_share: float | None = Field(
        None, gt=0, le=1, description="alpha as a share of the epoch; null: as `pretrain.iterations` says."
    )

    @cached_property
    def distinct(self) -> int:
        """The number of factors, equal ones once."""
        return len(set(self.factors))


class StagedLrSet(_LrSet):
    """A learning-rate set that searches first and then trains: one stage an epoch after the warm-up; behind the last
    stage the learning rate stays."""

    kind: Literal["stages"] = Field("stages", description=_KIND)
    stages: list[Stage] = Field(
        min_length=1, max_length=64, description="The searches of the first epochs after the warm-up, one an epoch."
    )
    max_learning_rate: LearningRate = Field(MAX_LEARNING_RATE, description=_CAP)
    max_extensions: int = Field(
        4,
        ge=0,
        le=16,
        description="Further candidates that a stage may try, at the ratio of the last two, when an end one is best; "
        "none in a training that the job's budget holds for.",
    )

    def pretrains(self, first: int, last: int) -> list[Pretrains]:
        """One for each stage that the training gets to; the candidates that a stage adds are not planned."""
        reached = self.stages[: max(0, last - first + 1)]
        return [Pretrains(1, stage.distinct, stage.pretrain_share) for stage in reached]


class RaceLrSet(_LrSet):
    """A learning-rate set that is raced through before the first epoch behind the warm-up: looks of a planned share of
    the training, longer and fewer round by round; the training then begins anew with the learning rate that won."""

    kind: Literal["race"] = Field(
        "race", description="May be left out where search_share or warmup_share is given: factors alone are relative."
    )
    factors: list[Factor] = Field(
        [10.0, 3.0, 1.0, 0.3, 0.1],
        min_length=3,
        max_length=MAX_LEARNING_RATES,
        description="Factors on the initial learning rate that the race begins with. Where an end is best, it goes on "
        "beyond, ten times each step.",
    )
    search_share: float | None = Field(
        None,
        gt=0,
        le=0.9,
        description="Share of the job's budget that the race takes; without a budget, how much it takes on top, as a "
        "share of the training. null: 0.15 of a budget; on top 0.25 at 10 epochs and less, falling to 0.1 at 40.",
    )
    warmup_share: float = Field(
        0.2,
        ge=0,
        lt=1,
        description="Share of the training over which the learning rate rises linearly to its full value.",
    )
    max_learning_rate: LearningRate = Field(MAX_LEARNING_RATE, description=_CAP)

    def first_looks(self, learning_rate: float) -> tuple[float, ...]:
        """The learning rates that a race from `learning_rate` begins with; values equal after the cap become one."""
        return relative_candidates(self.factors, learning_rate, self.max_learning_rate)


class HistoryLrSet(_LrSet):
    """A learning-rate set by what past jobs have chosen: one short stage around the learning rate that
    GET /v1/recommendation would give, which becomes `initial_learning_rate`. When the job is accepted the stored spec
    gets both in its place."""

    why_not_scaled: ClassVar[str | None] = "of the history are for this batch already"

    kind: Literal["history"] = Field("history", description=_KIND)
    from_history: Literal[True] = Field(description="true: from past jobs of this model, dataset and optimizer.")

    def pretrains(self, first: int, last: int) -> list[Pretrains]:
        """Those of the stage that it becomes."""
        return HISTORY_LR_SET.pretrains(first, last)


_LrSets = Annotated[
    RelativeLrSet | AbsoluteLrSet | NamedLrSet | PhasedLrSet | StagedLrSet | RaceLrSet | HistoryLrSet,
    Field(discriminator="kind"),
]
KINDS_BY_KEY = {
    "search_share": "race",
    "warmup_share": "race",
    **_KINDS,
    "phases": "phases",
    "stages": "stages",
    "from_history": "history",
}
LrSet = Annotated[_LrSets, _tagged(KINDS_BY_KEY, _LrSets)]
DEFAULT_LR_SET = RaceLrSet()
HISTORY_LR_SET = StagedLrSet(stages=[Stage(factors=[2.0, 1.0, 0.5], pretrain_share=1.0)])
