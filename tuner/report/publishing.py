"""A study's page in optuna-dashboard: its note, telling figures, and the best trial's model.

All of it is kept in the study's system attributes, by optuna-dashboard's own names. What changes is
written in one transaction, and nothing where nothing does.
"""

import contextlib
import re
from collections.abc import Mapping
from typing import Any

from tuner import wording
from tuner.artifacts import ARTIFACTS_ATTR_PREFIX, MODEL_FILE, OUR_FILE
from tuner.levels import in_words
from tuner.report import answer
from tuner.report.cards import Card
from tuner.report.compose import AnyCard, cards_of, mistake_cards
from tuner.report.figures import titled
from tuner.report.material import Material
from tuner.report.plots import best, expected, forest, history, leaders, pareto, words
from tuner.report.plots.facts import score_label, score_text, shown_best
from tuner.report.reading import files_of, read_materials
from tuner.storage import (
    Address,
    Database,
    change_shown,
    find_study,
    open_database,
    read_artifact_attrs,
)
from tuner.storage.shown import graph_change, note_change, note_of

# The dashboard crops what is higher, in pixels; its panels are half as wide as its page, and have
# buttons at the top.
HEIGHT, WIDTH, BUTTONS = 430, 56, 36
# They are kept in the study's attributes, so they are few.
FIGURES = 6
# A figure's id is this and its place: what begins so is ours.
GRAPH_ID = "tuner-"
# What is between these lines of the note is ours. They define links that nobody uses, which
# Markdown shows nowhere.
BEGIN, END = '[tuner-begin]: # "what follows is replaced"', '[tuner-end]: # "until here"'
# The last line between them, by which our part is known to end where somebody removed a mark.
_LAST_LINE = (
    "*`tuner run` and `tuner report --publish` renew this part of the note; what you write before "
    "or after it stays.*"
)
_MARKDOWN = re.compile(r"[\\`*_\[\]<>#|!~&$]")  # $: optuna-dashboard sets formulas
_MOST_LEVELS = 20  # of a parameter, named in the note


def publish_study(study: str, storage: str | Address, artifacts: str) -> None:
    """Read a study and bring its page up to date.

    Args:
        study: its name in the database.
        storage: the database.
        artifacts: the artifact store with the best trial's files.

    Raises:
        UsageError: there is no such study.
        StorageError: the database cannot be written.
    """
    with contextlib.closing(open_database(storage, create=False)) as database:
        for material in read_materials(database, [study], artifacts):
            publish(database, material)


def publish(database: Database, material: Material) -> str:
    """Bring the study's page up to date: note, figures, and the link to the best trial's model.

    What people wrote into the note themselves stays, and so do figures and files that are not ours.

    Returns:
        A sentence for the user.

    Raises:
        StorageError: the database cannot be written.
    """
    results = material.results
    study_id = find_study(database, results.study)
    cards = [it for it in _telling(material) if isinstance(it, Card)][:FIGURES]
    figures = {f"{GRAPH_ID}{place}": _figure_json(it) for place, it in enumerate(cards, 1)}
    text = note(material)
    model = {}
    if results.best is not None:
        model = _model_of(read_artifact_attrs(database, study_id, results.best))

    def change(there: Mapping[str, Any]) -> dict[str, Any]:
        return (
            note_change(there, renewed(note_of(there)[1], text))
            | graph_change(there, figures, GRAPH_ID)
            | _model_change(there, model)
        )

    change_shown(database, study_id, change)
    what = ["the verdict", wording.count(len(figures), "figure")]
    what += ["the best trial's model"] if model else []
    return f"optuna-dashboard shows {words.joined(what)} with {results.study}."


def _figure_json(card: Card) -> str:
    figure = titled(card, width=WIDTH, above=BUTTONS).update_layout(height=HEIGHT)
    text: str = figure.to_json()
    return text


def _telling(material: Material) -> list[AnyCard]:
    """The search, its best trials, their model's mistakes, the factor with the surest verdict.

    Of several objectives: the trials that no other beats, and the search.
    """
    results = material.results
    if len(results.directions) > 1:
        return [
            *cards_of("pareto", "Pareto front", lambda: pareto.pareto(results)),
            *cards_of("history", "Search", lambda: history.history(results)),
        ]
    cards = [
        *cards_of("history", "Search", lambda: history.history(results)),
        *cards_of("leaders", "Best trials", lambda: leaders.leaders(results)),
        *mistake_cards(material),
    ]
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


def renewed(body: str, text: str) -> str:
    """A note with our part renewed; what else is in it stays, also where a mark was removed.

    Args:
        body: the note as it is.
        text: our part.
    """
    ours = f"{BEGIN}\n\n{text}\n\n{END}"
    before, begin, rest = body.partition(BEGIN)
    for last in (END, _LAST_LINE):
        mine, end, after = rest.partition(last)
        if begin and end and BEGIN not in mine:
            return f"{before}{ours}{after}"
    if begin:  # nothing tells where our part ended: rather twice than lost
        return renewed(f"{before}{rest}", text)
    return f"{body.rstrip()}\n\n{ours}" if body.strip() else ours


def _model_of(attrs: Mapping[str, str]) -> dict[str, str]:
    """The attribute by which a trial names its model; empty if it has none."""
    keys = {
        f"{ARTIFACTS_ATTR_PREFIX}{artifact_id}"
        for artifact_id, name in files_of(attrs).items()
        if name == MODEL_FILE
    }
    return {key: text for key, text in attrs.items() if key in keys}


def _model_change(there: Mapping[str, Any], model: Mapping[str, str]) -> dict[str, Any]:
    """The model's own attribute for the study, too; that of an earlier best trial goes."""
    ours = {key: value for key, value in model.items() if _is_ours(key)}
    return {key: None for key in there if _is_ours(key)} | ours


def _is_ours(attr: str) -> bool:
    """Whether an attribute names a file that a worker of ours stored."""
    prefix, _, artifact_id = attr.rpartition(":")
    return f"{prefix}:" == ARTIFACTS_ATTR_PREFIX and OUR_FILE.fullmatch(artifact_id) is not None


def note(material: Material) -> str:
    """Our part of the study's note, in Markdown."""
    lines = [f"## {_escaped(answer.headline(material))}", "", _escaped(answer.lead(material)), ""]
    command = answer.settling_command(material)
    if command and not (BEGIN in command or END in command):
        lines += [_code(command), ""]
    if material.judged:
        lines += ["| | leads | verdict | |", "|---|---|---|---|"]
        for it in material.judged:
            shown = answer.tile(material, it)
            cells = (shown.label, shown.leader, shown.word, shown.detail)
            lines.append("| " + " | ".join(map(_escaped, cells)) + " |")
        lines.append("")
    lines += [*_searched(material), *_made_by(material)]
    lines.append(_LAST_LINE)
    return "\n".join(lines)


def _searched(material: Material) -> list[str]:
    """The parameters with their ranges, and the best trial's values beside them."""
    results = material.results
    if not results.distributions:
        return []
    found = {} if results.best is None else best.params_of(results, results.best)
    last = ""
    lines = []
    if results.best is not None:
        value = score_text(results.scale, shown_best(results))
        label = score_label(results.scale)
        lines = [f"**Best: {_escaped(label)} {_escaped(value)}, trial {results.best}**", ""]
        last = f"trial {results.best}"
    lines += [f"| parameter | searched among | {last} |", "|---|---|---|"]
    for name, distribution in results.distributions.items():
        value = wording.number(found[name]) if name in found else ""
        cells = (name, _range(in_words(distribution)), value)
        lines.append("| " + " | ".join(map(_escaped, cells)) + " |")
    return [*lines, ""]


def _range(text: str) -> str:
    """What is searched; of very many levels the first."""
    levels = text.split(", ")
    if len(levels) <= _MOST_LEVELS:
        return text
    return ", ".join(levels[:_MOST_LEVELS]) + f" and {len(levels) - _MOST_LEVELS} more"


def _made_by(material: Material) -> list[str]:
    results = material.results
    command = best.command_of(results)
    if command and (BEGIN in command or END in command):
        command = ""  # a study's name would end our part of the note
    lines = [_escaped(f"{words.trials_text(results)}."), ""]
    return [*lines, f"The same search again: {_code(command)}", ""] if command else lines


def _escaped(text: str) -> str:
    """Names of studies and levels are no Markdown."""
    return _MARKDOWN.sub(r"\\\g<0>", " ".join(text.split()))


def _code(text: str) -> str:
    """A command line, which wraps on a narrow page as no block of code does."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence, room = "`" * (longest + 1), " " if longest else ""
    return f"{fence}{room}{' '.join(text.split())}{room}{fence}"
