"""The validation images at which the best trial's model was surest of a wrong class."""

from dataclasses import dataclass
from typing import Any

import pandas as pd
from plotly import graph_objects as go

from tuner import wording
from tuner.report.cards import CannotDraw, Card
from tuner.report.mistakes import Mistake, Mistakes
from tuner.report.plots import theme

_COLUMNS, _FEW_COLUMNS = 6, 4  # on a page, and on a phone
_ROW = 84  # px: a picture, and two lines below it
_PICTURE = 0.64  # of a row's height, and of a column's width at most
_LONGEST = 11  # characters of a class's name below a picture
_SURE = 0.9
_SMALL = 10  # px: the words below a picture


def worst(mistakes: Mistakes, number: int) -> Card:
    """A grid of pictures, each with what it is and what the model says.

    Args:
        mistakes: of the best trial.
        number: of that trial.

    Raises:
        CannotDraw: no picture is there.
    """
    shown = mistakes.worst
    if not shown:
        raise CannotDraw(
            f"Trial {number} names all {mistakes.images:,} validation images rightly."
            if not mistakes.wrong
            else f"Trial {number} left no pictures of the {mistakes.wrong:,} images that it gets "
            "wrong."
        )
    return Card(
        key="worst-images",
        title=_finding(mistakes),
        reading="Each picture with its true class, what the model takes it for, and how sure it is "
        "of that; the surest first. Look for labels that are wrong themselves.",
        basis=f"Trial {number}, the best one, at its end: {len(shown)} of the {mistakes.wrong:,} "
        f"validation images of {mistakes.images:,} that it gets wrong. No image of the test set.",
        alt=_alt(shown),
        figure=_figure(shown, _grid(len(shown), _COLUMNS)),
        table=pd.DataFrame(
            {
                "image": [it.index for it in shown],
                "true class": [it.true for it in shown],
                "taken for": [it.said for it in shown],
                "probability of that": [it.p_said for it in shown],
                "probability of the true class": [it.p_true for it in shown],
            }
        ),
        narrow=_narrow(_grid(len(shown), _FEW_COLUMNS)),
    )


def caption(it: Mistake) -> str:
    """What stands below a picture: ``4 read as 9, 98 %``."""
    return f"{theme.short(it.true, 20)} read as {theme.short(it.said, 20)}, {_percent(it.p_said)}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share < 0.995 else "> 99 %"


def _finding(mistakes: Mistakes) -> str:
    sure = sum(it.p_said >= _SURE for it in mistakes.worst)
    first = caption(mistakes.worst[0])
    if not sure:
        return f"No mistake is made with 90 % or more; the surest is {first}"
    if sure == len(mistakes.worst) < mistakes.wrong:
        return f"At least {sure} mistakes are made with 90 % or more, the surest: {first}"
    verb = "mistakes is" if sure == 1 else "mistakes are"
    return f"{sure} of the {mistakes.wrong:,} {verb} made with 90 % or more, the surest: {first}"


@dataclass(frozen=True)
class _Grid:
    """Where the pictures stand: in units of a column and a row.

    Attributes:
        x, y: the middle of each one's upper edge.
    """

    columns: int
    rows: int
    x: list[float]
    y: list[float]

    @property
    def height(self) -> int:
        return 24 + _ROW * self.rows


def _grid(count: int, columns: int) -> _Grid:
    x = [place % columns + 0.5 for place in range(count)]
    y = [place // columns + 0.02 for place in range(count)]
    return _Grid(columns, -(-count // columns), x, y)


def _figure(shown: list[Mistake], grid: _Grid) -> go.Figure:
    figure = theme.new_figure(height=grid.height)
    # Marks that nobody sees carry the whole of what is cut below a picture.
    figure.add_trace(
        go.Scatter(
            x=grid.x,
            y=[y + _PICTURE / 2 for y in grid.y],
            mode="markers",
            marker={"size": 40, "symbol": "square", "opacity": 0},
            customdata=[_hover(it) for it in shown],
            hovertemplate="%{customdata}<extra></extra>",
            showlegend=False,
        )
    )
    places = list(zip(shown, grid.x, grid.y, strict=True))
    hidden = {"visible": False, "fixedrange": True}
    figure.update_layout(
        margin={"t": 8, "l": 4, "r": 4, "b": 4},
        xaxis={**hidden, "range": [0, grid.columns]},
        yaxis={**hidden, "range": [grid.rows, 0]},
        images=[
            {
                "source": it.uri, "xref": "x", "yref": "y", "x": x, "y": y, "sizex": 0.9,
                "sizey": _PICTURE, "xanchor": "center", "yanchor": "top", "sizing": "contain",
                "layer": "below",
            }
            for it, x, y in places
        ],
        annotations=[
            {
                "text": f"{_short(it.true)} read as {_short(it.said)}<br>{_percent(it.p_said)}",
                "x": x, "y": y + _PICTURE, "xanchor": "center", "yanchor": "top",
                "showarrow": False, "font": {"size": _SMALL},
            }
            for it, x, y in places
        ],
    )  # fmt: skip
    return figure


def _narrow(grid: _Grid) -> dict[str, Any]:
    """The same on a phone, in fewer columns."""
    moved: dict[str, Any] = {
        "height": grid.height,
        "xaxis.range": [0, grid.columns],
        "yaxis.range": [grid.rows, 0],
        "traces[0].x": grid.x,
        "traces[0].y": [y + _PICTURE / 2 for y in grid.y],
    }
    for place, (x, y) in enumerate(zip(grid.x, grid.y, strict=True)):
        moved |= {f"images[{place}].x": x, f"images[{place}].y": y}
        moved |= {f"annotations[{place}].x": x, f"annotations[{place}].y": y + _PICTURE}
    return moved


def _short(name: str) -> str:
    return theme.short(name, _LONGEST)


def _hover(it: Mistake) -> str:
    return (
        f"validation image {it.index:,}<br>{theme.plain(it.true)} read as {theme.plain(it.said)}: "
        f"{it.p_said:.2%}<br>probability of the true class: {it.p_true:.2%}"
    )


def _alt(shown: list[Mistake]) -> str:
    first = "; ".join(
        f"{' '.join(it.true.split())} read as {' '.join(it.said.split())}, {_percent(it.p_said)}"
        for it in shown[:5]
    )
    return f"{wording.count(len(shown), 'picture')} of wrongly named images. The first: {first}."
