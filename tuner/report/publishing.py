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
from tuner.report.plots import forest, history, response
from tuner.storage import Database, storage_errors

# The dashboard crops what is higher, in pixels.
HEIGHT = 430
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
            figure = titled(card).update_layout(height=HEIGHT)
            optuna_dashboard.save_plotly_graph_object(
                study, figure, graph_object_id=f"tuner-{place + 1}"
            )
    return (
        f"optuna-dashboard shows the verdict and {wording.count(len(cards), 'figure')} with "
        f"{results.study}."
    )


def _telling(material: Material) -> list[object]:
    """The search, the factor with the surest verdict, and the learning rate."""
    results = material.results
    cards: list[object] = [*cards_of("history", "Search", lambda: history.history(results))]
    for it in sorted(material.judged, key=lambda it: -it.verdict.p_best)[:1]:
        cards += cards_of(
            "forest", it.factor.label,
            lambda it=it: forest.forest(  # type: ignore[misc]
                results, material.model, it.factor, it.tuned, it.verdict.word
            ),
        )  # fmt: skip
    cards += cards_of("response", "Response", lambda: response.response(results, material.model))
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
