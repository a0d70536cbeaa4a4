"""What the figures of the model share: its settings, its draws, and how they say what it knows."""

from typing import Any

import numpy as np
import numpy.typing as npt

from tuner import wording
from tuner.report.factors import Factor
from tuner.report.model import StudyModel
from tuner.report.plots import theme, words
from tuner.report.plots.facts import score_text, turned
from tuner.report.results import (
    DIVERGED,
    FAILED,
    INFEASIBLE,
    PRUNED,
    Results,
)
from tuner.report.scale import Scale
from tuner.report.statistics.levels import CONFIDENCE, WIDENING
from tuner.report.statistics.surrogate import Surrogate

Array = npt.NDArray[np.float64]

# The ends of an interval, as quantiles.
ENDS = ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2)
# Names of the factor and the knob that people ask about first.
FIRST_FACTOR = "optimizer"
RATES = ("learning_rate", "lr")


def basis(results: Results, model: StudyModel, *sentences: str) -> str:
    """The n of a figure of the model, and how it treats what did not complete."""
    taken, known = len(model.surrogate.rows), wording.count(model.reports, "report")
    reports = known if taken == model.reports else f"{taken:,} of {known}, drawn with seed 0"
    parts = [f"The model is fitted to {reports} of {len(model.modelled):,} trials"]
    if results.count(PRUNED):
        parts.append(
            "a pruned trial counts by what it reported before it was stopped"
            if results.steps_are_values
            else "pruned ones are left out, as intermediate values are another quantity"
        )
    if results.count(DIVERGED):
        parts.append("diverged ones count as bad, not by how bad")
    if results.count(INFEASIBLE):
        parts.append("those that break a constraint are left out")
    if results.count(FAILED):
        parts.append("failed ones are left out")
    return words.basis_of(results, "; ".join(parts) + ".", *sentences)


def posterior(
    surrogate: Surrogate, settings: Array, count: int, generator: np.random.Generator
) -> Array:
    """`(count, n_settings)`, draws of what new runs of these settings give on average."""
    mean, covariance = surrogate.joint(settings)
    covariance = (covariance + covariance.T) / 2 * WIDENING**2
    # Rounding makes it a little indefinite where settings are nearly the same.
    return generator.multivariate_normal(
        mean, covariance, count, check_valid="ignore", method="eigh"
    )


def tried(results: Results, model: StudyModel, factor: Factor) -> npt.NDArray[np.int64]:
    """How many trials with a value each level of a factor has."""
    places = results.codes[factor.name].loc[model.modelled].to_numpy(np.int64)
    return np.bincount(places[places >= 0], minlength=len(factor.levels))


def span_text(scale: Scale, low: float, high: float) -> str:
    """An interval of shown values: ``0.34 to 1.07 %``."""
    if turned(scale):
        low, high = high, low
    one, other = score_text(scale, low), score_text(scale, high)
    return f"{one.removesuffix(' %') if other.endswith(' %') else one} to {other}"


def gap(scale: Scale, difference: float) -> float:
    """A difference in the model's units as people read it: a ratio where that is a logarithm."""
    return float(10.0**difference if scale.log else difference)


def gap_text(scale: Scale, difference: float) -> str:
    """A difference in the model's units in words: a factor, or a signed difference."""
    return scale.ratio(gap(scale, difference), 1.0 if scale.log else 0.0).replace(
        "+-", "\N{MINUS SIGN}"
    )


def gap_name(scale: Scale) -> str:
    """What `gap` is."""
    return "ratio" if scale.log else "difference"


def kind_text(factor: Factor) -> str:
    """A factor within a sentence, for one of its levels: ``optimizer``, ``number``'s too."""
    label = theme.plain(factor.label.lower())
    return label if isinstance(factor.levels[0], str) else f"choice of {label}"


def row_axis(names: list[str], below: list[str], bold: int | None = None) -> dict[str, Any]:
    """A `theme.level_axis` with a muted second line a row, and perhaps a row in bold.

    Args:
        names: as somebody gave them.
        below: the second lines, ready for a figure.
        bold: the row that stands out.
    """
    texts = []
    for row, (name, line) in enumerate(zip(names, below, strict=True)):
        first = theme.short(name, 30)
        first = f"<b>{first}</b>" if row == bold else first
        texts.append(f"{first}<br>{theme.second_line(line)}" if line else first)
    return theme.level_axis(names, ticktext=texts)
