"""The confusion matrix of the best trial's model: which class is taken for which, how often."""

import html

import numpy as np
import numpy.typing as npt
import pandas as pd
from plotly import graph_objects as go

from tuner import wording
from tuner.report.cards import Card
from tuner.report.mistakes import Mistakes
from tuner.report.plots import theme
from tuner.report.plots.words import joined

_MOST_COUNTED = 20  # classes whose counts are printed in the cells
_STRONGEST = 0.55  # opacity of the most frequent confusion: words on it can be read, also in dark
_MOST_NAMED = 2  # confusions in the title
_LONGEST = 14  # characters of a class's name on an axis
_ROW, _LEAST, _MOST = 28, 260, 520  # px


def confusion(mistakes: Mistakes, number: int) -> Card:
    """Each class (rows) with what it is taken for (columns), on the validation images.

    Args:
        mistakes: of the best trial.
        number: of that trial.
    """
    pairs = _pairs(mistakes)
    return Card(
        key="confusion",
        title=_finding(mistakes, pairs),
        reading="A row for each true class, a column for each class that the model names. Colour "
        "shows mistakes alone, on a scale of logarithms; the diagonal is what is right.",
        basis=_basis(mistakes, number),
        alt=_alt(mistakes, pairs),
        figure=_figure(mistakes),
        table=pairs,
        narrow={"height": 360, "xaxis.tickfont.size": 10, "yaxis.tickfont.size": 10},
    )


def _pairs(mistakes: Mistakes) -> pd.DataFrame:
    """All confusions that happened, the most frequent first."""
    cells, names = mistakes.confusion, np.array(mistakes.classes, dtype=object)
    off = np.where(np.eye(len(names), dtype=bool), 0, cells)
    rows, columns = np.nonzero(off)
    order = np.argsort(-off[rows, columns], kind="stable")
    rows, columns = rows[order], columns[order]
    return pd.DataFrame(
        {
            "true class": names[rows],
            "taken for": names[columns],
            "images": off[rows, columns],
            "of the true class": cells.sum(axis=1)[rows],
        }
    )


def _finding(mistakes: Mistakes, pairs: pd.DataFrame) -> str:
    if not mistakes.wrong:
        return f"All {mistakes.images:,} validation images are named rightly"
    wrong = f"{mistakes.wrong:,} of {mistakes.images:,} validation images"
    if pairs.empty:
        return f"{wrong} are named wrongly, none of them between the classes that are kept"
    most = int(pairs["images"].iloc[0])
    often = pairs[pairs["images"] == most]
    named = joined([f"{true} taken for {said}" for true, said in _names(often[:_MOST_NAMED])])
    more = len(often) - _MOST_NAMED
    others = f" and {wording.count(more, 'other pair')}" if more > 0 else ""
    each = " each" if len(often) > 1 else ""
    return f"{wrong} are wrong, most often {named}{others}: {wording.times(most)}{each}"


def _names(pairs: pd.DataFrame) -> list[tuple[str, str]]:
    return [
        (theme.short(true, 20), theme.short(said, 20))
        for true, said in zip(pairs["true class"], pairs["taken for"], strict=True)
    ]


def _basis(mistakes: Mistakes, number: int) -> str:
    basis = (
        f"Trial {number}, the best one, at its end: {mistakes.images:,} validation images, "
        f"{mistakes.wrong:,} of them wrong. No image of the test set."
    )
    shown = len(mistakes.classes)
    if shown == mistakes.n_classes:
        return basis
    return f"{basis} Of {mistakes.n_classes:,} classes the {shown} that are most often confused."


def _figure(mistakes: Mistakes) -> go.Figure:
    names = [theme.short(it, _LONGEST) for it in mistakes.classes]
    count = len(names)
    cells = mistakes.confusion.astype(float)
    diagonal = np.eye(count, dtype=bool)
    errors = np.where(diagonal | (cells == 0), np.nan, np.log10(1 + cells))
    right = np.where(diagonal, 1.0, np.nan)
    figure = theme.new_figure(height=int(np.clip(90 + _ROW * count, _LEAST, _MOST)))
    most = float(np.nanmax(errors)) if np.isfinite(errors).any() else 1.0
    failed = theme.LIGHT["failed"]
    scale = (theme.faint(failed, 0.08), theme.faint(failed, _STRONGEST))
    calm = theme.faint(theme.LIGHT["complete"], 0.18)
    for values, colours, limits in (
        (right, (calm, calm), (0.0, 1.0)),
        (errors, scale, (0.0, most)),
    ):
        figure.add_trace(
            go.Heatmap(
                z=values,
                text=_counts(mistakes, ~np.isnan(values)),
                texttemplate="%{text}" if count <= _MOST_COUNTED else "",
                textfont={"size": theme.TEXT_SIZE - 2, "color": theme.LIGHT["ink"]},
                customdata=_hover(mistakes),
                hovertemplate="%{customdata}<extra></extra>",
                hoverongaps=False,
                colorscale=[[0, colours[0]], [1, colours[1]]],
                zmin=limits[0],
                zmax=limits[1],
                showscale=False,
                xgap=1,
                ygap=1,
            )
        )
    ends = [-0.5, count - 0.5]
    grid = {"gridcolor": theme.LIGHT["grid"], "ticks": ""}
    slanted = theme.longest(names) > 4
    figure.update_layout(
        margin={"t": 12},
        xaxis={**theme.level_axis(names, range=ends), **grid, "title": {"text": "taken for"},
               "tickangle": -45 if slanted else 0},
        yaxis={**theme.level_axis(names), **grid, "title": {"text": "true class"}},
    )  # fmt: skip
    return figure


def _counts(mistakes: Mistakes, there: npt.NDArray[np.bool_]) -> list[list[str]]:
    if len(mistakes.classes) > _MOST_COUNTED:
        return []
    return [
        [str(count) if here else "" for count, here in zip(row, shown, strict=True)]
        for row, shown in zip(mistakes.confusion.tolist(), there.tolist(), strict=True)
    ]


def _hover(mistakes: Mistakes) -> list[list[str]]:
    names = [theme.plain(it) for it in mistakes.classes]
    return [
        [
            f"{true} {'rightly named' if row == column else f'taken for {said}'}: "
            f"{wording.count(int(mistakes.confusion[row, column]), 'image')}"
            for column, said in enumerate(names)
        ]
        for row, true in enumerate(names)
    ]


def _alt(mistakes: Mistakes, pairs: pd.DataFrame) -> str:
    first = [
        f"{html.unescape(true)} taken for {html.unescape(said)} {wording.times(int(count))}"
        for (true, said), count in zip(_names(pairs[:5]), pairs["images"][:5], strict=True)
    ]
    said = f" The most frequent: {joined(first)}." if first else ""
    return (
        f"Confusion matrix of {len(mistakes.classes)} classes: {mistakes.wrong:,} of "
        f"{mistakes.images:,} images are wrong.{said}"
    )
