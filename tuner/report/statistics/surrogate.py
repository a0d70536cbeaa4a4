"""A model of the errors of all configurations, learned from all trials, pruned ones too.

A Gaussian process (Rasmussen and Williams 2006) on log10(error), say, over (settings, step). Its
covariance is a baseline over steps, plus a product of one factor a parameter and one for the step,
plus the luck of each run, which all reports of a trial share, plus noise that may change from the
first step to the last. So a pruned trial says what it has seen and nothing more, and seven reports
of one run are not seven runs.
"""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Hyperparameter, Kernel
from threadpoolctl import threadpool_limits

Array = npt.NDArray[np.float64]

# The model knows so many reports; of more, whole trials are drawn. Its hyperparameters are fitted
# to fewer: a fit takes 0.3 s at 200 rows and 2.5 s at 1,000.
MOST_ROWS, FIT_ROWS = 1500, 500
# A fit's largest array has rows squared times hyperparameters; so many numbers are 400 MB.
_MOST_NUMBERS = 5e7
# Reports of one trial say nearly the same: so many of them, spread evenly over log(step).
REPORTS_PER_TRIAL = 5
# How far the likeness of two reports reaches, by their distance to this power: 2 would be an
# infinitely smooth response, which real ones are not (intervals were then too narrow); 1
# lets a curve's course change, as it does where training stalls.
KNOB_POWER, STEP_POWER = 1.5, 1.0
# In place of a setting that a trial has not, and of the trial where a new run is asked for: the
# library takes no NaN.
NONE = -1.0
_ITERATIONS = 60
_SHARED = 7  # hyperparameters that are no length scale of a parameter
# Prior spread of the length scales' logarithms. Narrow for unordered levels: where a factor matters
# little, the likelihood would rather say not at all, and then the luckiest level looks certain.
_SPREADS = {"knob": 0.9, "levels": 0.4, "steps": 0.9}


@dataclass(frozen=True)
class Rows:
    """What was observed, one row a report.

    Attributes:
        settings: `(n_rows, n_parameters)`; a knob in [0, 1], a factor as the place of its level,
            `NONE` where a trial has no such parameter.
        step: `(n_rows,)`, in [0, 1]: log(step) over log(greatest step).
        trial: `(n_rows,)`, the trial's number.
        value: `(n_rows,)`, log10(error), or whatever the scale models; lower is better.
    """

    settings: Array
    step: Array
    trial: npt.NDArray[np.int64]
    value: Array

    def __len__(self) -> int:
        return len(self.value)


@dataclass(frozen=True)
class Axis:
    """How one parameter counts.

    Attributes:
        kind: ``knob``: near values are alike. ``levels``: two levels are alike or not, all in the
            same way. ``steps``: ordered levels, each step between neighbours has a width of its
            own, so that the response may jump at one of them.
        levels: how many there are; 0 for a knob with values in [0, 1].
    """

    kind: Literal["knob", "levels", "steps"]
    levels: int = 0

    @property
    def scales(self) -> int:
        """How many length scales it has."""
        return self.levels - 1 if self.kind == "steps" else 1

    def distances(self, one: Array, other: Array) -> list[Array]:
        """`(n_one, n_other)` for each length scale; they are weighted and summed."""
        a, b = one[:, np.newaxis], other[np.newaxis]
        if self.kind == "levels":
            return [(a != b).astype(float)]
        alone = (a == NONE) != (b == NONE)  # only one of the two has the parameter
        if self.kind == "knob":
            return [np.where(alone, 1.0, (np.abs(a - b) / max(self.levels - 1, 1)) ** KNOB_POWER)]
        low, high = np.minimum(a, b), np.maximum(a, b)
        return [
            np.where(alone, 1.0 / self.scales, (low <= step) & (step < high)).astype(float)
            for step in range(self.scales)
        ]


def choose_trials(rows: Rows, most: int, generator: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Which rows to take where there are too many: whole trials, all with the same chance.

    The chance must not depend on how far a trial came: those that came far were lucky.

    Args:
        rows: all.
        most: how many may be taken.
        generator: of the choice.

    Returns:
        `(n_rows,)`.
    """
    if len(rows) <= most:
        return np.ones(len(rows), dtype=bool)
    trials, count = np.unique(rows.trial, return_counts=True)
    order = generator.permutation(len(trials))
    taken = order[np.cumsum(count[order]) <= most]
    return np.isin(rows.trial, trials[taken])


class _Covariance(Kernel):  # type: ignore[misc]
    """The covariance of two reports; columns of X: the settings, the step, the trial.

    Trial `NONE` asks for the expected value of a new run: without luck and noise. The logarithms
    in ``theta`` are, in this order: standard deviations of baseline, product, luck, and noise at
    the first and the last step; length scales of baseline and step; those of the parameters.
    """

    def __init__(self, axes: tuple[Axis, ...], logs: tuple[float, ...] | None = None) -> None:
        self.axes = axes
        self.logs = logs

    @property
    def hyperparameter_logs(self) -> Hyperparameter:
        """Bounds wide enough to be no prior; `_PRIOR` is one."""
        return Hyperparameter("logs", "numeric", (1e-4, 1e3), len(self.theta))

    @property
    def theta(self) -> Array:
        """All logarithms."""
        return np.array(_prior(self.axes)[0] if self.logs is None else self.logs, dtype=float)

    @theta.setter
    def theta(self, theta: Array) -> None:
        self.logs = tuple(float(it) for it in theta)

    @property
    def bounds(self) -> Array:
        """Of the logarithms, `(n, 2)`."""
        limits: Array = np.log(np.tile((1e-4, 1e3), (len(self.theta), 1)))
        return limits

    def is_stationary(self) -> bool:
        """The noise depends on the step."""
        return False

    def diag(self, X: Array) -> Array:  # noqa: N803 - the library's name
        """The variance of each row."""
        baseline, product, luck = np.exp(2 * self.theta[:3])
        real = X[:, -1] != NONE
        variance: Array = baseline + product + real * (luck + self._noise(X))
        return variance

    def _noise(self, X: Array) -> Array:  # noqa: N803
        first, last = self.theta[3:5]
        noise: Array = np.exp(2 * (first + (last - first) * X[:, -2]))
        return noise

    def __call__(
        self,
        X: Array,  # noqa: N803
        Y: Array | None = None,  # noqa: N803
        eval_gradient: bool = False,  # noqa: FBT001, FBT002
    ) -> Any:
        """The covariance, `(n_x, n_y)`, and its gradient by theta, `(n_x, n_x, n_theta)`."""
        other = X if Y is None else Y
        theta = self.theta
        apart = np.abs(X[:, -2, np.newaxis] - other[:, -2])
        distances = [
            it for i, axis in enumerate(self.axes) for it in axis.distances(X[:, i], other[:, i])
        ]
        scaled = [d * np.exp(-2 * log) for d, log in zip(distances, theta[_SHARED:], strict=True)]
        base_scaled = apart**2 * np.exp(-2 * theta[5])
        step_scaled = apart**STEP_POWER * np.exp(-STEP_POWER * theta[6])
        baseline = np.exp(2 * theta[0] - 0.5 * base_scaled)
        product = np.exp(2 * theta[1] - 0.5 * (step_scaled + sum(scaled)))
        same = (X[:, -1, np.newaxis] == other[:, -1]) & (X[:, -1, np.newaxis] != NONE)
        luck = np.exp(2 * theta[2]) * same
        covariance = baseline + product + luck
        if Y is not None:
            return covariance
        noise = np.where(X[:, -1] == NONE, 0.0, self._noise(X))
        covariance[np.diag_indices_from(covariance)] += noise
        if not eval_gradient:
            return covariance
        late = X[:, -2]
        gradient = [2 * baseline, 2 * product, 2 * luck,
                    np.diag(2 * noise * (1 - late)), np.diag(2 * noise * late),
                    baseline * base_scaled,
                    0.5 * STEP_POWER * product * step_scaled,
                    *(product * it for it in scaled)]  # fmt: skip
        return covariance, np.stack(gradient, axis=-1)


def _prior(axes: tuple[Axis, ...]) -> tuple[Array, Array]:
    """Median and spread of the logarithms; values are standardised, settings within [0, 1].

    Weak: it only keeps a fit of few rows from claiming that nothing is noise, or everything.
    """
    middle = [*np.log([1.0, 0.7, 0.1, 0.15, 0.15, 0.7, 0.6])]
    spread = [1.0, 0.7, 0.7, 0.7, 0.7, 0.5, 0.4]
    for axis in axes:
        # All steps together are as long as one length scale.
        middle += [math.log(0.8) + 0.5 * math.log(axis.scales)] * axis.scales
        spread += [_SPREADS[axis.kind]] * axis.scales
    return np.array(middle), np.array(spread)


@dataclass(frozen=True)
class Surrogate:
    """A fitted model.

    Attributes:
        axes: of the parameters.
        rows: what it was fitted to.
    """

    axes: tuple[Axis, ...]
    rows: Rows
    process: Any
    centre: float
    unit: float

    def mean(self, settings: Array, step: float = 1.0) -> Array:
        """The expected value of a new run of each setting at a step, `(n,)`."""
        return np.asarray(self.centre + self.unit * self.process.predict(_query(settings, step)))

    def marginal(self, settings: Array, step: float = 1.0) -> tuple[Array, Array]:
        """Means and standard deviations `(n,)` of the expected values."""
        mean, deviation = self.process.predict(_query(settings, step), return_std=True)
        return self.centre + self.unit * mean, self.unit * deviation

    def joint(self, settings: Array, step: float = 1.0) -> tuple[Array, Array]:
        """Means `(n,)` and covariance `(n, n)` of the expected values."""
        mean, covariance = self.process.predict(_query(settings, step), return_cov=True)
        return self.centre + self.unit * mean, self.unit**2 * (covariance + covariance.T) / 2

    @cached_property
    def luck(self) -> float:
        """Standard deviation of one run's last report around its expectation."""
        theta = self.process.kernel_.theta
        return float(self.unit * np.sqrt(np.exp(2 * theta[2]) + np.exp(2 * theta[4])))

    @cached_property
    def noise(self) -> float:
        """The part of it that is noise; the rest is the run's luck from its first step on."""
        return float(self.unit * np.exp(self.process.kernel_.theta[4]))


def _query(settings: Array, step: float) -> Array:
    new = np.full((len(settings), 2), (step, NONE))
    return np.hstack([settings, new])


def fit(rows: Rows, axes: tuple[Axis, ...], generator: np.random.Generator) -> Surrogate:
    """Fit the model: the most probable hyperparameters under a weak prior.

    Args:
        rows: at most `MOST_ROWS`, and at least 5.
        axes: one for each column of the settings.
        generator: draws the trials whose rows the hyperparameters are fitted to.

    Raises:
        ValueError: fewer than 5 rows, or all of them alike.
    """
    centre, unit = float(rows.value.mean()), float(rows.value.std())
    alike = np.ptp(rows.value) == 0 or not 0 < unit < math.inf  # tiny differences have no spread
    if len(rows) < 5 or alike:
        raise ValueError("a model needs at least 5 reports with different values")
    middle, spread = _prior(axes)
    x = np.hstack([rows.settings, rows.step[:, np.newaxis], rows.trial[:, np.newaxis]])
    y = (rows.value - centre) / unit
    some = choose_trials(
        rows, min(FIT_ROWS, int(math.sqrt(_MOST_NUMBERS / len(middle)))), generator
    )
    process = GaussianProcessRegressor(
        _Covariance(axes), alpha=1e-8, optimizer=_most_probable(middle, spread)
    )
    # One thread: at these sizes more of them only get in each other's way, and tenfold so beside
    # a running search.
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore", ConvergenceWarning)
        process.fit(x[some], y[some])
        if not some.all():
            process = GaussianProcessRegressor(process.kernel_, alpha=1e-8, optimizer=None)
            process.fit(x, y)
    return Surrogate(axes, rows, process, centre, unit)


def _most_probable(middle: Array, spread: Array) -> Callable[..., tuple[Array, float]]:
    """An optimizer for the library: likelihood times prior."""

    def optimize(
        objective: Callable[[Array], tuple[float, Array]], initial: Array, bounds: Array
    ) -> tuple[Array, float]:
        def negative(theta: Array) -> tuple[float, Array]:
            loss, gradient = objective(theta)
            off = (theta - middle) / spread
            return float(loss + 0.5 * off @ off), np.asarray(gradient + off / spread)

        found = minimize(
            negative, initial, jac=True, method="L-BFGS-B", bounds=bounds,
            options={"maxiter": _ITERATIONS},
        )  # fmt: skip
        return found.x, float(found.fun)

    return optimize
