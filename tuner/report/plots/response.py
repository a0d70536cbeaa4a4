"""How the error answers to the learning rate, for each level of the optimizer."""

import numpy as np
import numpy.typing as npt
import pandas as pd

from tuner.report.cards import CannotDraw, Card
from tuner.report.factors import Factor, Knob
from tuner.report.model import SEED, StudyModel, knob_values
from tuner.report.plots import compared, panels, theme, words
from tuner.report.plots.facts import score_label, score_text
from tuner.report.plots.panels import Drawn, Panel
from tuner.report.results import COMPLETE, DIVERGED, PRUNED, Results
from tuner.report.statistics.surrogate import NONE

Array = npt.NDArray[np.float64]

_POINTS = 61
_DRAWS = 1000
_MOST_PANELS = 8
_MOST_MARKS = 600


def response(results: Results, model: StudyModel) -> Card:
    """The model's answer along the learning rate, else the first knob, with the runs.

    A panel for each level of the optimizer, else of the first factor; one panel without a factor.

    Raises:
        CannotDraw: the study has no knob, or no trial with a value has it.
    """
    drawn = _drawn(results, model)
    label = theme.plain(drawn.knob.label.lower())
    figure = panels.figure_of(results, drawn)
    return Card(
        key=words.key_of("response", drawn.knob.name),
        title=_finding(drawn),
        reading=f"Lines are the {theme.plain(score_label(results.scale))} that the model expects "
        f"with all else tuned, with their 95 % band; the dotted line is the best {label}. Marks "
        "are runs, whatever their other settings: hollow ones pruned, triangles on top diverged."
        f"{words.axis_text(results.scale)}",
        basis=compared.basis(results, model, drawn.unseen),
        alt=_alt(results, drawn),
        figure=figure,
        table=_table(results, drawn),
        narrow=panels.narrow(results, drawn),
        wide=len(drawn.panels) > 1,
        note=f"All settings but the {label} stay at the level's best ones. The interval of the "
        f"best {label} is that of the lowest point of {_DRAWS:,} curves drawn from the model, over "
        f"{_POINTS} places; it ends where the search's range ends.",
    )


def _drawn(results: Results, model: StudyModel) -> Drawn:
    knobs = [it for it in model.columns if isinstance(it, Knob)]
    knob = next((it for name in compared.RATES for it in knobs if it.name == name), None)
    knob = knob or next(iter(knobs), None)
    if knob is None:
        raise CannotDraw("The study has no parameter with many values.")
    factors = model.factors
    factor = next((it for it in factors if it.name == compared.FIRST_FACTOR), None)
    factor = factor or next(iter(factors), None)
    levels, settings = _levels(results, model, knob, factor)
    if not levels:
        raise CannotDraw(f"No trial with a value has a {theme.plain(knob.label.lower())}.")
    x = np.linspace(0.0, 1.0, _POINTS)
    found = [
        _panel(results, model, knob, factor, level, it, x)
        for level, it in zip(levels, settings, strict=True)
    ]
    runs = _runs(results, knob, factor, levels)
    chosen, how = words.subset(runs.index, _MOST_MARKS)
    parts = [f"Runs drawn: {how}." if how else ""]
    if factor and len(levels) == _MOST_PANELS < len(factor.levels):
        parts.append(f"Shown are the {_MOST_PANELS} levels with most trials.")
    unseen = " ".join(filter(None, parts))
    return Drawn(knob, factor, knob_values(knob, x), found, runs.loc[chosen], unseen)


def _levels(
    results: Results, model: StudyModel, knob: Knob, factor: Factor | None
) -> tuple[list[int], list[Array]]:
    """The levels that get a panel, in their order, and the best settings of each."""
    column = model.column(knob.name)
    if factor is None:
        pool = model.pool[model.pool[:, column] != NONE]
        best = [pool[int(model.surrogate.mean(pool).argmin())]] if len(pool) else []
        return [-1] * len(best), best
    there = results.params[knob.name].loc[model.modelled].notna().to_numpy()
    places = results.codes[factor.name].loc[model.modelled].to_numpy()[there]
    counts = np.bincount(places[places >= 0], minlength=len(factor.levels))
    most = np.argsort(-counts, kind="stable")[:_MOST_PANELS]
    levels = sorted(int(it) for it in most if counts[it])
    tuned = model.tuned(factor)
    return levels, [tuned.settings[it] for it in levels]


def _panel(  # noqa: PLR0913, PLR0917 - what one panel is of
    results: Results,
    model: StudyModel,
    knob: Knob,
    factor: Factor | None,
    level: int,
    settings: Array,
    x: Array,
) -> Panel:
    along = np.repeat(settings[np.newaxis], len(x), axis=0)
    along[:, model.column(knob.name)] = x
    generator = np.random.default_rng(SEED)
    draws = compared.posterior(model.surrogate, along, _DRAWS, generator)
    mean = model.surrogate.mean(along)
    places = x[draws.argmin(axis=1)]
    told = np.array([x[int(mean.argmin())], *np.quantile(places, compared.ENDS)])
    best, best_low, best_high = (float(it) for it in knob_values(knob, told))
    low, high = results.scale.from_model(np.quantile(draws, compared.ENDS, axis=0))
    name = factor.texts[level] if factor else ""
    shown = results.scale.from_model(mean)
    return Panel(level, name, shown, low, high, best, best_low, best_high, places)


def _runs(results: Results, knob: Knob, factor: Factor | None, levels: list[int]) -> pd.DataFrame:
    runs = pd.DataFrame({
        "x": results.params[knob.name].astype(float), "shown": words.last_shown(results),
        "outcome": results.trials["outcome"],
        "place": results.codes[factor.name] if factor else -1,
    })  # fmt: skip
    diverged = runs["outcome"] == DIVERGED
    valued = runs["outcome"].isin((COMPLETE, PRUNED)) & runs["shown"].notna()
    return runs[(diverged | valued) & runs["x"].notna() & runs["place"].isin(levels)]


def _best_text(panel: Panel) -> str:
    return f"{panels.rate_text(panel.best)} ({panels.span_text(panel)})"


def _finding(drawn: Drawn) -> str:
    label = theme.plain(drawn.knob.label.lower())
    if len(drawn.panels) == 1:
        panel = drawn.panels[0]
        span = f"95 %: {panels.span_text(panel)}"
        at = f" of {theme.short(panel.name)}" if panel.name else ""
        if panel.known:
            return f"The best {label}{at} lies near {panels.rate_text(panel.best)} ({span})"
        return f"The best {label}{at} can't be told: {span}"
    known = sorted((it for it in drawn.panels if it.known), key=lambda it: it.best)
    of = theme.plain(drawn.factor.label.lower()) if drawn.factor else ""
    if len(known) < 2:
        return (
            f"The best {label} can be told for {len(known) or 'no'} level of {of} only"
            if (known)
            else f"The best {label} can't be told for any level of {of}"
        )
    first, last = known[0], known[-1]
    if len(known) == 1:
        return (
            f"The best {label} can only be told for {theme.short(first.name)}: {_best_text(first)}"
        )
    if first.best_high < last.best_low:
        ends = [
            f"{panels.rate_text(it.best)} for {theme.short(it.name)} (95 %: {panels.span_text(it)})"
            for it in (first, last)
        ]
        return f"Best {label}s lie apart, from {ends[0]} to {ends[1]}"
    low, high = min(it.best_low for it in known), max(it.best_high for it in known)
    span = f"{panels.rate_text(low)} and {panels.rate_text(high)}"
    return f"Best {label}s can't be told apart: they lie between {span}"


def _table(results: Results, drawn: Drawn) -> pd.DataFrame:
    """The best value of each level, and the curve at every tenth of the range."""
    label, scale = drawn.knob.label.lower(), results.scale
    rows = []
    for it in drawn.panels:
        row: dict[str, object] = {drawn.factor.label: it.name} if drawn.factor else {}
        row |= {
            f"best {label}": it.best, "low": it.best_low, "high": it.best_high,
            f"{scale.label} there": float(it.mean.min()),
            **{f"at {panels.rate_text(drawn.x[i])}": float(it.mean[i])
               for i in range(0, len(drawn.x), 10)},
        }  # fmt: skip
        rows.append(row)
    return pd.DataFrame(rows)


def _alt(results: Results, drawn: Drawn) -> str:
    label = theme.plain(drawn.knob.label.lower())
    said = [
        f"{theme.short(it.name) or 'lowest'} at {_best_text(it)}, "
        f"{score_text(results.scale, float(it.mean.min()))}"
        for it in drawn.panels
    ]
    return f"Best {label} with its 95 % interval, and the value there: {'; '.join(said)}."
