"""The optimizers that a job may name, with their options: torch's own, and the layer-wise LARS, LAMB and TVLARS (Do et
al., "Revisiting LARS for Large Batch Training Generalization of Neural Networks")."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from service.spec.types import MAX_BATCH, Frozen, named

WeightDecay = Annotated[float, Field(ge=0, le=1e3)]
Beta = Annotated[float, Field(ge=0, lt=1)]
Betas = Annotated[list[Beta], Field(min_length=2, max_length=2)]
Eps = Annotated[float, Field(gt=0, le=1)]

_DECAY = "L2 penalty, as torch has it (adamw: decoupled)."
_BETAS = "Decay of both running averages."
_DENOMINATOR = "Added to the denominator."


class SgdOptimizer(Frozen):
    """Stochastic gradient descent, with momentum unless that is 0."""

    name: Literal["sgd"] = Field("sgd", description="torch.optim.SGD.")
    momentum: Beta = Field(0.9, description="Momentum; 0: none.")
    nesterov: bool = Field(False, description="Nesterov's momentum.")
    weight_decay: WeightDecay = Field(0.0, description=_DECAY)

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> Self:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum above 0; set one, or leave nesterov out")
        return self


AdamName = Literal["adam", "adamw"]
AdaptiveName = Literal["adagrad", "adadelta", "rmsprop"]


class AdamOptimizer(Frozen):
    """Adam, with weight decay as an L2 penalty (adam) or decoupled from the gradient (adamw)."""

    name: AdamName = Field(description="torch.optim.Adam or AdamW.")
    betas: Betas = Field([0.9, 0.999], description=_BETAS)
    eps: Eps = Field(1e-8, description=_DENOMINATOR)
    weight_decay: WeightDecay = Field(0.0, description=_DECAY)


class AdaptiveOptimizer(Frozen):
    """Adagrad, Adadelta or RMSprop with torch's defaults for everything but the learning rate and the weight decay."""

    name: AdaptiveName = Field(description="torch.optim.Adagrad, Adadelta or RMSprop.")
    weight_decay: WeightDecay = Field(0.0, description=_DECAY)


# --- layer-wise: docs/method.md has the equations --------------------------------------------------

AdaptOneDimension = Annotated[
    bool, Field(description="Adapt and decay parameters of one dimension (biases, norms) like the others.")
]
Momentum = Annotated[Beta, Field(description="Momentum; 0: none.")]
TrustCoefficient = Annotated[
    float, Field(gt=0, le=1e3, description="eta: what the ratio of the norms is multiplied by.")
]
NormEps = Annotated[Eps, Field(description="Added to the norm of the gradient.")]
LarsDecay = Annotated[WeightDecay, Field(description="L2 penalty, part of the norm of the gradient.")]


class LarsOptimizer(Frozen):
    """LARS (You et al. 2017, arXiv 1708.03888): momentum SGD whose step is scaled, layer by layer, by the norms of
    weights and gradient."""

    name: Literal["lars"] = Field(description="Layer-wise adaptive rate scaling (You et al. 2017).")
    momentum: Momentum = 0.9
    trust_coefficient: TrustCoefficient = 1e-3
    eps: NormEps = 1e-8
    weight_decay: LarsDecay = 0.0
    adapt_1d: AdaptOneDimension = False


class LambOptimizer(Frozen):
    """LAMB (You et al. 2020, arXiv 1904.00962): Adam whose step is scaled, layer by layer, by the norms of weights and
    step."""

    name: Literal["lamb"] = Field(description="Layer-wise Adam (You et al. 2020).")
    betas: Betas = Field([0.9, 0.999], description=_BETAS)
    eps: Eps = Field(1e-6, description=_DENOMINATOR)
    weight_decay: WeightDecay = Field(0.0, description="Decoupled, part of the norm of the step.")
    bias_correction: bool = Field(False, description="Adam's; v3 of the paper has none.")
    max_trust_ratio: float | None = Field(
        None, gt=0, le=1e6, description="LAMBC: no ratio is larger (Fong et al. 2020); null: no limit."
    )
    adapt_1d: AdaptOneDimension = False


class TvlarsOptimizer(Frozen):
    """TVLARS (Do et al., "Revisiting LARS for Large Batch Training Generalization of Neural Networks"): LARS that
    varies in time, with large steps at first, which then decay to those of LARS."""

    name: Literal["tvlars"] = Field(description="LARS times a decay in time, in place of a warm-up (Do et al.).")
    variant: Literal["paper", "reference_code"] = Field(
        "paper", description="reference_code: a = 0.1 instead of 1, no delay, no minimum, norms of at most 10."
    )
    decay: float = Field(1e-4, ge=0, le=1, description="lambda, a step (Do et al.: 1e-6 to 1e-2).")
    delay_epochs: int = Field(0, ge=0, le=100_000, description="d_e, in epochs: where the decay is half done.")
    minimum: float | None = Field(
        None, ge=0, le=1, description="gamma_min; null: global_batch_size / base_batch_size x 0.001."
    )
    base_batch_size: int = Field(
        512,
        ge=1,
        le=MAX_BATCH,
        description="Batch, in samples, that the minimum is relative to; 512 is the smallest of Do et al.",
    )
    momentum: Momentum = 0.9
    trust_coefficient: TrustCoefficient = 1e-3
    eps: NormEps = 1e-8
    weight_decay: LarsDecay = 0.0
    adapt_1d: AdaptOneDimension = False

    @model_validator(mode="after")
    def _reference_code_has_neither(self) -> Self:
        if self.variant == "reference_code" and (self.delay_epochs or self.minimum):
            what = "delay_epochs" if self.delay_epochs else "minimum"
            raise ValueError(f"reference_code has no {what}; leave it out, or take variant paper")
        return self


OptimizerName = Literal["sgd", "adam", "adamw", "adagrad", "adadelta", "rmsprop", "lars", "lamb", "tvlars"]
_Optimizers = Annotated[
    SgdOptimizer | AdamOptimizer | AdaptiveOptimizer | LarsOptimizer | LambOptimizer | TvlarsOptimizer,
    Field(discriminator="name"),
]
Optimizer = Annotated[_Optimizers, named(OptimizerName, _Optimizers)]
