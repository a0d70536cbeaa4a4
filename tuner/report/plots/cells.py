"""Heat maps of two factors' levels: printed values, pale where the model extrapolates."""

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from plotly import graph_objects as go

from tuner import wording
from tuner.report.factors import Factor
from tuner.report.plots import compared, theme, words
from tuner.report.plots.facts import score_text, turned
from tuner.report.results import Results
from tuner.report.scale import Scale

Array = npt.NDArray[np.float64]

_ROW = 36  # px
_PAGE, _PHONE = 420, 220  # px: the room for all columns, at least
_PALE = 0.35  # opacity of a marked cell


@dataclass(frozen=True)
class Pair:
    """Each level of one factor with each of another; `(n_context, n_choice)`, in model units.

    Attributes:
        context, choice: the best level of ``choice`` may depend on that of ``context``.
        rows: the levels of ``context``.
        columns: the levels of ``choice``.
        mean, low, high: the expected value with all else tuned, and its 95 % interval.
        draws: `(n_draws, n_context, n_choice)` of the joint posterior.
        trials: how many have both levels.
        unsure: the cell is mostly extrapolated.
    """

    context: Factor
    choice: Factor
    rows: list[int]
    columns: list[int]
    mean: Array
    low: Array
    high: Array
    draws: Array
    trials: npt.NDArray[np.int64]
    unsure: npt.NDArray[np.bool_]

    @property
    def p_best(self) -> Array:
        """The probability of each choice to be the best in its context."""
        best = self.draws.argmin(axis=2)
        counts = [(best == it).mean(axis=0) for it in range(len(self.columns))]
        return np.stack(counts, axis=1)


def figure_of(results: Results, pair: Pair) -> go.Figure:
    """The heat map, with the factor of more levels down its side."""
    (across, columns), (down, rows) = _sides(pair)
    slanted = 8 * theme.longest(columns) * len(columns) > _PAGE
    figure = theme.new_figure(height=80 + _ROW * len(rows) + (60 if slanted else 0))
    mean, unsure, hover = pair.mean, pair.unsure, _hover(results, pair)
    if not _upright(pair):
        mean, unsure, hover = mean.T, unsure.T, hover.T
    low, high = float(mean.min()), float(mean.max())
    ink: dict[str, Any] = {"color": theme.LIGHT["ink"]}
    for marked in (it for it in (False, True) if (unsure == it).any()):
        figure.add_trace(
            go.Heatmap(
                z=np.where(unsure == marked, mean, np.nan),
                text=_texts(results.scale, mean, unsure == marked, "?" if marked else ""),
                texttemplate="%{text}",
                textfont={"size": theme.TEXT_SIZE, **(ink if marked else {})},
                customdata=hover,
                hovertemplate="%{customdata}<extra></extra>",
                hoverongaps=False,
                colorscale=theme.colour_scale(),
                zmin=low,
                zmax=high if high > low else low + 1,
                showscale=False,
                opacity=_PALE if marked else 1,
                xgap=2,
                ygap=2,
            )
        )
    ends = [-0.5, len(columns) - 0.5]
    figure.update_layout(
        margin={"t": 12},
        xaxis={**theme.level_axis(columns, range=ends), "title": {"text": theme.short(across)},
               "tickangle": -35 if slanted else 0},
        yaxis={**theme.level_axis(rows), "title": {"text": theme.short(down)}},
    )  # fmt: skip
    return figure


def _upright(pair: Pair) -> bool:
    """The context stands at the rows: the factor with more levels does."""
    return len(pair.rows) >= len(pair.columns)


def _sides(pair: Pair) -> tuple[tuple[str, list[str]], tuple[str, list[str]]]:
    """Label and levels of the columns that are drawn, and of the rows."""
    context, choice = (
        (factor.label, [factor.texts[it] for it in places])
        for factor, places in ((pair.context, pair.rows), (pair.choice, pair.columns))
    )
    return (choice, context) if _upright(pair) else (context, choice)


def _texts(
    scale: Scale, modelled: Array, there: npt.NDArray[np.bool_], end: str
) -> list[list[str]]:
    """What stands in each cell; nothing where it belongs to the other trace."""
    return [
        [f"{score_text(scale, at).removesuffix(' %')}{end}" if here else "" for at, here in cells]
        for cells in (
            zip(*row, strict=True) for row in zip(scale.from_model(modelled), there, strict=True)
        )
    ]


def _cells(results: Results, pair: Pair) -> list[dict[str, Any]]:
    """Each cell in shown values, row by row."""
    shown = [results.scale.from_model(it) for it in (pair.mean, pair.low, pair.high)]
    return [
        {
            "context": words.level_name(pair.context, pair.rows[i]),
            "choice": words.level_name(pair.choice, pair.columns[j]),
            "place": (i, j), "mean": float(shown[0][i, j]), "low": float(shown[1][i, j]),
            "high": float(shown[2][i, j]), "trials": int(pair.trials[i, j]),
        }
        for i, j in itertools.product(range(len(pair.rows)), range(len(pair.columns)))
    ]  # fmt: skip


def _hover(results: Results, pair: Pair) -> npt.NDArray[np.object_]:
    scale, p_best = results.scale, pair.p_best
    found = [
        f"{it['context']}, {it['choice']}: {score_text(scale, it['mean'])} "
        f"(95 %: {compared.span_text(scale, it['low'], it['high'])})<br>"
        f"{wording.count(it['trials'], 'trial')}; P(best for {it['context']}) "
        f"{p_best[it['place']]:.2f}"
        for it in _cells(results, pair)
    ]
    return np.array(found, dtype=object).reshape(pair.mean.shape)


def table_of(results: Results, pair: Pair) -> pd.DataFrame:
    """One row a cell."""
    p_best = pair.p_best
    return pd.DataFrame([
        {
            pair.context.label: pair.context.texts[pair.rows[it["place"][0]]],
            pair.choice.label: pair.choice.texts[pair.columns[it["place"][1]]],
            f"tuned {results.scale.label}": it["mean"], "low": it["low"], "high": it["high"],
            f"P(best of its {pair.context.label.lower()})": float(p_best[it["place"]]),
            "trials": it["trials"], "extrapolated": "yes" if pair.unsure[it["place"]] else "no",
        }
        for it in _cells(results, pair)
    ])  # fmt: skip


def narrow_of(pair: Pair) -> dict[str, Any]:
    """Small words where a phone has less room for a cell than they need."""
    columns = _sides(pair)[0][1]
    angle = -45 if 7 * theme.longest(columns) * len(columns) > _PHONE else 0
    size = 8 if len(columns) > 6 else 10 if len(columns) > 5 else 12
    sides = (True, False) if pair.unsure.any() and not pair.unsure.all() else (True,)
    texts = {f"traces[{i}].textfont.size": size for i in range(len(sides))}
    return texts | {"xaxis.tickfont.size": 11, "yaxis.tickfont.size": 11, "yaxis.title.text": "",
                    "xaxis.tickangle": angle}  # fmt: skip


def alt_of(results: Results, pair: Pair) -> str:
    """The lowest and the highest cell, and how many are extrapolated."""
    cells = sorted(_cells(results, pair), key=lambda it: it["mean"])
    said = [
        f"{it['context']} with {it['choice']}, {score_text(results.scale, it['mean'])}"
        for it in (cells[0], cells[-1])
    ]
    ends = ("highest", "lowest") if turned(results.scale) else ("lowest", "highest")
    count = int(pair.unsure.sum())
    return (
        f"Heat map of {pair.mean.size} cells. The {ends[0]} is {said[0]}; the {ends[1]} {said[1]}. "
        f"{wording.count(count, 'cell')} {'is' if count == 1 else 'are'} mostly extrapolated."
    )
