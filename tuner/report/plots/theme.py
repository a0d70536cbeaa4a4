"""How figures look: colours, marks, axes. Every figure takes them from here.

A figure's colours are those of a light page; the page swaps them for `DARK` where the reader
prefers dark. So a figure uses only the colours of `LIGHT`, `LEVELS` and `CIVIDIS`, and `faint`
ones.
"""

import html
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from plotly import graph_objects as go

from tuner import wording
from tuner.report.plots.ticks import value_ticks
from tuner.report.results import (
    COMPLETE,
    DIVERGED,
    FAILED,
    INFEASIBLE,
    PRUNED,
    RUNNING,
    WAITING,
    Results,
)
from tuner.report.scale import Scale

# By role. Contrast on the surface at least 3:1 for marks and 4.5:1 for words.
LIGHT = {
    "ink": "#16232b",
    "muted": "#5d686e",
    "grid": "#e4e3dd",
    "surface": "#fffefb",
    "complete": "#0b6e69",
    "pruned": "#9aa3a8",
    "failed": "#d55e00",
    "diverged": "#b8860b",
    "infeasible": "#8a4fa3",
    "running": "#0072b2",
    "waiting": "#5b7f9e",
}
DARK = {
    "ink": "#e9edee",
    "muted": "#a3afb5",
    "grid": "#2f3d45",
    "surface": "#17232a",
    "complete": "#4cc0b5",
    "pruned": "#75838b",
    "failed": "#ff8a3d",
    "diverged": "#e3b341",
    "infeasible": "#c99ae0",
    "running": "#6bb8ee",
    "waiting": "#8fb4d0",
}
# Levels of a factor: Okabe and Ito's colours (jfly.uni-koeln.de/color), the yellow darkened to be
# seen on paper; told apart by mark and dash as well.
LEVELS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a4b2a", "#8a7b00")
DARK_LEVELS = (
    "#5aaeea", "#ff8a3d", "#3cc79b", "#e39cc4", "#f2b640", "#8fd0f5", "#c9976f", "#cfc04a",
)  # fmt: skip
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star", "x", "hexagon")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
# Outcomes are told apart by a hatch as well as by colour, where an area shows them.
HATCHES = {COMPLETE: "", PRUNED: "/", DIVERGED: ".", INFEASIBLE: "-", FAILED: "x", RUNNING: ""}
OUTCOME_SYMBOLS = {
    COMPLETE: "circle",
    PRUNED: "circle-open",
    DIVERGED: "triangle-up",
    INFEASIBLE: "square-open",
    FAILED: "x",
    RUNNING: "diamond-open",
    WAITING: "hourglass-open",
}
# Heat maps: Cividis, dark is low (Nunez et al. 2018), without its ends, so that words can be read.
CIVIDIS = ("#0a326a", "#2f476b", "#575d6d", "#7c7b78", "#a59c74", "#d3c164", "#f5e26b")

# For `Card.narrow`: a legend in two columns.
NARROW_LEGEND = {
    "legend.entrywidthmode": "fraction",
    "legend.entrywidth": 0.49,
    "legend.font.size": 10,
}

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
TEXT_SIZE = 13  # px
HEIGHT = 380  # px of a figure that says nothing else


def faint(colour: str, opacity: float) -> str:
    """A colour of the palette that lets the ground shine through: ``rgba(0,114,178,0.2)``."""
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity:g})"


def level_colour(place: int) -> str:
    """The colour of a factor's level by its place in the factor's order."""
    return LEVELS[place % len(LEVELS)]


def level_symbol(place: int) -> str:
    """Its mark; levels that share a colour have another mark."""
    return SYMBOLS[(place + place // len(SYMBOLS)) % len(SYMBOLS)]


def level_dash(place: int) -> str:
    """Its dash."""
    return DASHES[place % len(DASHES)]


def dark_of() -> dict[str, str]:
    """Every colour that changes on a dark page."""
    pairs = {LIGHT[role]: DARK[role] for role in LIGHT}
    return pairs | dict(zip(LEVELS, DARK_LEVELS, strict=True))


def _axis(**more: Any) -> dict[str, Any]:
    return {
        "gridcolor": LIGHT["grid"],
        "linecolor": LIGHT["grid"],
        "zeroline": False,
        "ticks": "outside",
        "tickcolor": LIGHT["grid"],
        "ticklen": 4,
        "automargin": True,
        "title": {"standoff": 10, "font": {"size": TEXT_SIZE, "color": LIGHT["muted"]}},
        **more,
    }


TEMPLATE = go.layout.Template(
    layout={
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "colorway": LEVELS,
        "font": {"family": FONT, "size": TEXT_SIZE, "color": LIGHT["ink"]},
        "margin": {"l": 12, "r": 16, "t": 36, "b": 12},
        "hoverlabel": {
            "bgcolor": LIGHT["surface"],
            "bordercolor": LIGHT["muted"],
            "font": {"family": FONT, "size": TEXT_SIZE, "color": LIGHT["ink"]},
            "align": "left",
        },
        "hovermode": "closest",
        "legend": {
            "orientation": "h",
            "x": 0,
            "xanchor": "left",
            "y": 1.0,
            "yanchor": "bottom",
            "font": {"size": TEXT_SIZE - 1},
            "itemsizing": "constant",
        },
        "xaxis": _axis(),
        "yaxis": _axis(),
    }
)


def new_figure(height: int = HEIGHT, **layout: Any) -> go.Figure:
    """An empty figure in our looks."""
    return go.Figure(layout={"template": TEMPLATE, "height": height, **layout})


def colour_scale() -> list[list[float | str]]:
    """`CIVIDIS` as Plotly takes it: dark is low."""
    last = len(CIVIDIS) - 1
    return [[place / last, colour] for place, colour in enumerate(CIVIDIS)]


def plain(text: object) -> str:
    """A text that somebody gave, for a figure: Plotly reads tags in its texts."""
    return html.escape(str(text), quote=False)


def short(text: object, most: int = 24) -> str:
    """A text that somebody gave, cut for a tick or a legend, and made `plain`."""
    whole = " ".join(str(text).split())
    return plain(whole if len(whole) <= most else whole[: most - 1].rstrip() + "…")


def second_line(text: str) -> str:
    """A text that is ready for a figure, small and muted: what stands below a name."""
    look = f"font-size:{TEXT_SIZE - 2}px;color:{LIGHT['muted']}"
    return f'<span style="{look}">{text}</span>'


# Of an axis that shows a single value: so much beside it.
_ALONE = 0.2
_GREATEST_POWER = 307.0  # of ten, that a number holds


def value_axis(scale: Scale, low: float, high: float, **more: Any) -> dict[str, Any]:
    """An axis for shown values, with room beside them.

    Args:
        scale: the study's.
        low: the least shown value.
        high: the greatest shown value.
        **more: attributes of the axis; ``title`` may be a text.
    """
    start, end = _padded(scale, low, high)
    ticks, texts = value_ticks(scale, *_ends(scale, start, end))
    axis: dict[str, Any] = {
        "type": "log" if scale.log else "linear",
        "range": [start, end],
        "tickmode": "array",
        "tickvals": ticks,
        "ticktext": texts,
        "minor": {"ticks": ""},
        "title": {"text": plain(scale.label) + (" (log)" if scale.log else "")},
    }
    return axis | more


def few_ticks(scale: Scale, low: float, high: float, axis: str = "xaxis") -> dict[str, Any]:
    """For `Card.narrow`: four ticks at most on a `value_axis` of the same range."""
    ticks, texts = value_ticks(scale, *_ends(scale, *_padded(scale, low, high)), 4)
    return {f"{axis}.tickvals": ticks, f"{axis}.ticktext": texts}


def _padded(scale: Scale, low: float, high: float) -> tuple[float, float]:
    """The ends of an axis in its own unit: log10 on a log axis."""
    if not (math.isfinite(low) and math.isfinite(high)):
        low, high = 0.01, 1.0
    start, end = (float(it) for it in scale.to_model([low, high]))
    alone = _ALONE if scale.log else _ALONE * abs(start) or 1.0
    room = 0.06 * (end - start) if end > start else alone
    return start - room, end + room


def _ends(scale: Scale, start: float, end: float) -> tuple[float, float]:
    if not scale.log:
        return start, end
    held = (min(max(it, -_GREATEST_POWER), _GREATEST_POWER) for it in (start, end))
    low, high = (10.0**it for it in held)
    return low, high


@dataclass(frozen=True)
class StepAxis:
    """How steps are shown: as epochs where it is known how many steps are one.

    Attributes:
        per: steps for a unit of the axis.
        word: the unit: "epoch" or "step".
        layout: the axis for Plotly.
    """

    per: int
    word: str
    layout: dict[str, Any]

    def x(self, steps: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Where steps stand on the axis."""
        return np.asarray(steps, dtype=float) / self.per

    def text(self, step: float) -> str:
        """A step in words: ``epoch 1¼``, ``step 8``."""
        known = self.per if self.word == "epoch" else None
        return wording.progress_of(int(step), None, known)


def step_axis(results: Results) -> StepAxis:
    """The axis for a study's steps, from 0 to the greatest."""
    per, word = (results.steps_per_epoch, "epoch") if results.steps_per_epoch else (1, "step")
    most = (results.max_step or 1) / per
    layout = {"title": {"text": word}, "range": [0, 1.03 * most], "nticks": 8}
    return StepAxis(per, word, layout)


def longest(texts: Iterable[str]) -> int:
    """The length of the longest text as it is seen."""
    return max((len(html.unescape(text)) for text in texts), default=0)


def signed(number: float, digits: int = 2) -> str:
    """A number that may be negative, with a true minus sign."""
    return f"{number:.{digits}f}".replace("-", "\N{MINUS SIGN}")


def bar_mark(outcome: str, *, hatched: bool = True) -> dict[str, Any]:
    """How a bar shows an outcome: by colour and, where there is room, by a hatch."""
    mark: dict[str, Any] = {"color": LIGHT[outcome], "line": {"width": 0}}
    if hatched and HATCHES[outcome]:
        mark["pattern"] = {
            "shape": HATCHES[outcome],
            "fillmode": "overlay",
            "fgcolor": LIGHT["surface"],
            "size": 7,
            "solidity": 0.25,
        }
    return mark


def level_axis(texts: Iterable[object], **more: Any) -> dict[str, Any]:
    """A vertical axis with a level at each whole number, the first on top."""
    names = [short(text) for text in texts]
    return {
        "tickmode": "array",
        "tickvals": list(range(len(names))),
        "ticktext": names,
        "range": [len(names) - 0.5, -0.5],
        "showgrid": False,
        "ticks": "",
        "ticklabelstandoff": 6,
        **more,
    }
