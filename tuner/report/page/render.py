"""The page: words, tables and descriptions as HTML, figures as data that `page.js` draws.

Names and reasons come from users. The template escapes all of them, and what scripts read is in
base64, which has no character that HTML knows. A content security policy forbids the page every
connection and every script but its own.
"""

import base64
import datetime as dt
import functools
import gzip
import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import jinja2
import pandas as pd
import plotly.offline
from markupsafe import Markup
from pandas.api import types
from plotly.io.json import to_json_plotly

from tuner import __version__
from tuner.report.cards import Blank, Card, Chapter, Report, Section, TableCard
from tuner.report.plots import theme

MOST_ROWS = 200  # of a table below a figure

# These draw with regl, which compiles functions: the policy has to allow it.
_COMPILING = {"parcoords", "scattergl", "scatterpolargl", "splom"}
_DASH = "\N{EN DASH}"
# Ids of the page itself.
_OWN_IDS = frozenset({"content", "plotly", "figures", "top", "said", "no-figures"})


_AnyCard = Card | Blank | TableCard


@dataclass(frozen=True)
class _Column:
    name: str
    kind: str  # "number", "when" or ""


@dataclass(frozen=True)
class _Table:
    """A table as people read it."""

    title: str
    columns: list[_Column]
    rows: list[list[str]]
    left_out: int


@dataclass(frozen=True)
class _Slot:
    """A card in its place: its kind for the template, and whether it takes a whole row."""

    kind: str
    anchor: str
    spans: bool
    card: _AnyCard
    table: _Table | None


@dataclass(frozen=True)
class _Part:
    """A section with its anchor and its cards in their places."""

    anchor: str
    section: Section
    slots: list[_Slot]


@dataclass(frozen=True)
class _Division:
    """A chapter with its anchor and its sections."""

    anchor: str
    chapter: Chapter
    parts: list[_Part]


class _Anchors:
    """Gives out ids, none twice, and none with a dot: the template makes more with one."""

    def __init__(self) -> None:
        self._taken = set(_OWN_IDS)

    def new(self, *words: str) -> str:
        wanted = "-".join(re.sub(r"[^A-Za-z0-9_]+", "-", word).strip("-") for word in words)
        wanted = wanted or "part"
        anchor, number = wanted, 1
        while anchor in self._taken:
            number += 1
            anchor = f"{wanted}-{number}"
        self._taken.add(anchor)
        return anchor


def render(report: Report) -> str:
    """A report as an HTML page.

    Args:
        report: the chapters, with their figures.

    Returns:
        The whole page, that may be saved, mailed and opened from a file.
    """
    divisions = _divisions(report)
    slots = [
        slot for division in divisions for part in division.parts for slot in part.slots
    ]  # fmt: skip
    script = _file("page.js")
    page = _template().render(
        report=report,
        divisions=divisions,
        style=Markup(_file("page.css")),  # noqa: S704 - our own file
        script=Markup(script),  # noqa: S704 - our own file
        policy=_policy(script, compiling=_compiles(report)),
        light=theme.LIGHT,
        dark=theme.DARK,
        plotly=_plotly(),
        figures=_packed(_figures(slots)),
        version=__version__,
        made=dt.datetime.now(dt.UTC),
    )
    return page.lstrip()  # the macros' lines


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tuner.report.page", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["slug"] = _slug
    return environment.get_template("page.html.j2")


def _file(name: str) -> str:
    return resources.files("tuner.report.page").joinpath(name).read_text("utf-8")


def _policy(script: str, *, compiling: bool) -> str:
    """What the page may do: run its own script and what that unpacks, and connect to nothing."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    scripts = f"'sha256-{digest}' blob:" + (" 'unsafe-eval'" if compiling else "")
    return (
        f"default-src 'none'; script-src {scripts}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def _compiles(report: Report) -> bool:
    return any(trace.type in _COMPILING for card in report.cards() for trace in card.figure.data)


def _packed(text: str) -> str:
    return base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode()


@functools.cache
def _plotly() -> str:
    return _packed(plotly.offline.get_plotlyjs())


def _figures(slots: Sequence[_Slot]) -> str:
    """All that `page.js` needs to draw, as JSON; the template that figures share is there once."""
    shared = theme.TEMPLATE.to_plotly_json()
    drawings = []
    for slot in slots:
        if not isinstance(slot.card, Card):
            continue
        drawing = slot.card.figure.to_plotly_json()
        layout = drawing["layout"]
        if layout.get("template") == shared:
            del layout["template"]
        drawings.append(
            {
                "id": f"{slot.anchor}.plot",
                "data": drawing["data"],
                "layout": layout,
                "narrow": slot.card.narrow,
            }
        )
    content = {"template": shared, "dark": theme.dark_of(), "roles": theme.LIGHT}
    packed: str = to_json_plotly({**content, "figures": drawings}, engine="json")
    return packed


def _divisions(report: Report) -> list[_Division]:
    anchors = _Anchors()
    several = len(report.chapters) > 1
    divisions = []
    for chapter in report.chapters:
        before = [chapter.key] if several else []
        anchor = anchors.new(chapter.key) if several else "top"
        # All sections before the cards: a link to a section is the one that is kept.
        section_anchors = [anchors.new(*before, section.key) for section in chapter.sections]
        parts = [
            _Part(own, section, list(_slots(section, before, anchors)))
            for own, section in zip(section_anchors, chapter.sections, strict=True)
        ]
        divisions.append(_Division(anchor, chapter, parts))
    return divisions


def _slots(section: Section, before: list[str], anchors: _Anchors) -> Iterator[_Slot]:
    kinds = {Card: "figure", Blank: "blank", TableCard: "table"}
    for card, spans in _arranged(section.cards):
        table = None
        if isinstance(card, Card):
            table = _table(card.table, card.title, MOST_ROWS)
        elif isinstance(card, TableCard):
            table = _table(card.table, card.title, len(card.table))
        yield _Slot(kinds[type(card)], anchors.new(*before, card.key), spans, card, table)


def _arranged(cards: Sequence[_AnyCard]) -> Iterator[tuple[_AnyCard, bool]]:
    """Cards for two columns without holes, and whether each takes a whole row.

    A blank that would stand beside a figure, far lower than it, goes after the figure's row.
    """
    alone: _AnyCard | None = None  # in a row that has place for one more
    blanks: list[Blank] = []
    for card in cards:
        if isinstance(card, Blank):
            blanks.append(card)
        elif alone is not None and not card.wide:
            yield alone, False
            yield card, False
            alone = None
        else:
            if alone is not None:
                yield alone, True
            yield from _rows_of(blanks)
            blanks.clear()
            alone = None if card.wide else card
            if card.wide:
                yield card, True
    if alone is not None:
        yield alone, True
    yield from _rows_of(blanks)


def _rows_of(blanks: Sequence[Blank]) -> Iterator[tuple[_AnyCard, bool]]:
    odd = len(blanks) % 2
    for place, blank in enumerate(blanks, start=1):
        yield blank, bool(odd) and place == len(blanks)


def _table(frame: pd.DataFrame, title: str, most: int) -> _Table:
    if not isinstance(frame.index, pd.RangeIndex):
        frame = frame.reset_index()
    shown = frame.head(most)
    names = [str(name) for name in frame.columns]
    # By position, as two columns may have one name.
    series = [shown.iloc[:, place] for place in range(len(names))]
    columns = [_Column(name, _kind(one)) for name, one in zip(names, series, strict=True)]
    cells = [[_cell(value) for value in one.tolist()] for one in series]
    rows = [list(row) for row in zip(*cells, strict=True)]
    return _Table(title, columns, rows, len(frame) - len(shown))


def _kind(series: "pd.Series[Any]") -> str:
    """What a column holds, which says how it is aligned."""
    kinds = {_kind_of(value) for value in series.dropna().tolist()}
    return kinds.pop() if len(kinds) == 1 else ""


def _kind_of(value: object) -> str:
    if isinstance(value, dt.datetime | dt.timedelta):
        return "when"
    return "number" if types.is_number(value) and not types.is_bool(value) else ""


def _cell(value: object) -> str:
    """A table's value for people."""
    if types.is_scalar(value) and pd.isna(value):
        return _DASH
    if types.is_bool(value):
        return "yes" if value else "no"
    if types.is_float(value):
        return _rounded(float(value))  # type: ignore[arg-type]
    if isinstance(value, dt.datetime):
        return value.isoformat(" ", "seconds")
    if isinstance(value, dt.timedelta):
        return str(dt.timedelta(seconds=round(value.total_seconds())))
    return str(value)


def _rounded(value: float) -> str:
    """Four significant digits; whole numbers keep all of theirs, tiny ones have an exponent."""
    if abs(value) in (0, float("inf")):
        return f"{value:g}".replace("inf", "\N{INFINITY}").removeprefix("-0") or "0"
    text = f"{value:.4g}"
    if "e" not in text:
        return text
    digits, exponent = text.split("e")
    return f"{value:.0f}" if 0 < int(exponent) < 15 else f"{digits}e{int(exponent)}"


def _slug(text: str) -> str:
    """A class from the first word of a text: ``equal within 0.1 point`` gives ``equal``."""
    words = re.findall(r"[a-z0-9]+", text.lower())
    return words[0] if words else "none"
