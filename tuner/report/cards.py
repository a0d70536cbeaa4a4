"""What a report is made of: cards with a figure each, in sections, in chapters.

Nothing here draws or computes: `tuner.report.plots` makes cards, `tuner.report.page` shows them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from plotly import graph_objects as go


class CannotDraw(Exception):  # noqa: N818 - it is an answer, not an error
    """A figure has nothing to show; the message is a sentence that says why."""


@dataclass(frozen=True)
class Card:
    """A figure and all that a reader needs beside it.

    Attributes:
        key: names it in the page, and as a file: ``history``, ``forest-optimizer``.
        title: its finding in words, without a full stop: "Adam leads by less than the noise".
        reading: one sentence on how to read it.
        basis: the n, and how pruned, diverged and failed trials were treated.
        alt: what is seen, for who does not see it.
        figure: without a title of its own.
        table: the figure's data; rounded and cut for people by the page, in full by ``--csv``.
        narrow: Plotly layout attributes that change below 600 px, by their dotted names:
            ``{"xaxis.nticks": 4, "height": 520}``.
        wide: whether it takes a whole row of the page.
        note: HTML-free text that unfolds below the figure, or "".
    """

    key: str
    title: str
    reading: str
    basis: str
    alt: str
    figure: go.Figure
    table: pd.DataFrame
    narrow: Mapping[str, Any] = field(default_factory=dict)
    wide: bool = False
    note: str = ""


@dataclass(frozen=True)
class Blank:
    """In the place of a card that cannot be drawn: why."""

    key: str
    title: str
    why: str


@dataclass(frozen=True)
class TableCard:
    """A table without a figure: the best configuration, the provenance.

    Attributes:
        table: shown in full.
        text: sentences above it, or "".
        command: a command line to copy, or "".
    """

    key: str
    title: str
    table: pd.DataFrame
    text: str = ""
    command: str = ""
    wide: bool = False


@dataclass(frozen=True)
class Tile:
    """What is known about one factor, in words.

    Attributes:
        label: the factor's, "Optimizer".
        leader: the level that leads, "adam".
        word: the verdict's, see `tuner.report.verdicts`.
        detail: beside the word: "P(best) 0.83", or "".
        text: two or three sentences.
    """

    label: str
    leader: str
    word: str
    detail: str
    text: str


@dataclass(frozen=True)
class Fact:
    """A key figure: "Best validation error", "0.58 %", "trial 43 · 99.42 % accuracy"."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Section:
    """Cards under a heading.

    Attributes:
        key: its anchor.
        short: its name in the navigation.
        lead: one or two sentences below the heading, or "".
    """

    key: str
    title: str
    short: str
    lead: str = ""
    tiles: list[Tile] = field(default_factory=list)
    cards: list[Card | Blank | TableCard] = field(default_factory=list)


@dataclass(frozen=True)
class Cover:
    """The top of a chapter: the answer in words, and the key figures.

    Attributes:
        eyebrow: a line above the headline: study, metric, direction, date.
        headline: the answer.
        lead: the sentences that qualify it.
        command: a command line to copy that would settle what is open, or "".
    """

    eyebrow: str
    headline: str
    lead: str
    command: str = ""
    facts: list[Fact] = field(default_factory=list)


@dataclass(frozen=True)
class Chapter:
    """One study, or what several have in common.

    Attributes:
        key: begins the anchors of its sections when there are several chapters.
    """

    key: str
    name: str
    cover: Cover
    sections: list[Section]


@dataclass(frozen=True)
class Report:
    """A page: one chapter for one study; for several, the first one compares them."""

    title: str
    chapters: list[Chapter]

    def cards(self) -> list[Card]:
        """All cards with a figure, in their order."""
        return [
            card
            for chapter in self.chapters
            for section in chapter.sections
            for card in section.cards
            if isinstance(card, Card)
        ]
