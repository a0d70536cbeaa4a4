"""A report as a study's would be, made by code: for tests of the page."""

import datetime as dt
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from plotly import graph_objects as go

from tuner.report.cards import (
    Blank,
    Card,
    Chapter,
    Cover,
    Fact,
    Report,
    Section,
    TableCard,
    Tile,
)
from tuner.report.plots import theme

OPTIMIZERS = ("Nesterov", "Adam", "AdamW", "Adagrad", "SGD", "RMSprop")
LONG_NAMES = (
    "orthogonal",
    "He normal, truncated at two standard deviations",
    "Glorot uniform with the gain of the rectifier",
    "LeCun normal",
    "random_normal_of_a_name_without_any_space_in_it",
)


def sample_report(trials: int = 100, studies: int = 1) -> Report:
    """A report with every kind of card.

    Args:
        trials: of the study.
        studies: each gives a chapter.
    """
    chapters = [
        chapter(f"mnist-{number}", f"Study mnist-{number}", trials) for number in range(studies)
    ]
    return Report("mnist: AdamW, Adam and Nesterov cannot be told apart", chapters)


def chapter(key: str, name: str, trials: int) -> Chapter:
    frame = results(trials)
    factors = Section(
        "factors",
        "What the search says about each choice",
        "Factors",
        lead="Each estimate assumes that every other setting is tuned for that choice.",
        tiles=tiles(),
        cards=[history(frame), best(frame)],
    )
    comparison = Section(
        "comparison",
        "Comparing techniques",
        "Comparison",
        lead="The search is adaptive: plain averages would compare tuned runs with untuned ones.",
        cards=[forest(), bars(), heat_map(), blank(), curves(frame), small_multiples(frame)],
    )
    everything = Section(
        "everything", "All settings at once", "Settings", cards=[parallel(frame), provenance()]
    )
    more = [
        Section(
            f"about-{short.lower()}",
            f"About the {short.lower()}",
            short,
            cards=[blank(f"no-{short}")],
        )
        for short in ("Interactions", "Confirmation", "Cost", "Importance", "Curves", "Noise")
    ]
    return Chapter(key, name, cover(trials), [factors, comparison, everything, *more])


def cover(trials: int) -> Cover:
    return Cover(
        "Study mnist, validation error (lower is better), 3 March 2026",
        "AdamW, Adam and Nesterov cannot be told apart; RMSprop, Adagrad and SGD are worse",
        "On 10 matched seeds, AdamW averages 0.59 % validation error and SGD 0.87 %. The search "
        "itself favoured Nesterov, but spent most trials there: its preference is weak evidence.",
        [
            Fact("Best validation error", "0.50 %", "trial 72 · 99.50 % accuracy"),
            Fact("Its test error", "0.53 %", "held out, same trial"),
            Fact("Trials", f"{trials:,}", "46 complete · 49 pruned · 5 failed"),
            Fact("Wall clock", "1.3 h", "2 workers · 2.6 h of compute"),
            Fact("Saved by pruning", "3.1 h"),
        ],
    )


def results(trials: int) -> pd.DataFrame:
    """Trials with their settings and errors, the same at each call."""
    random = np.random.default_rng(7)
    rate = 10 ** random.uniform(-5, -1, trials)
    error = 0.005 * np.exp(0.3 * (np.log10(rate) + 2.5) ** 2 + random.exponential(0.6, trials))
    return pd.DataFrame(
        {
            "trial": np.arange(trials),
            "optimizer": random.choice(OPTIMIZERS, trials),
            "initializer": random.choice(LONG_NAMES, trials),
            "learning rate": rate,
            "error": error,
            "pruned": error > np.quantile(error, 0.5),
            "started": pd.Timestamp("2026-03-03 12:00:00.123456")
            + pd.to_timedelta(np.arange(trials) * 61.7, unit="s"),
            "test error": np.where(error > np.quantile(error, 0.5), np.nan, error * 1.02),
        }
    )


def tiles() -> list[Tile]:
    return [
        Tile("Optimizer", "Nesterov", "undecided", "P(best) 0.32", "Not separable from Adam."),
        Tile(
            "Weight initialisation",
            "orthogonal",
            "clear",
            "P(best) 0.97",
            "Worst: 1.27 times the error.",
        ),
        Tile("Frozen layers", "1 frozen", "likely", "P(best) 0.83", "0.57 % tuned error."),
        Tile("Strategy", "warmup cosine", "equal within 0.1 point", "", "Choose what is simplest."),
    ]


def history(frame: pd.DataFrame) -> Card:
    figure = theme.new_figure(
        yaxis={"type": "log", "dtick": 1, "title": {"text": "validation error (log)"}}
    )
    kinds = (("pruned", frame["pruned"], "-open"), ("complete", ~frame["pruned"], ""))
    for role, chosen, suffix in kinds:
        rows = frame[chosen]
        figure.add_scatter(
            x=rows["trial"],
            y=rows["error"],
            mode="markers",
            name=f"{role} ({len(rows)})",
            marker={"symbol": f"circle{suffix}", "color": theme.LIGHT[role], "size": 8},
        )
    figure.add_scatter(
        x=frame["trial"],
        y=frame["error"].cummin(),
        name="best so far",
        line={"color": theme.LIGHT["ink"], "shape": "hv"},
    )
    figure.update_layout(
        xaxis={"title": {"text": "trial"}},
        shapes=[
            {
                "type": "rect",
                "x0": 0,
                "x1": 10,
                "y0": 0,
                "y1": 1,
                "yref": "paper",
                "layer": "below",
                "line": {"width": 0},
                "fillcolor": theme.faint(theme.LIGHT["pruned"], 0.2),
            }
        ],
    )
    return card("history", "The search stopped improving after trial 72", figure, frame)


def forest() -> Card:
    figure = theme.new_figure(
        height=420,
        xaxis={
            "type": "log",
            "title": {"text": "← better · validation error (log)"},
            "tickvals": [0.005, 0.007, 0.01],
            "ticktext": ["0.5 %", "0.7 %", "1 %"],
        },
        yaxis={
            "autorange": "reversed",
            "tickvals": list(range(len(LONG_NAMES))),
            "ticktext": [
                f"{name[:18]}<br><span style='color:{theme.LIGHT['muted']};font-size:11px'>"
                f"{place + 2} of 19 done</span>"
                for place, name in enumerate(LONG_NAMES)
            ],
        },
    )
    for place, name in enumerate(LONG_NAMES):
        middle = 0.0056 * 1.2**place
        figure.add_scatter(
            x=[middle],
            y=[place],
            error_x={"type": "data", "array": [middle / 4]},
            name=name,
            mode="markers",
            marker={
                "color": theme.level_colour(place),
                "symbol": theme.level_symbol(place),
                "size": 11,
            },
            showlegend=False,
        )
    table = pd.DataFrame({"error": [0.0056, 0.0067]}, index=pd.Index(["a", "b"], name="level"))
    made = card("forest", "Initialisation: orthogonal leads by less than the noise", figure, table)
    return replace(made, narrow={"xaxis.title.text": "validation error (log)"})


def bars() -> Card:
    figure = theme.new_figure(
        xaxis={"title": {"text": "share of the variance"}},
        yaxis={"autorange": "reversed", "tickvals": LONG_NAMES, "ticktext": wrapped(LONG_NAMES)},
    )
    shares = [0.51234567, 0.2, 0.11, 0.06, 0.01]
    figure.add_bar(
        orientation="h", y=LONG_NAMES, x=shares, marker={"color": theme.LIGHT["complete"]}
    )
    table = pd.DataFrame({"setting": LONG_NAMES, "share": shares})
    made = card("importance", "The learning rate matters most", figure, table)
    return replace(made, narrow={"xaxis.nticks": 3, "height": 520}, note="A forest.\nOf trees.")


def wrapped(names: tuple[str, ...]) -> list[str]:
    return [name[:18] + ("<br>" + name[18:36] if len(name) > 18 else "") for name in names]


def heat_map() -> Card:
    figure = theme.new_figure(height=400)
    values = np.linspace(0.005, 0.009, 24).reshape(4, 6)
    colours = [[place / 6, colour] for place, colour in enumerate(theme.CIVIDIS)]
    figure.add_heatmap(
        z=values, x=OPTIMIZERS, y=["0", "1", "2", "3"], colorscale=colours, texttemplate="%{z:.3f}"
    )
    figure.update_yaxes(title={"text": "frozen layers"}, type="category")
    table = pd.DataFrame(values, columns=list(OPTIMIZERS))
    made = card("heat", "Optimizer and frozen layers do not depend on each other", figure, table)
    return replace(
        made, narrow={"traces[0].showscale": False, "traces[0].texttemplate": "%{z:.2f}"}
    )


def curves(frame: pd.DataFrame) -> Card:
    figure = theme.new_figure(height=420, yaxis={"type": "log", "dtick": 1})
    epochs = np.arange(1, 13)
    for place, name in enumerate(OPTIMIZERS):
        colour = theme.level_colour(place)
        low = 0.006 + 0.2 / epochs ** (1.5 + place / 9)
        figure.add_scatter(x=epochs, y=low * 1.3, mode="lines", line={"width": 0}, showlegend=False)
        figure.add_scatter(
            x=epochs,
            y=low,
            name=name,
            mode="lines",
            fill="tonexty",
            fillcolor=theme.faint(colour, 0.2),
            line={"color": colour, "dash": theme.level_dash(place)},
        )
    figure.update_layout(
        xaxis={"title": {"text": "epoch"}},
        legend={"traceorder": "normal"},
        annotations=[{"x": 3, "y": -1.5, "text": "first rung", "showarrow": False}],
    )
    made = card("curves", "Most of the gain comes in three epochs", figure, frame)
    return replace(made, wide=True)


def small_multiples(frame: pd.DataFrame) -> Card:
    figure = theme.new_figure(height=360)
    figure.set_subplots(rows=1, cols=3, subplot_titles=OPTIMIZERS[:3], shared_yaxes=True)
    for place, name in enumerate(OPTIMIZERS[:3]):
        rows = frame[frame["optimizer"] == name]
        figure.add_scatter(
            x=rows["learning rate"],
            y=rows["error"],
            mode="markers",
            showlegend=False,
            marker={"color": theme.level_colour(place), "symbol": theme.level_symbol(place)},
            row=1,
            col=place + 1,
        )
    figure.update_xaxes(type="log", title={"text": "learning rate"})
    figure.update_yaxes(type="log", dtick=1)
    figure.update_xaxes(dtick=2)
    narrow = {f"xaxis{suffix}.nticks": 3 for suffix in ("", "2", "3")}
    made = card("rates", "Nesterov wants a larger learning rate", figure, frame)
    return replace(made, narrow=narrow)


def parallel(frame: pd.DataFrame) -> Card:
    figure = theme.new_figure(height=420, margin={"l": 60, "r": 40, "t": 60, "b": 24})
    codes = frame["optimizer"].astype("category").cat
    figure.add_parcoords(
        line={
            "color": np.log10(frame["error"]),
            "colorscale": [[0, theme.LIGHT["complete"]], [1, theme.LIGHT["grid"]]],
        },
        dimensions=[
            {
                "label": "Optimizer",
                "values": codes.codes,
                "tickvals": list(range(len(codes.categories))),
                "ticktext": list(codes.categories),
            },
            {"label": "log10(rate)", "values": np.log10(frame["learning rate"])},
            {"label": "Trial", "values": frame["trial"]},
            {"label": "log10(error)", "values": np.log10(frame["error"])},
        ],
    )
    made = card("parallel", "Good trials agree on the learning rate", figure, frame)
    return replace(made, wide=True, narrow={"traces[0].dimensions[2].visible": False})


def blank(key: str = "interactions") -> Blank:
    return Blank(
        key, "Interactions", "They need 8 complete trials for each pair of levels; there are 3."
    )


def best(frame: pd.DataFrame) -> TableCard:
    table = pd.DataFrame(
        {
            "Setting": ["Learning rate", "Optimizer", "Weight initialisation", "Seed", "Started"],
            "Value": [0.022812345, "nesterov", "he_normal", 1072, frame["started"][0]],
        }
    )
    return TableCard(
        "best",
        "Best configuration",
        table,
        "Expect about 0.59 % error on a new run, not 0.50 %: the best of many is partly luck.",
        "python -m tuner run --study mnist --storage sqlite:///a/rather/long/path/to/a/tuner.db "
        "--replay 72",
    )


def provenance() -> TableCard:
    names = ["tuner", "keras", "database", "digest"]
    values = ["0.1.0", "3.15", "SQLite", "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c1"]
    return TableCard(
        "provenance", "Provenance", pd.DataFrame({"What": names, "Which": values}), wide=True
    )


def card(key: str, title: str, figure: go.Figure, table: pd.DataFrame, **more: Any) -> Card:
    return Card(
        key,
        title,
        reading="Filled marks are complete runs; hollow ones were pruned, at their last value.",
        basis=f"{len(table)} rows. Pruned, diverged and failed trials are marked, not left out.",
        alt=f"{title}: a figure with {len(figure.data)} traces.",
        figure=figure,
        table=table,
        **more,
    )


def hostile(report: Report, words: str) -> Report:
    """The same report with the words wherever a user's words may stand."""
    first = report.chapters[0]
    section = first.sections[0]
    table = pd.DataFrame({words: [words, 1.5], "when": [dt.datetime(2026, 1, 1), None]})  # noqa: DTZ001
    figure = theme.new_figure().add_scatter(x=[words, "b"], y=[1, 2], name=words)
    evil = Section(
        words,
        words,
        words,
        words,
        [Tile(words, words, words, words, words)],
        [
            Card(words, words, words, words, words, figure, table, note=words),
            Blank(words, words, words),
            TableCard(words, words, table, words, words),
        ],
    )
    chapters = [
        Chapter(words, words, Cover(words, words, words, [Fact(words, words, words)]), [evil]),
        replace(first, sections=[section]),
    ]
    return Report(words, chapters)
