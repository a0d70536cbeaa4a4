"""The verdict and the most telling figures of a study, where optuna-dashboard shows them."""

import re

import optuna
import optuna_dashboard

from tuner import wording
from tuner.report import answer
from tuner.report.cards import Card
from tuner.report.compose import cards_of
from tuner.report.figures import titled
from tuner.report.material import Material
from tuner.report.plots import expected, forest, history
from tuner.storage import Database, storage_errors

# The dashboard crops what is higher, in pixels; its panels are half as wide as its page, and have
# buttons at the top.
HEIGHT, WIDTH, BUTTONS = 430, 56, 36
# They are kept in the study's attributes, so they are few.
FIGURES = 3
_MARKDOWN = re.compile(r"[\\`*_\[\]<>#|!~&]")


def publish(database: Database, material: Material) -> str:
    """Write the study's note and figures; those of an earlier time are replaced.

    Returns:
        A sentence for the user.

    Raises:
        StorageError: the database cannot be written.
    """
    results = material.results
    cards = [it for it in _telling(material) if isinstance(it, Card)][:FIGURES]
    with storage_errors(database.url):
        study = optuna.load_study(study_name=results.study, storage=database.storage)
        optuna_dashboard.save_note(study, note(material))
        for place, card in enumerate(cards):
            figure = titled(card, width=WIDTH, above=BUTTONS).update_layout(height=HEIGHT)
            optuna_dashboard.save_plotly_graph_object(
                study, figure, graph_object_id=f"tuner-{place + 1}"
            )
    return (
        f"optuna-dashboard shows the verdict and {wording.count(len(cards), 'figure')} with "
        f"{results.study}."
    )


def _telling(material: Material) -> list[object]:
    """The search, and the factor with the surest verdict."""
    results = material.results
    cards: list[object] = [*cards_of("history", "Search", lambda: history.history(results))]
    if material.judged:
        it = max(material.judged, key=lambda it: it.verdict.p_best)
        cards += cards_of(
            "forest",
            it.factor.label,
            lambda: forest.forest(results, material.model, it.factor, it.tuned, it.verdict.word),
        )
        cards += cards_of(
            "expected",
            it.factor.label,
            lambda: expected.expected(results, material.model, it.factor),
        )
    return cards


def note(material: Material) -> str:
    """The study's note, in Markdown."""
    lines = [f"## {_escaped(answer.headline(material))}", "", _escaped(answer.lead(material)), ""]
    if command := answer.settling_command(material):
        lines += [f"    {command}", ""]
    if material.judged:
        lines += ["| | leads | verdict | |", "|---|---|---|---|"]
        for it in material.judged:
            shown = answer.tile(material, it)
            cells = (shown.label, shown.leader, shown.word, shown.detail)
            lines.append("| " + " | ".join(map(_escaped, cells)) + " |")
        lines.append("")
    lines.append("Written by `python -m tuner.report --publish`.")
    return "\n".join(lines)


def _escaped(text: str) -> str:
    """Names of studies and levels are no Markdown."""
    return _MARKDOWN.sub(r"\\\g<0>", " ".join(text.split()))
