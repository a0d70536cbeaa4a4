"""The report's figures for a notebook: each function takes results and gives a Plotly figure.

    results = tuner.report.load("mnist", "sqlite:///tuner.db")
    figures.history(results)
    figures.forest(results, "optimizer")

Each raises `CannotDraw` where there is nothing to show, with a sentence that says why.
"""

from collections.abc import Sequence
from functools import lru_cache

from plotly import graph_objects as go

from tuner.report.cards import CannotDraw, Card
from tuner.report.material import Material
from tuner.report.plots import confirmation as _confirmation
from tuner.report.plots import cost as _cost
from tuner.report.plots import curves as _curves
from tuner.report.plots import expected as _expected
from tuner.report.plots import failures as _failures
from tuner.report.plots import forest as _forest
from tuner.report.plots import history as _history
from tuner.report.plots import importance as _importance
from tuner.report.plots import interactions as _interactions
from tuner.report.plots import leaders as _leaders
from tuner.report.plots import parallel as _parallel
from tuner.report.plots import pareto as _pareto
from tuner.report.plots import response as _response
from tuner.report.plots import savings as _savings
from tuner.report.plots import spending as _spending
from tuner.report.plots import studies as _studies
from tuner.report.plots import theme
from tuner.report.plots import timeline as _timeline
from tuner.report.results import Results

# Of a title: characters in a line, and a line's height in pixels.
TITLE_WIDTH, _TITLE_LINE = 80, 22


def titled(card: Card, *, width: int = TITLE_WIDTH, above: int = 12) -> go.Figure:
    """A card's figure with its finding as title, on a ground of its own: it needs no page.

    Args:
        card: what to show.
        width: characters in a line of the title.
        above: pixels that stay free above it.
    """
    lines = _lines(theme.plain(card.title), width)
    top = _TITLE_LINE * len(lines) + 4 + above
    figure = go.Figure(card.figure)
    layout = figure.layout
    figure.update_layout(
        title={
            "text": "<br>".join(lines), "x": 0.01, "xanchor": "left", "y": 1, "yref": "container",
            "yanchor": "top", "pad": {"t": above}, "font": {"size": 16},
        },
        paper_bgcolor=theme.LIGHT["surface"],
        height=(layout.height or theme.HEIGHT) + top,
        margin_t=(layout.margin.t or theme.TEMPLATE.layout.margin.t) + top,
    )  # fmt: skip
    return figure


def _lines(title: str, width: int) -> list[str]:
    lines = [""]
    for word in title.split():
        if lines[-1] and len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


@lru_cache(maxsize=8)
def _material(results: Results) -> Material:
    """The model is fitted once for all figures of these results."""
    return Material(results)


def history(results: Results) -> go.Figure:
    """Every trial's value, and the best so far."""
    return titled(_history.history(results))


def forest(results: Results, factor: str) -> go.Figure:
    """A factor's levels, each with all else tuned for it, over the runs.

    Raises:
        KeyError: the study has no such factor.
    """
    material = _material(results)
    model, wanted = material.model, results.factor(factor)
    it = next((it for it in material.judged if it.factor == wanted), None)
    if it is None:
        raise CannotDraw("A study with several objectives has no best level.")
    return titled(_forest.forest(results, model, wanted, it.tuned, it.verdict.word))


def expected(results: Results, factor: str) -> go.Figure:
    """What a random search of each level would find, against its number of trials.

    Raises:
        KeyError: the study has no such factor.
    """
    return titled(_expected.expected(results, _material(results).model, results.factor(factor)))


def interactions(results: Results) -> list[go.Figure]:
    """Two factors at once, as heat maps: at most three pairs."""
    return [titled(it) for it in _interactions.interactions(results, _material(results).model)]


def response(results: Results) -> go.Figure:
    """The response to the learning rate, for each level of the leading factor."""
    return titled(_response.response(results, _material(results).model))


def curves(results: Results) -> go.Figure:
    """Learning curves."""
    return titled(_curves.curves(results))


def leaders(results: Results) -> go.Figure:
    """Learning curves of the best trials, before those of the others."""
    return titled(_leaders.leaders(results))


def parallel(results: Results) -> go.Figure:
    """All settings of all trials, as parallel coordinates."""
    return titled(_parallel.parallel(results))


def importance(results: Results) -> go.Figure:
    """Importances with intervals."""
    return titled(_importance.importance(results))


def spending(results: Results) -> list[go.Figure]:
    """Where the budget went, one figure a factor."""
    adaptive = _material(results).adaptive
    return [titled(it) for it in _spending.spending(results, adaptive=adaptive)]


def timeline(results: Results) -> go.Figure:
    """What each worker did when."""
    return titled(_timeline.timeline(results))


def savings(results: Results) -> go.Figure:
    """Time spent, and time saved by pruning."""
    return titled(_savings.savings(results))


def cost(results: Results) -> go.Figure:
    """Duration against quality."""
    return titled(_cost.cost(results))


def failures(results: Results) -> list[go.Figure]:
    """What failed or diverged, with Wilson intervals."""
    return [titled(it) for it in _failures.failures(results)]


def pareto(results: Results) -> go.Figure:
    """The trials of several objectives that no other beats in all."""
    return titled(_pareto.pareto(results))


def confirmation(confirm: Results, source: Results | None = None) -> list[go.Figure]:
    """Configurations that were run again on shared seeds.

    Args:
        confirm: of the study that ran them again.
        source: of the study in which they were found.
    """
    cards = _confirmation.confirmation(confirm, source)
    return [titled(it) for it in cards]


def side_by_side(all_results: Sequence[Results]) -> list[go.Figure]:
    """The best so far of several studies, against trials and against compute."""
    return [titled(it) for it in _studies.side_by_side(all_results)]
