"""Several studies side by side: as far as they can be compared."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from plotly import graph_objects as go

from tuner import wording
from tuner.report.cards import CannotDraw, Card, TableCard
from tuner.report.plots import theme
from tuner.report.plots.best import params_of
from tuner.report.plots.cost import time_unit
from tuner.report.plots.facts import (
    by_outcome,
    compute_text,
    score_text,
    shown_best,
    wall_seconds,
)
from tuner.report.plots.words import joined
from tuner.report.results import (
    COMPLETE,
    DIVERGED,
    ENDED,
    INFEASIBLE,
    PRUNED,
    Results,
)
from tuner.report.scale import Scale, scale_of

# Of more studies than that only the best and the worst are told.
_MOST_NAMED = 3
_UNKNOWN = "not known"
_LUCK = "one run of each search can't say which search is better"


@dataclass(frozen=True)
class _Run:
    """A study's trials in the order in which they ended.

    Attributes:
        trials: how many had ended, without failed ones.
        seconds: of compute that had gone into them, with failed ones.
        best: shown; NaN before the first complete trial.
    """

    name: str
    trials: "pd.Series[float]"
    seconds: "pd.Series[float]"
    best: "pd.Series[float]"


@dataclass(frozen=True)
class _Budget:
    """What the studies have in common to be compared by.

    Attributes:
        column: of a table.
        of: how much of it had gone into a run at each of its trials.
        words: an amount of it.
        unit: for an axis up to an amount: how much is 1 there, and the axis' title.
    """

    key: str
    column: str
    of: Callable[[_Run], "pd.Series[float]"]
    words: Callable[[float], str]
    unit: Callable[[float], tuple[float, str]]


def side_by_side(all_results: Sequence[Results]) -> list[Card]:
    """The best so far of several studies, against trials and against compute.

    Raises:
        CannotDraw: fewer than two studies can be compared and have a complete trial.
    """
    comparable, others = split(all_results)
    scale = _common_scale(comparable)
    runs = [run for run in (_run(it, scale) for it in comparable) if run.best.notna().any()]
    if len(runs) < 2:
        raise CannotDraw(
            "Fewer than two studies have the same metric and direction and a complete trial."
        )
    empty = [it.study for it in comparable if it.study not in {run.name for run in runs}]
    basis = _basis(runs, empty, others)
    return [_card(runs, scale, basis, budget) for budget in (_TRIALS, _COMPUTE)]


def split(all_results: Sequence[Results]) -> tuple[list[Results], list[Results]]:
    """The studies that have the most usual metric and direction, and the others."""
    searches = [it for it in all_results if len(it.directions) == 1 and not it.stored.confirms]
    usual = Counter(map(_kind, searches)).most_common(1)[0][0] if searches else None
    chosen = [it for it in searches if _kind(it) == usual]
    return chosen, [it for it in all_results if all(it is not other for other in chosen)]


def _kind(results: Results) -> tuple[str, tuple[str, ...]]:
    return results.metric, tuple(results.directions)


def _common_scale(comparable: Sequence[Results]) -> Scale:
    if not comparable:
        raise CannotDraw("No study is a search with a single objective.")
    values = [it.trials["value"].to_numpy(float) for it in comparable]
    values += [it.steps["value"].to_numpy(float) for it in comparable]
    first = comparable[0]
    return scale_of(first.metric, first.directions[0], np.concatenate(values))


def _run(results: Results, scale: Scale) -> _Run:
    ended = results.trials[results.trials["outcome"].isin(ENDED)].sort_values("end")
    counted = ended["outcome"].isin((COMPLETE, PRUNED, DIVERGED, INFEASIBLE))
    shown = pd.Series(scale.shown(ended["value"]), ended.index)
    shown = shown.where((ended["outcome"] == COMPLETE) & np.isfinite(shown))
    return _Run(
        name=results.study,
        trials=counted.cumsum().astype(float),
        seconds=ended["seconds"].fillna(0.0).cumsum(),
        best=shown.cummin().ffill(),
    )


_TRIALS = _Budget(
    key="trials",
    column="trials",
    of=lambda run: run.trials,
    words=lambda amount: wording.count(round(amount), "trial"),
    unit=lambda _most: (1.0, "trials that ended"),
)
_COMPUTE = _Budget(
    key="compute",
    column="seconds of compute",
    of=lambda run: run.seconds,
    words=lambda amount: f"{wording.duration(amount)} of compute",
    unit=lambda most: (time_unit(most)[0], f"compute ({time_unit(most)[1]})"),
)


def _card(runs: Sequence[_Run], scale: Scale, basis: str, budget: _Budget) -> Card:
    equal = min(float(budget.of(run).max()) for run in runs)
    reached = {place: _at(run, budget, equal) for place, run in enumerate(runs)}
    words = budget.words(equal)
    best = [float(value) for run in runs for value in run.best.dropna()]
    ends = min(best), max(best)
    finding = f"After {words} each: {_told(runs, reached, scale)}; {_LUCK}"
    return Card(
        key=f"studies-{budget.key}",
        title=finding,
        reading="Each line is the best complete trial so far; lower is better, and only points "
        "with the same budget compare.",
        basis=basis,
        alt=f"One falling line for each of {len(runs)} studies: {scale.label} against "
        f"{budget.key}. {finding}.",
        figure=_figure(runs, scale, budget, equal, ends),
        table=_table(runs, scale, budget),
        narrow={
            **theme.few_ticks(scale, *ends, axis="yaxis"),
            "xaxis.nticks": 4,
            "height": 370 + 20 * len(runs),
        },
        note="Trials count in the order in which they ended. Failed trials count in the compute, "
        "not among the trials. The best of many trials is partly luck.",
    )


def _at(run: _Run, budget: _Budget, amount: float) -> float:
    """The best so far when so much had been spent; NaN if nothing was complete."""
    within = run.best[budget.of(run) <= amount * (1 + 1e-9)]
    return float(within.iloc[-1]) if len(within) else math.nan


def _told(runs: Sequence[_Run], reached: dict[int, float], scale: Scale) -> str:
    order = list(reached)
    if len(runs) > _MOST_NAMED:
        known = sorted((it for it in order if not math.isnan(reached[it])), key=reached.__getitem__)
        order = [known[0], known[-1]] if len(known) > 1 else known
    texts = []
    for place in order:
        value = reached[place]
        text = "none complete" if math.isnan(value) else score_text(scale, value)
        texts.append(f"{wording.cut(runs[place].name)} {text}")
    return (" to " if len(runs) > _MOST_NAMED else ", ").join(texts)


def _basis(runs: Sequence[_Run], empty: Sequence[str], others: Sequence[Results]) -> str:
    counts = [wording.count(round(run.trials.max()), "trial") for run in runs]
    sizes = joined([f"{run.name} {count}" for run, count in zip(runs, counts, strict=True)])
    said = f"{sizes}, pruned and diverged ones among them; values are those of complete trials."
    if empty:
        said += f" {joined(list(empty))}: no complete trial."
    if others:
        kinds = [f"{it.study} ({it.metric}, {' and '.join(it.directions)})" for it in others]
        said += f" Not comparable: {joined(kinds)}."
    return said


def _figure(
    runs: Sequence[_Run],
    scale: Scale,
    budget: _Budget,
    equal: float,
    ends: tuple[float, float],
) -> go.Figure:
    most = max(float(budget.of(run).max()) for run in runs)
    unit, title = budget.unit(most)
    figure = theme.new_figure(
        xaxis={"title": {"text": title}, "range": [0, 1.03 * most / unit], "nticks": 8},
        yaxis=theme.value_axis(replace(scale, label=f"best {scale.label} so far"), *ends),
    )
    for place, run in enumerate(runs):
        line = _steps(run, budget)
        figure.add_trace(
            go.Scatter(
                x=line.index.to_numpy(float) / unit,
                y=line.to_numpy(float),
                mode="lines+markers",
                marker={"symbol": theme.level_symbol(place), "size": 7},
                name=theme.short(run.name),
                line={
                    "shape": "hv",
                    "width": 2.5,
                    "color": theme.level_colour(place),
                    "dash": theme.level_dash(place),
                },
                text=[f"{score_text(scale, y)} after {budget.words(x)}" for x, y in line.items()],
                hovertemplate="%{text}<extra>" + theme.short(run.name) + "</extra>",
            )
        )
    if equal < most:
        figure.add_vline(
            x=equal / unit,
            line={"color": theme.LIGHT["muted"], "width": 1, "dash": "dot"},
            annotation={"text": "equal budget", "font": {"color": theme.LIGHT["muted"]}},
            annotation_position="top left" if equal > most / 2 else "top right",
        )
    return figure


def _steps(run: _Run, budget: _Budget) -> "pd.Series[float]":
    """The points where the line begins, falls and ends."""
    best = run.best.dropna()
    falls = best[best.diff().fillna(-1.0) < 0]
    line = pd.Series(falls.to_numpy(), budget.of(run)[falls.index].to_numpy())
    end = float(budget.of(run).max())
    return line if end in line.index else pd.concat([line, pd.Series({end: best.iloc[-1]})])


def _table(runs: Sequence[_Run], scale: Scale, budget: _Budget) -> pd.DataFrame:
    rows = [
        {"study": run.name, budget.column: x, f"best {scale.label}": y}
        for run in runs
        for x, y in _steps(run, budget).items()
    ]
    return pd.DataFrame(rows)


def key_numbers(all_results: Sequence[Results]) -> TableCard:
    """What each study is, in one column a study."""
    columns = {}
    for place, it in enumerate(all_results):
        name = it.study
        columns[name if name not in columns else f"{name} ({place + 1})"] = _numbers(it)
    table = pd.DataFrame(columns).rename_axis("what").reset_index()
    spent = sum(float(it.trials["seconds"].sum()) for it in all_results)
    count = sum(len(it.trials) for it in all_results)
    return TableCard(
        key="studies",
        title=f"{wording.count(count, 'trial')} in {len(all_results)} studies took "
        f"{wording.duration(spent)} of compute",
        table=table,
        wide=True,
    )


def _numbers(results: Results) -> dict[str, str]:
    stored, best = results.stored, results.best
    ended, wall = results.count(*ENDED), wall_seconds(results)
    found = {
        "metric": f"{results.metric}, {' and '.join(results.directions)}",
        "trials": by_outcome(results) or "none",
        "sampler": stored.search.get("sampler", _UNKNOWN),
        "pruner": stored.search.get("pruner", _UNKNOWN),
        "seed": _UNKNOWN if stored.seed is None else str(stored.seed),
        "best": "none",
        "its configuration": "none",
        "compute": compute_text(results) if ended else _UNKNOWN,
        "wall clock": wording.duration(wall) if math.isfinite(wall) else _UNKNOWN,
    }
    if best is not None:
        found["best"] = f"{score_text(results.scale, shown_best(results))} (trial {best})"
        found["its configuration"] = wording.params(params_of(results, best))
    return found
