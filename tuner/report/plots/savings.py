"""Where the time went, and what pruning and stored features saved of it."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from plotly import graph_objects as go

from tuner import wording
from tuner.report.cards import CannotDraw, Card
from tuner.report.plots import theme
from tuner.report.plots.cost import explaining, time_unit
from tuner.report.plots.words import basis_of, joined
from tuner.report.results import COMPLETE, DIVERGED, PRUNED, Results
from tuner.report.statistics.savings import Savings, time_saved

# Of the trials' attribute "seconds", for people.
_PHASES = {
    "setup": "Setting weights",
    "features": "Stored features",
    "tracing": "Compiling",
    "train": "Training",
    "validate": "Validation",
}
_REST = "Everything else"
_SAVED = "Saved by pruning"
# Trials of a kind, to compare their medians.
_LEAST_TRIALS = 3


def savings(results: Results) -> Card:
    """The compute by phase, and what pruning saved on top.

    Raises:
        CannotDraw: no trial says how long what took, and pruning saved nothing.
    """
    phases, pruning = spent_by_phase(results), saved_by_pruning(results)
    if phases.empty and pruning is None:
        raise CannotDraw(
            "No trial was pruned after a step, and none says how its time was spent, so there is "
            "nothing to divide."
        )
    if phases.empty:
        phases = pd.Series({"Trials": float(results.trials["seconds"].sum())})
    finding = _finding(phases, pruning)
    table = _table(phases, pruning)
    return Card(
        key="savings",
        title=finding,
        reading="Filled bars are seconds that all workers spent together; the hollow one, with its "
        "95 % interval, is what pruned trials would have taken on top."
        if pruning
        else "Each bar is what all workers spent on something together.",
        basis=_basis(results, pruning),
        alt=f"Bars of compute time. {finding}. " + _in_words(phases),
        figure=_figure(phases, pruning),
        table=table,
        narrow={"xaxis.nticks": 4, "margin.r": 84},
        note=_note(results, pruning),
    )


def saved_by_pruning(results: Results) -> Savings | None:
    """What pruning saved; None where no trial was pruned after a known step."""
    trials = results.trials[results.trials["outcome"].isin((COMPLETE, PRUNED))]
    pruned = trials["outcome"] == PRUNED
    steps = trials["last_step"]
    if results.max_step is None or not (pruned & trials["seconds"].gt(0) & steps.gt(0)).any():
        return None
    factor = explaining(results)
    return time_saved(
        trials["seconds"].to_numpy(float),
        steps.to_numpy(float),
        pruned.to_numpy(bool),
        results.codes.loc[trials.index, factor.name] if factor else np.zeros(len(trials)),
        results.max_step,
        np.random.default_rng(0),
    )


def about(seconds: float, most: float = 0.0) -> str:
    """An estimated duration: ``40 s``, ``41 min``, ``3.1 h``; in the unit of a greater one."""
    unit, name = time_unit(max(seconds, most))
    digits = 1 if name == "h" or (name == "min" and seconds < 120) else 0
    return f"{seconds / unit:.{digits}f} {name}"


def spent_by_phase(results: Results) -> "pd.Series[float]":
    """Seconds of all trials by phase, for people; empty where no trial says."""
    told = _phases(results)
    if told.empty:
        return pd.Series(dtype=float)
    labels = {it: _PHASES.get(str(it), str(it).capitalize()) for it in told.columns}
    spent = told.rename(columns=labels).sum()
    rest = float(results.trials["seconds"].sum() - spent.sum())
    return pd.concat([spent, pd.Series({_REST: rest})]) if rest > 0 else spent


def _phases(results: Results) -> pd.DataFrame:
    """The seconds of each phase of the trials that tell them, by number."""
    if "seconds" not in results.attrs:
        return pd.DataFrame()
    told = {
        number: {str(phase): float(it) for phase, it in seconds.items() if _is_number(it)}
        for number, seconds in results.attrs["seconds"].items()
        if isinstance(seconds, Mapping)
    }
    return pd.DataFrame.from_dict(told, orient="index").astype(float)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and value >= 0


def _finding(phases: "pd.Series[float]", pruning: Savings | None) -> str:
    if pruning is None:
        most, total = str(phases.idxmax()), float(phases.sum())
        share = 100 * float(phases.max()) / total if total else 0.0
        return f"{most} took {share:.0f} % of {about(total)} of compute"
    if pruning.saved < 1:
        return f"Pruning saved hardly anything beside the {about(pruning.spent)} spent"
    return f"Pruning saved about {_estimate(pruning)} on top of the {about(pruning.spent)} spent"


def _estimate(pruning: Savings) -> str:
    """With its interval, all in one unit: ``43 min (95 % interval 29 to 62 min)``."""
    if not math.isfinite(pruning.saved_low):
        return about(pruning.saved)
    most = max(pruning.saved, pruning.saved_high)
    low = about(pruning.saved_low, most).split(" ")[0]
    return (
        f"{about(pruning.saved, most)} (95 % interval {low} to {about(pruning.saved_high, most)})"
    )


def _in_words(phases: "pd.Series[float]") -> str:
    spent = phases[phases >= 0.5].sort_values(ascending=False)
    return "; ".join(f"{name}: {wording.duration(it)}" for name, it in spent.items()) + "."


def _basis(results: Results, pruning: Savings | None) -> str:
    diverged = wording.count(results.count(DIVERGED), "diverged trial")
    away = f"{diverged} left out of it" if results.count(DIVERGED) else ""
    from_what = (
        f"The saving is estimated from {wording.count(pruning.trials, 'trial')}" if pruning else ""
    )
    parts = [it for it in (from_what, away) if it]
    return basis_of(results, f"{', '.join(parts)}." if pruning else "", _features_in_words(results))


def _features_in_words(results: Results) -> str:
    """What stored features saved, as far as this study can tell."""
    factor, flags = explaining(results), results.attrs.get("cached_features")
    if factor is None or flags is None:
        return ""
    pace, places = _seconds_a_step(results), results.codes[factor.name]
    cached, uncached = flags.map(lambda it: it is True), flags.map(lambda it: it is False)
    told, untold = [], []
    for place, level in enumerate(factor.texts):
        with_it = pace[(places == place) & cached].dropna()
        without = pace[(places == place) & uncached].dropna()
        if min(len(with_it), len(without)) >= _LEAST_TRIALS:
            ratio = without.median() / with_it.median()
            told.append(f"{level} ({ratio:.1f} times, {len(with_it)} and {len(without)} trials)")
        elif len(with_it):
            untold.append(level)
    name = factor.label.lower()
    if told:
        return f"Without stored features a step took longer with {name} {joined(told)}."
    if untold:
        return (
            f"What stored features saved can't be told: fewer than {_LEAST_TRIALS} trials each "
            f"with {name} {joined(untold)} ran without them."
        )
    return ""


def _seconds_a_step(results: Results) -> "pd.Series[float]":
    """Of training and validation, without what is done once."""
    told = _phases(results).reindex(results.trials.index)
    work = told[[it for it in ("train", "validate") if it in told]].sum(axis=1, min_count=1)
    return work / results.trials["last_step"].where(results.trials["last_step"] > 0)


def _figure(phases: "pd.Series[float]", pruning: Savings | None) -> go.Figure:
    spent = phases.sort_values()
    ends = [float(spent.max())] + ([pruning.saved_high, pruning.saved] if pruning else [])
    most = float(np.nanmax(ends))
    unit, name = time_unit(most)
    figure = theme.new_figure(
        height=110 + 38 * (len(spent) + (pruning is not None)),
        xaxis={
            "title": {"text": f"compute ({name})"},
            "range": [0, 1.04 * most / unit or 1],
            "nticks": 7,
        },
        yaxis={"ticks": "", "showgrid": False},
        margin={"l": 12, "r": 96, "t": 12, "b": 12},
        showlegend=False,
        bargap=0.35,
    )
    rows = [theme.short(it) for it in spent.index]
    colour = theme.LIGHT["complete"]
    figure.add_trace(_bars(rows, spent.to_numpy(float), unit, {"color": colour}))
    if pruning:
        hollow = {
            "color": theme.faint(theme.LIGHT["pruned"], 0.3),
            "line": {"color": theme.LIGHT["pruned"], "width": 1.5},
        }
        bar = _bars([_SAVED], np.array([pruning.saved]), unit, hollow)
        bar.text, bar.textposition = None, "none"
        bar.error_x = _whisker(pruning, unit)
        figure.add_trace(bar)
        _say(figure, pruning, unit)
    return figure


def _bars(rows: list[str], seconds: Any, unit: float, marker: dict[str, Any]) -> go.Bar:
    return go.Bar(
        x=seconds / unit,
        y=rows,
        orientation="h",
        marker=marker,
        text=[wording.duration(it) if it >= 0.5 else "under 1 s" for it in seconds],
        textposition="outside",
        cliponaxis=False,
        hovertemplate="%{y}: %{text}<extra></extra>",
    )


def _whisker(pruning: Savings, unit: float) -> dict[str, Any] | None:
    if not math.isfinite(pruning.saved_low):
        return None
    return {
        "type": "data",
        "symmetric": False,
        "array": [max(0.0, pruning.saved_high - pruning.saved) / unit],
        "arrayminus": [max(0.0, pruning.saved - pruning.saved_low) / unit],
        "color": theme.LIGHT["ink"],
        "thickness": 1.5,
        "width": 6,
    }


def _say(figure: go.Figure, pruning: Savings, unit: float) -> None:
    """The saving beside its whisker."""
    figure.add_annotation(
        x=float(np.nanmax([pruning.saved_high, pruning.saved])) / unit,
        y=_SAVED,
        text=about(pruning.saved),
        xanchor="left",
        xshift=6,
        showarrow=False,
    )


def _table(phases: "pd.Series[float]", pruning: Savings | None) -> pd.DataFrame:
    rows = [{"what": name, "seconds": it} for name, it in phases.items()]
    if pruning:
        rows.append(
            {"what": _SAVED, "seconds": pruning.saved, "low": pruning.saved_low,
             "high": pruning.saved_high}
        )  # fmt: skip
    return pd.DataFrame(rows)


def _note(results: Results, pruning: Savings | None) -> str:
    if pruning is None:
        return "Seconds are those that the trials tell, summed over all workers."
    factor = explaining(results)
    alike = f" with the same {factor.name}" if factor else ""
    steps = wording.count(results.max_step or 0, "step")
    return (
        f"A pruned trial is taken to cost, had it run on, the median of the complete ones{alike}; "
        f"where fewer than three are complete, its own pace for all of {steps}, at most the "
        "dearest complete trial. The interval is a bootstrap over trials: it says how much hangs "
        "on which trials were drawn, not whether these assumptions hold. Without pruning, a search "
        "would also have tried other configurations."
    )
