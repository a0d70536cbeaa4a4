"""The page in a browser, opened from a file, without a network."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.browser import Page, open_page
from tests.unit.sample_report import cover, hostile, parallel, results, sample_report
from tuner.report.cards import Chapter, Report, Section
from tuner.report.page import render
from tuner.report.plots import theme

HOSTILE = "</script><img src=x onerror=document.documentElement.dataset.hacked=1>"
SETTLED = """(() => {
  const {figures, drawn, failed} = document.documentElement.dataset;
  return figures && +drawn + +failed === +figures;
})()"""

# The words whose contrast with what is behind them is too small.
FAINT = """(() => {
  const channels = (colour) => {
    const numbers = colour.match(/[\\d.]+/g).map(Number);
    const shares = colour.startsWith("color(");
    return numbers.map((one, at) => shares && at < 3 ? one * 255 : one);
  };
  const luminance = (colour) => {
    const [red, green, blue] = colour.slice(0, 3).map((one) => {
      const share = one / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = channels(getComputedStyle(at).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const faint = new Set();
  for (const element of document.querySelectorAll("body *:not(script, noscript, .plot, .plot *)")) {
    const words = [...element.childNodes].some((one) => one.nodeType === 3 && one.data.trim());
    if (!words) continue;
    const [low, high] = [channels(getComputedStyle(element).color), ground(element)]
      .map(luminance).sort((one, other) => one - other);
    const contrast = (high + 0.05) / (low + 0.05);
    if (contrast < 4.5) faint.add(`${element.tagName} ${element.className} ${contrast.toFixed(2)}`);
  }
  return [...faint];
})()"""
# Figures and tables that reach beyond their card.
BEYOND = """(() => {
  const right = (one) => one.getBoundingClientRect().right;
  return [...document.querySelectorAll('.plot svg.main-svg, .scroll')]
    .filter((one) => right(one) > right(one.closest('.card')) + 1).length;
})()"""
# What a browser may lack.
NO_DRAWING = """Object.defineProperty(window, 'Plotly', {
  get: () => ({react() { throw new Error('no'); }}), set() {},
});"""
NO_WEBGL = """(() => {
  const get = HTMLCanvasElement.prototype.getContext;
  HTMLCanvasElement.prototype.getContext = function (kind, ...more) {
    return kind === '2d' ? get.call(this, kind, ...more) : null;
  };
})();"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    file = tmp_path_factory.mktemp("page") / "report.html"
    file.write_text(render(sample_report()), encoding="utf-8")
    with open_page(file, 1400) as opened:
        opened.wait_for(SETTLED)
        yield opened


def look(page: Page, width: int, *, dark: bool = False) -> None:
    """Show the page with this width and preference, and wait for its figures."""
    page.emulate(width, dark=dark)
    wanted = f"{'narrow' if width < 600 else 'wide'} {'dark' if dark else 'light'}"
    page.wait_for(
        f"[...document.querySelectorAll('.plot')].every((one) => one.dataset.look === '{wanted}')"
    )


def css(colour: str) -> str:
    """A colour as a browser writes it: ``rgb(1, 2, 3)``."""
    return theme.faint(colour, 1).replace("rgba", "rgb").replace(",1)", ")").replace(",", ", ")


def quiet(page: Page) -> None:
    """Nothing failed, nothing was logged, and no network was asked for."""
    assert page.evaluate("document.documentElement.dataset.failed") == "0"
    assert page.console == []
    assert page.requests == []


def test_draws_every_figure(page: Page) -> None:
    data = page.evaluate("({...document.documentElement.dataset})")
    assert data == {"figures": "7", "drawn": "7", "failed": "0"}
    assert page.evaluate("document.querySelectorAll('.plot .main-svg').length") >= 7
    assert page.evaluate("document.querySelectorAll('.plot canvas').length") >= 1
    # Nothing that would send data elsewhere.
    buttons = (
        "[...new Set([...document.querySelectorAll('.modebar-btn')].map(b => b.dataset.title))]"
    )
    assert page.evaluate(buttons) == ["Download plot as a PNG"]
    quiet(page)


@pytest.mark.soak
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize(
    "width",
    [
        1400,
        *(pytest.param(it, marks=pytest.mark.soak) for it in (1000, 768)),
        390,
        320,
    ],
)
def test_fits_every_width(page: Page, width: int, dark: bool) -> None:
    look(page, width, dark=dark)
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    widths = "[innerWidth, document.documentElement.scrollWidth]"
    assert page.evaluate(widths) == [width, width]
    assert page.evaluate(BEYOND) == 0
    assert page.evaluate(FAINT) == []
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = false; })")
    quiet(page)


def test_follows_the_readers_colours(page: Page) -> None:
    colours = """['#history .point', '#history .legendtext', '#forest .ytick tspan tspan']
      .map((one) => getComputedStyle(document.querySelector(one)).fill)"""
    seen = {}
    for dark in (False, True):
        look(page, 1400, dark=dark)
        seen[dark] = page.evaluate(colours)

    assert seen[False][1:] == [css(theme.LIGHT[role]) for role in ("ink", "muted")]
    assert seen[True][1:] == [css(theme.DARK[role]) for role in ("ink", "muted")]
    grounds = page.evaluate("getComputedStyle(document.querySelector('.card')).backgroundColor")
    assert grounds == css(theme.DARK["surface"])
    quiet(page)


@pytest.mark.soak
def test_narrow_figures(page: Page) -> None:
    """A phone gets the narrow layout, and a figure does not hold the finger; a desk the other."""
    facts = """(() => {
      const bars = document.getElementById('importance.plot');
      const lines = document.getElementById('parallel.plot');
      return [bars._fullLayout.height, bars._fullLayout.xaxis.nticks, bars._fullLayout.dragmode,
        document.getElementById('heat.plot')._fullData[0].showscale,
        lines._fullData[0].dimensions[2].visible];
    })()"""
    look(page, 390)
    assert page.evaluate(facts) == [520, 3, False, False, False]
    look(page, 1400)
    assert page.evaluate(facts) == [theme.HEIGHT, 0, "zoom", True, True]
    quiet(page)


@pytest.mark.soak
def test_prints(page: Page, tmp_path: Path) -> None:
    """On paper figures are as wide as the paper, light, and afterwards as they were.

    The one on canvas is not drawn again, but shrunk with its ground.
    """
    look(page, 1400, dark=True)
    before = page.evaluate("document.querySelector('.plot .main-svg').clientWidth")
    page.evaluate(
        "addEventListener('beforeprint', () => { window.looks ="
        "[...document.querySelectorAll('.plot')].map((one) => "
        "[one.querySelector('.main-svg').getAttribute('width'), one._fullLayout.font.color]); })"
    )
    page.pdf(tmp_path / "page.pdf")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")
    looks = page.evaluate("window.looks")
    assert looks[:-1] == [["660", theme.LIGHT["ink"]]] * 6
    assert looks[-1][1] == css(theme.DARK["ink"]).replace(" ", "")
    look(page, 1400, dark=True)
    assert page.evaluate("document.querySelector('.plot .main-svg').clientWidth") == before
    quiet(page)


def test_copies_the_command(page: Page) -> None:
    look(page, 1400)
    page.evaluate("document.querySelector('.copy').click()")
    page.wait_for("document.querySelector('.copy').textContent === 'Copied'")
    assert page.evaluate("document.getElementById('said').textContent") == "Copied"
    quiet(page)


def test_hostile_words_stay_words(tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.write_text(render(hostile(sample_report(20), HOSTILE)), encoding="utf-8")
    with open_page(file, 390) as opened:
        opened.wait_for(SETTLED)
        assert opened.evaluate("document.querySelectorAll('img').length") == 0
        assert opened.evaluate("document.documentElement.dataset.hacked") is None
        widths = opened.evaluate("[innerWidth, document.documentElement.scrollWidth]")
        assert widths == [390, 390]
        quiet(opened)


def test_chapters(tmp_path: Path) -> None:
    """The menus open one at a time, lead to their sections, and fit a phone."""
    file = tmp_path / "report.html"
    file.write_text(render(sample_report(20, studies=3)), encoding="utf-8")
    with open_page(file, 390) as opened:
        opened.wait_for(SETTLED)
        for number in (1, 2):
            opened.evaluate(f"document.querySelectorAll('nav summary')[{number}].click()")
        assert opened.evaluate("document.querySelectorAll('nav details[open]').length") == 1
        widths = opened.evaluate("[innerWidth, document.documentElement.scrollWidth]")
        assert widths == [390, 390]
        seen = """(() => {
          const link = document.querySelector('nav [open] li a');
          const {x, y} = link.getBoundingClientRect();
          return document.elementFromPoint(x + 12, y + 12) === link;
        })()"""
        assert opened.evaluate(seen)
        opened.evaluate("document.querySelector('nav [open] li a').click()")
        assert opened.evaluate("location.hash") == "#mnist-2-factors"
        assert opened.evaluate("document.querySelectorAll('nav details[open]').length") == 0
        quiet(opened)


@pytest.mark.parametrize(
    ("lost", "script", "said"),
    [
        ("unpacking", "delete window.DecompressionStream", 7),
        ("drawing", NO_DRAWING, 7),
        ("WebGL", NO_WEBGL, 1),
    ],
)
def test_words_remain_without_figures(tmp_path: Path, lost: str, script: str, said: int) -> None:
    """Where figures cannot be drawn, what they show is said."""
    file = tmp_path / "report.html"
    file.write_text(render(sample_report(20)), encoding="utf-8")
    with open_page(file, 1400) as opened:
        opened.call("Page.addScriptToEvaluateOnNewDocument", source=script)
        opened.open(file)
        if lost == "unpacking":
            opened.wait_for("document.getElementById('no-figures').checkVisibility()")
        else:
            opened.wait_for(SETTLED)
            assert opened.evaluate("document.documentElement.dataset.failed") == str(said)
        alts = "[...document.querySelectorAll('.plot .alt')]"
        assert opened.evaluate(f"{alts}.filter((one) => one.checkVisibility()).length") == said
        assert opened.console


@pytest.mark.soak
def test_many_figures_on_canvas(tmp_path: Path) -> None:
    """More than a browser has WebGL contexts for: those in view are there."""
    file = tmp_path / "report.html"
    section = Section("all", "All", "All", cards=[parallel(results(20))] * 8)
    chapter = Chapter("it", "It", cover(20), [section])
    file.write_text(render(Report("many", [chapter])), encoding="utf-8")
    with open_page(file, 1400) as opened:
        opened.wait_for(SETTLED)
        for dark in (True, False, True):
            opened.emulate(1400, dark=dark)
            for place in (0, 7, 3):
                plot = f"document.querySelectorAll('.plot')[{place}]"
                opened.evaluate(f"{plot}.scrollIntoView({{behavior: 'instant'}})")
                opened.wait_for(
                    f"{plot}.dataset.look === 'wide {'dark' if dark else 'light'}'"
                    f" && {plot}.querySelector('canvas') !== null"
                )
        opened.wait_for("document.querySelectorAll('.asleep .alt').length === 4")
        quiet(opened)
