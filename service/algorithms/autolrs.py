"""What AutoLRS decides (Jin et al. 2021, arXiv 2105.10762): the forecast of a loss from the first losses of a stage,
and the learning rate to try next, by Bayesian optimisation.

Rules and constants are those of its authors' code (github.com/YuchenJin/autolrs); docs/baselines.md says where this
departs from it. Takes NumPy, SciPy and scikit-learn, which only workers have.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.interpolate import UnivariateSpline  # type: ignore[import-untyped]
from scipy.optimize import minimize_scalar  # type: ignore[import-untyped]
from sklearn.exceptions import ConvergenceWarning  # type: ignore[import-untyped]
from sklearn.gaussian_process import GaussianProcessRegressor  # type: ignore[import-untyped]
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel  # type: ignore[import-untyped]
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

EVALUATIONS = 16  # of a trial that is forecast from validation losses
DEGREE = 2  # of the smoothing splines
ROUNDS, OUTLIERS = 10, 0.03  # of training losses: how often, and which share of them, is left out
SLOWEST, FASTEST = 1e-3, 1.0  # rates of the exponential: over the whole series, and over one iteration
RATES = 200  # that are looked at before the best is refined
DIVERGED = 1e6  # what the Gaussian process is told of a trial whose loss is not finite
POINTS = 1001  # learning rates that may be proposed
RESTARTS = 2  # of the fit of the Gaussian process

Array = npt.NDArray[np.float64]


# --- the forecast ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Series:
    """The losses of a trial: `losses[i]` is that of the weights behind `iterations[i]` iterations, which rise.
    `by_validation`: they are validation losses, few and smooth; else those of single batches."""

    iterations: Sequence[int]
    losses: Sequence[float]
    by_validation: bool = False


@dataclass(frozen=True)
class Exponential:
    """The curve L(t) = floor + amplitude * exp(-rate * t) over iterations t."""

    floor: float
    amplitude: float
    rate: float

    def at(self, iteration: float) -> float:
        """The loss behind so many iterations."""
        return self.floor + self.amplitude * math.exp(-self.rate * iteration)


def forecast_loss(series: Series, iteration: int, *, untrained: float) -> float:
    """The loss behind so many iterations of a stage, from the series of its first ones; NaN where a loss of these is
    not finite. `untrained` is the training loss before the training's first step: validation losses that have come up
    to it are not extrapolated, their last one is the forecast."""
    if not all(map(math.isfinite, series.losses)):
        return math.nan
    if series.by_validation and max(series.losses) >= untrained:
        return series.losses[-1]
    iterations = np.asarray(series.iterations, float)
    return exponential_fit(iterations, smoothed(series)).at(iteration)


def smoothed(series: Series) -> Array:
    """The losses as a smoothing spline of degree 2 has them, once outliers are left out.

    An outlier is among the losses that are furthest from such a spline, and in the first half: of training losses ten
    times 3 % of those left, rounded; of validation losses once a single one. A spline has no more knots than it takes
    for squared distances of 1 in the mean.
    """
    iterations, losses = np.asarray(series.iterations, float), np.asarray(series.losses, float)
    last = iterations[(len(iterations) - 1) // 2]  # of the first half
    x, y = iterations, losses
    for _ in range(1 if series.by_validation else ROUNDS):
        count = 1 if series.by_validation else round(OUTLIERS * len(x))
        furthest = np.argsort(np.abs(y - _spline(x, y)(x)), kind="stable")[len(x) - count :]
        kept = np.ones(len(x), bool)
        kept[furthest[x[furthest] < last]] = False
        if kept.sum() <= DEGREE:
            break
        x, y = x[kept], y[kept]
    return np.asarray(_spline(x, y)(iterations), float)


def _spline(x: Array, y: Array) -> UnivariateSpline:
    with warnings.catch_warnings():  # that it has come no nearer to the smoothness asked for
        warnings.simplefilter("ignore", UserWarning)
        return UnivariateSpline(x, y, k=DEGREE)


def exponential_fit(iterations: Array, losses: Array) -> Exponential:
    """The exponential with the least squared distance to the losses, whose rate is at least 1 / 1000 over the whole
    series, which is all but a straight line, and at most 1 an iteration."""
    slowest, fastest = SLOWEST / (iterations[-1] - iterations[0]), FASTEST
    logs = np.linspace(math.log(slowest), math.log(fastest), RATES)
    errors = [_fit(iterations, losses, log)[1] for log in logs]
    best = int(np.argmin(errors))
    bounds = logs[max(best - 1, 0)], logs[min(best + 1, RATES - 1)]
    refined = minimize_scalar(
        lambda log: _fit(iterations, losses, log)[1], bounds=bounds, method="bounded", options={"xatol": 1e-10}
    ).x
    return min((_fit(iterations, losses, log) for log in (logs[best], refined)), key=lambda fit: fit[1])[0]


def _fit(iterations: Array, losses: Array, log_rate: float) -> tuple[Exponential, float]:
    """The exponential of this rate that is nearest to the losses, and its squared distance to them: linear least
    squares."""
    rate = math.exp(log_rate)
    fallen = np.expm1(-rate * iterations)  # exact where exp(-rate t) - 1 is tiny
    x, y = fallen - fallen.mean(), losses - losses.mean()
    amplitude = float(x @ y / (x @ x))
    floor = float(losses.mean() - amplitude * (1 + fallen.mean()))
    return Exponential(floor, amplitude, rate), float(((y - amplitude * x) ** 2).sum())


# --- the search ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tried:
    """A learning rate that was tried, and the loss that is forecast with it; NaN where the trial diverged."""

    learning_rate: float
    loss: float


def propose(tried: Sequence[Tried], interval: tuple[float, float], *, kappa: float, seed: int) -> float:
    """The learning rate to try next, within `interval` (lowest, highest), other than those tried before.

    The first is drawn log-uniformly. Then a Gaussian process over the logarithm is fitted to the forecasts (a scaled
    Matern kernel with nu = 5/2, and white noise, hyperparameters by maximum likelihood), and the lower confidence
    bound mean - kappa * standard deviation is minimised over 1,001 learning rates, evenly spaced in the logarithm.
    """
    low, high = interval
    if not tried:
        share = float(np.random.default_rng(seed).random())
        return float(min(max(low * (high / low) ** share, low), high))
    shares = np.linspace(0.0, 1.0, POINTS)
    rates = np.clip(low * (high / low) ** shares, low, high)
    mean, deviation = _posterior(tried, low, high, shares, seed)
    bound = np.where(np.isin(rates, [one.learning_rate for one in tried]), np.inf, mean - kappa * deviation)
    return float(rates[np.argmin(bound)])


def _posterior(tried: Sequence[Tried], low: float, high: float, shares: Array, seed: int) -> tuple[Array, Array]:
    """The mean and the standard deviation, without noise, of the standardised forecasts at these shares of the way from
    low to high."""
    x = np.log([one.learning_rate / low for one in tried]) / math.log(high / low)
    losses = np.array([one.loss if math.isfinite(one.loss) else DIVERGED for one in tried])
    y = (losses - losses.mean()) / (losses.std() or 1.0)
    kernel = ConstantKernel(1.0, (0.01, 1000.0)) * Matern(1.0, (0.01, 100.0), nu=2.5) + WhiteKernel()
    process = GaussianProcessRegressor(kernel, n_restarts_optimizer=RESTARTS, random_state=seed % 2**32)
    # one thread: many are slower for so few numbers, and add in another order
    with threadpool_limits(1, user_api="blas"), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a hyperparameter at the end of its range
        process.fit(x[:, None], y)
        mean, deviation = process.predict(shares[:, None], return_std=True)
    noise = process.kernel_.k2.noise_level
    return mean, np.sqrt(np.maximum(deviation**2 - noise, 0.0))


def best_of(tried: Sequence[Tried]) -> int | None:
    """The place of the least forecast, from 0, of equals the first; None where every trial diverged."""
    finite = [place for place, one in enumerate(tried) if math.isfinite(one.loss)]
    return min(finite, key=lambda place: tried[place].loss, default=None)
