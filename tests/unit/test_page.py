"""The page as text: what it says, what it escapes, what it refers to."""

import base64
import datetime as dt
import gzip
import hashlib
import html.parser
import itertools
import json
import re
from collections import Counter
from typing import Any

import numpy as np
import pandas as pd
import pytest

import tuner
from tests.unit.sample_report import blank, card, hostile, sample_report
from tuner.report.cards import Card, Chapter, Cover, Report, Section, TableCard
from tuner.report.page import render
from tuner.report.plots import theme

HOSTILE = "</script><img src=x onerror=alert(1)>\"' {{ 7*7 }}"
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Outline(html.parser.HTMLParser):
    """What a browser makes of the page: its elements with their attributes, and its words."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(page)
        self.close()
        assert not self.open, "an element is not closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in {"script", "style"}:
            self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def unpacked(page: str, name: str) -> str:
    """What a script element holds in base64."""
    found = re.search(rf'id="{name}">([^<]*)</script>', page)
    assert found
    return gzip.decompress(base64.b64decode(found[1])).decode()


def without_blobs(page: str) -> str:
    return re.sub(r'(<script type="application/octet-stream"[^>]*>)[^<]*', r"\1", page)


def one_section(*cards: Any) -> str:
    section = Section("only", "Only", "Only", cards=list(cards))
    return render(Report("one", [Chapter("one", "One", Cover("", "Head", ""), [section])]))


def cells(frame: pd.DataFrame) -> list[str]:
    """The cells of a table card's table, row by row."""
    page = one_section(TableCard("it", "It", frame))
    body = page[page.index("<tbody>") : page.index("</tbody>")]
    return re.findall(r"<t[hd][^>]*>([^<]*)</t[hd]>", body)


@pytest.mark.parametrize("studies", [1, 3])
def test_outline(studies: int) -> None:
    """Ids are unique, links lead somewhere, there is one h1, and every figure has its words."""
    report = sample_report(studies=studies)
    outline = Outline(render(report))
    ids = Counter(attributes["id"] for _, attributes in outline.elements if "id" in attributes)
    assert ids.most_common(1)[0][1] == 1
    links = [attributes["href"] for attributes in outline.all("a")]
    assert links
    assert all(link and link.removeprefix("#") in ids for link in links)
    labels = [
        attributes["aria-labelledby"]
        for _, attributes in outline.elements
        if "aria-labelledby" in attributes
    ]
    assert all(label in ids for label in labels)
    assert len(outline.all("h1")) == 1
    assert outline.all("html") == [{"lang": "en-GB"}]
    for landmark in ("header", "nav", "main", "footer"):
        assert len(outline.all(landmark)) == 1
    pictures = [one for one in outline.all("div") if one.get("role") == "img"]
    assert [one["aria-label"] for one in pictures] == [one.alt for one in report.cards()]
    assert len(outline.all("figure")) == len(report.cards()) == 7 * studies


def test_headings_skip_no_level() -> None:
    outline = Outline(render(sample_report(studies=2)))
    levels = [int(tag[1]) for tag, _ in outline.elements if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


def test_chapters() -> None:
    """Several chapters: anchors begin with the chapter's key; one chapter: they do not."""
    assert 'id="factors"' in render(sample_report())
    page = render(sample_report(studies=2))
    assert 'id="mnist-0-factors"' in page
    assert 'id="mnist-1-history"' in page
    assert 'href="#mnist-1-factors"' in page
    assert Outline(page).text().count("Study mnist-1") == 3  # menu, its link, and the band


def test_keys_that_clash() -> None:
    outline = Outline(one_section(blank("only"), blank("only"), blank("said"), blank("title-only")))
    ids = [attributes["id"] for _, attributes in outline.elements if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_hostile_words() -> None:
    """Words of users stay words, wherever they stand."""
    report = hostile(sample_report(), HOSTILE)
    page = render(report)
    outline = Outline(page)
    assert not outline.all("img")
    assert not [
        name for _, attributes in outline.elements for name in attributes if name[:2] == "on"
    ]
    assert len(outline.all("script")) == 3
    assert HOSTILE in outline.text()
    figures = json.loads(unpacked(page, "figures"))["figures"]
    assert figures[0]["data"][0]["name"] == HOSTILE


def test_refers_to_nothing_outside() -> None:
    """Everything is in the page, and the page forbids itself the rest."""
    page = without_blobs(render(sample_report()))
    assert "http://" not in page
    assert "https://" not in page
    assert "@import" not in page
    assert "url(" not in page
    outline = Outline(page)
    assert not any("src" in attributes for _, attributes in outline.elements)
    policy = next(
        one["content"]
        for one in outline.all("meta")
        if one.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy
    script = page[page.index("<script>") + 8 : page.index("</script>")]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; script-src 'sha256-{digest}' blob: 'unsafe-eval';" in policy


def test_only_figures_that_compile_may() -> None:
    scatter = theme.new_figure().add_scatter(x=[1], y=[2])
    page = one_section(card("it", "It", scatter, pd.DataFrame({"a": [1]})))
    assert "unsafe-eval" not in page


def test_figures() -> None:
    """Figures are in the page as Plotly reads them, without the template that they share."""
    report = sample_report()
    content = json.loads(unpacked(render(report), "figures"))
    assert content["template"] == json.loads(json.dumps(theme.TEMPLATE.to_plotly_json()))
    assert content["dark"] == theme.dark_of()
    for drawing, one in zip(content["figures"], report.cards(), strict=True):
        assert drawing["id"] == f"{one.key}.plot"
        assert drawing["narrow"] == one.narrow
        assert "template" not in drawing["layout"]
    assert "bdata" in content["figures"][0]["data"][0]["x"]
    assert unpacked(render(report), "plotly").startswith("/**\n* plotly.js v")


def test_size() -> None:
    assert len(render(sample_report(100))) < 3e6
    assert len(render(sample_report(10_000))) < 8e6


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0228123456, "0.02281"),
        (0.5, "0.5"),
        (7.0, "7"),
        (-12345.678, "-12346"),
        (99999.5, "100000"),
        (0.0000123456, "1.235e-5"),
        (1.5e20, "1.5e20"),
        (0.0, "0"),
        (-0.0, "0"),
        (float("nan"), "\N{EN DASH}"),
        (float("inf"), "\N{INFINITY}"),
        (-np.inf, "-\N{INFINITY}"),
        (np.float64(0.123456), "0.1235"),
        (np.int64(1234567), "1234567"),
        (True, "yes"),
        (np.False_, "no"),
        (None, "\N{EN DASH}"),
        (pd.NaT, "\N{EN DASH}"),
        (pd.NA, "\N{EN DASH}"),
        (pd.Timestamp("2026-03-03 12:00:01.987"), "2026-03-03 12:00:01"),
        (dt.datetime(2026, 3, 3, 12, tzinfo=dt.UTC), "2026-03-03 12:00:00+00:00"),
        (pd.Timedelta(seconds=61.7), "0:01:02"),
        ("1e-3", "1e-3"),
        ([1, 2], "[1, 2]"),
        ("", ""),
    ],
)
def test_cells(value: object, shown: str) -> None:
    assert cells(pd.DataFrame({"x": pd.Series([value], dtype=object)})) == [shown]


def test_table_heads() -> None:
    """Numbers stand at the right; a named index is a column; rows and columns are named."""
    frame = pd.DataFrame(
        {
            "n": [1, 2],
            "ok": [True, False],
            "mixed": [1, "a"],
            "none": [None, None],
            "when": [pd.Timestamp(0), None],
        },
        index=pd.Index(["adam", "sgd"], name="level"),
    )
    page = one_section(TableCard("it", "A title", frame))
    assert '<th scope="col">level</th>' in page
    assert '<th scope="col" class="number">n</th>' in page
    assert '<th scope="col">ok</th>' in page
    assert '<th scope="col">mixed</th>' in page
    assert '<th scope="col">none</th>' in page
    assert '<th scope="col" class="when">when</th>' in page
    assert '<th scope="row">adam</th><td class="number">1</td><td>yes</td>' in page
    assert '<caption class="unseen">A title</caption>' in page


def test_long_tables() -> None:
    """Below a figure the first rows; a table that is a card is there in full."""
    frame = pd.DataFrame({"trial": range(1234)})
    figure = theme.new_figure().add_scatter(x=[1], y=[2])
    page = one_section(card("it", "It", figure, frame))
    assert page.count("<tr>") == 201
    assert "The first 200 of 1,234 rows." in page
    page = one_section(TableCard("it", "It", frame))
    assert page.count("<tr>") == 1235
    assert "The first" not in page


def test_empty_table() -> None:
    figure = theme.new_figure().add_scatter(x=[1], y=[2])
    assert "<tbody>" in one_section(card("it", "It", figure, pd.DataFrame({"a": []})))


def test_blank() -> None:
    outline = Outline(one_section(blank("gone")))
    (article,) = outline.all("article")
    assert article["class"] == "card blank spans"
    assert "They need 8 complete trials" in outline.text()
    assert not outline.all("figure")


def wide(one: Card) -> Card:
    return Card(**{**vars(one), "wide": True})


@pytest.mark.parametrize(
    ("kinds", "places"),
    [
        ("f", "F"),
        ("ff", "ff"),
        ("fff", "ffF"),
        ("fwf", "FwF"),
        ("ffwff", "ffwff"),
        ("fbf", "ffB"),
        ("fbbf", "ffbb"),
        ("fbw", "FBw"),
        ("bff", "Bff"),
        ("bbb", "bbB"),
        ("wb", "wB"),
        ("", ""),
    ],
)
def test_no_holes(kinds: str, places: str) -> None:
    """Cards fill rows of two columns; a capital letter is one that takes a row."""
    figure = theme.new_figure().add_scatter(x=[1], y=[2])
    plain = card("f", "It", figure, pd.DataFrame({"a": [1]}))
    makers = {"f": plain, "w": wide(plain), "b": blank("b")}
    classes = [
        str(one["class"]).split()
        for one in Outline(one_section(*(makers[kind] for kind in kinds))).all("article")
    ]
    assert len(classes) == len(places)
    for found, place in zip(classes, places, strict=True):
        assert ("spans" in found) == (place in "FBw")
        assert ("blank" in found) == (place in "bB")


def test_tiles_and_foot() -> None:
    page = render(sample_report())
    for word in ("undecided", "clear", "likely", "equal"):
        assert f'class="tile verdict-{word}"' in page
    assert "equal within 0.1 point</span>" in page
    text = Outline(page).text()
    assert f"Made by tuner {tuner.__version__} on" in text
    assert "This page needs no network." in text
    assert 'How this was computed</summary>\n<p class="text">A forest.\nOf trees.</p>' in page
