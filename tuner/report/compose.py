"""The report of a study: which cards, in which sections, and the answer in words on top."""

import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from tuner import wording
from tuner.report import answer
from tuner.report.cards import (
    Blank,
    CannotDraw,
    Card,
    Chapter,
    Cover,
    Report,
    Section,
    TableCard,
)
from tuner.report.material import Judged, Material
from tuner.report.plots import (
    best,
    confirmation,
    confusion,
    cost,
    curves,
    expected,
    facts,
    failures,
    forest,
    history,
    importance,
    interactions,
    parallel,
    pareto,
    response,
    savings,
    spending,
    studies,
    timeline,
    worst,
)
from tuner.report.results import ENDED, Results

_log = logging.getLogger(__name__)

AnyCard = Card | Blank | TableCard
Made = Card | TableCard | Sequence[Card | TableCard]


def compose(materials: Sequence[Material]) -> Report:
    """The report of one study, or of several side by side.

    Args:
        materials: one for each study, in the order in which they were named.
    """
    chapters = [_chapter(it) for it in materials]
    if len(materials) == 1:
        return Report(f"{materials[0].results.study}: report", chapters)
    together = _together([it.results for it in materials])
    names = ", ".join(it.results.study for it in materials)
    return Report(f"{names}: report", [together, *chapters])


def cards_of(key: str, title: str, make: Callable[[], Made]) -> list[AnyCard]:
    """Make cards; what cannot be made says why in its place, and never loses the page."""
    try:
        made = make()
    except CannotDraw as error:
        return [Blank(key, title, str(error))]
    except Exception as error:  # noqa: BLE001 - one broken figure must not lose the page
        _log.exception("The figure %s failed", key)
        return [_mistake(key, title, error)]
    return [made] if isinstance(made, Card | TableCard) else list(made)


def _chapter(material: Material) -> Chapter:
    results = material.results
    made = [
        _section("verdict", lambda: _verdicts(material)),
        _section("confirmation", lambda: _confirmation(material)),
        _section("pareto", lambda: _pareto(results)),
        _section("search", lambda: _search(material)),
        _section("factors", lambda: _comparisons(material)),
        _section("interactions", lambda: _dependence(material)),
        _section("curves", lambda: _curves(results)),
        _section("mistakes", lambda: _mistakes(material)),
        _section("importance", lambda: _weights(material)),
        _section("cost", lambda: _costs(results)),
        _section("failures", lambda: _failures(results)),
        _section("provenance", lambda: _origin(material)),
    ]
    sections = [it for it in made if it]
    return Chapter(results.study, results.study, _cover(material), sections)


def _section(key: str, make: Callable[[], Section | None]) -> Section | None:
    """A section, or in its place why it failed: its words must not lose the page either."""
    try:
        return make()
    except Exception as error:  # noqa: BLE001 - one broken section must not lose the page
        _log.exception("The section %s failed", key)
        return Section(key, key.capitalize(), key.capitalize(), cards=[_mistake(key, key, error)])


def _mistake(key: str, title: str, error: Exception) -> Blank:
    return Blank(
        key,
        title,
        f"This could not be made, by a mistake in the report: {type(error).__name__}: {error}. "
        "The rest of the page is not touched by it.",
    )


def _cover(material: Material) -> Cover:
    results = material.results
    direction = "lower is better" if results.directions[0] == "minimize" else "higher is better"
    what = (
        f"{results.metric} ({direction})"
        if len(results.directions) == 1
        else wording.count(len(results.directions), "objective")
    )
    eyebrow = f"Study {results.study} · {what} · {datetime.now(UTC):%d %B %Y}"
    try:
        return Cover(
            eyebrow=eyebrow,
            headline=answer.headline(material),
            lead=answer.lead(material),
            command=answer.settling_command(material),
            facts=facts.key_facts(results, _saved(results)),
        )
    except Exception as error:  # noqa: BLE001 - nor may its words
        _log.exception("The cover failed")
        return Cover(eyebrow, f"Report on {results.study}", _mistake("", "", error).why)


def _saved(results: Results) -> str:
    """The time that pruning saved, in words; "" if that is not known."""
    try:
        pruning = savings.saved_by_pruning(results)
    except CannotDraw:
        return ""
    return savings.about(pruning.saved) if pruning else ""


def _verdicts(material: Material) -> Section | None:
    if not material.judged:
        return None
    return Section(
        "verdict",
        "What the search says about each choice",
        "Verdict",
        answer.how_to_read(),
        tiles=[answer.tile(material, it) for it in material.judged],
    )


def _confirmation(material: Material) -> Section | None:
    confirm = material.confirm
    if confirm is None:
        return None
    return Section(
        "confirmation",
        "Confirmation on equal terms",
        "Confirmation",
        "The same configurations, run again without pruning on seeds that they share. Nothing was "
        "chosen by these runs, so ordinary paired statistics hold, and they lead.",
        cards=cards_of(
            "confirmed", "Confirmation",
            lambda: confirmation.confirmation(confirm, material.results),
        ),
    )  # fmt: skip


def _search(material: Material) -> Section:
    results = material.results
    return Section(
        "search",
        "How the search went",
        "Search",
        cards=[
            *cards_of("history", "Search history", lambda: history.history(results)),
            *cards_of(
                "best", "Best configuration",
                lambda: best.best_configuration(results, answer.expected_again(material)),
            ),
        ],
    )  # fmt: skip


def _pareto(results: Results) -> Section | None:
    if len(results.directions) == 1:
        return None
    return Section(
        "pareto",
        "What can be had for what",
        "Trade-off",
        "Of several objectives none leads: these are the trials that no other beats in all. The "
        "figures below show the first objective.",
        cards=cards_of("pareto-front", "Pareto front", lambda: pareto.pareto(results)),
    )


def _comparisons(material: Material) -> Section | None:
    results = material.results
    if len(results.directions) > 1:
        return None
    cards: list[AnyCard] = []
    if not results.factors:
        cards = [Blank("factors", "Comparisons", "This study has no parameter with a few levels.")]
    elif not material.judged:
        cards = [Blank("factors", "Comparisons", material.why_no_model)]
    for it in material.judged:
        cards += _of_factor(material, it)
    return Section(
        "factors", "Comparing techniques", "Techniques", answer.caution(material), cards=cards
    )


def _of_factor(material: Material, it: Judged) -> list[AnyCard]:
    results, factor = material.results, it.factor
    return [
        *cards_of(
            f"forest-{factor.name}", factor.label,
            lambda: forest.forest(results, material.model, factor, it.tuned, it.verdict.word),
        ),
        *cards_of(
            f"expected-{factor.name}", f"{factor.label}: if you only had n trials",
            lambda: expected.expected(results, material.model, factor),
        ),
    ]  # fmt: skip


def _dependence(material: Material) -> Section | None:
    results = material.results
    if len(results.directions) > 1:
        return None
    return Section(
        "interactions",
        "Do choices depend on each other?",
        "Interactions",
        cards=[
            *cards_of(
                "interactions", "Two choices at once",
                lambda: interactions.interactions(results, material.model),
            ),
            *cards_of(
                "response", "Learning rate", lambda: response.response(results, material.model)
            ),
        ],
    )  # fmt: skip


def _curves(results: Results) -> Section:
    return Section(
        "trials",
        "Every trial",
        "Trials",
        cards=[
            *cards_of("curves", "Learning curves", lambda: curves.curves(results)),
            *cards_of("parallel", "All settings at once", lambda: parallel.parallel(results)),
        ],
    )


def mistake_cards(material: Material) -> list[AnyCard]:
    """What the best trial's model gets wrong; nothing where there is no such model."""
    mistakes, number = material.mistakes, material.results.best
    if mistakes is None or number is None:
        return []
    if isinstance(mistakes, str):
        return [Blank("confusion", "Confusion matrix", mistakes)]
    return [
        *cards_of("confusion", "Confusion matrix", lambda: confusion.confusion(mistakes, number)),
        *cards_of("worst-images", "Worst images", lambda: worst.worst(mistakes, number)),
    ]


def _mistakes(material: Material) -> Section | None:
    cards = mistake_cards(material)
    if not cards:
        return None
    return Section(
        "mistakes",
        "What the best model gets wrong",
        "Mistakes",
        "The model of the best trial on the validation images, by which it was chosen: on new "
        "images it will rather be a little worse.",
        cards=cards,
    )


def _weights(material: Material) -> Section:
    results = material.results
    return Section(
        "importance",
        "What matters, and where the budget went",
        "Importance",
        cards=[
            *cards_of("importances", "Importance", lambda: importance.importance(results)),
            *cards_of(
                "spending", "Where the budget went",
                lambda: spending.spending(results, adaptive=material.adaptive),
            ),
        ],
    )  # fmt: skip


def _costs(results: Results) -> Section:
    return Section(
        "cost",
        "What it cost",
        "Cost",
        cards=[
            *cards_of("cost-quality", "Cost against quality", lambda: cost.cost(results)),
            *cards_of("savings", "Time saved", lambda: savings.savings(results)),
            *cards_of("timeline", "Workers", lambda: timeline.timeline(results)),
        ],
    )


def _failures(results: Results) -> Section:
    return Section(
        "failures",
        "What failed or diverged",
        "Failures",
        cards=cards_of("failure-rates", "Failures", lambda: failures.failures(results)),
    )


def _origin(material: Material) -> Section:
    return Section(
        "provenance",
        "Where this comes from",
        "Provenance",
        answer.method(material),
        cards=cards_of(
            "origin", "Provenance", lambda: best.provenance(material.results)
        ),
    )  # fmt: skip


def _together(all_results: list[Results]) -> Chapter:
    names = [it.study for it in all_results]
    ended = sum(it.count(*ENDED) for it in all_results)
    cards = cards_of("side-by-side", "Side by side", lambda: studies.side_by_side(all_results))
    headline = next((it.title for it in cards if isinstance(it, Card)), "Studies side by side")
    cover = Cover(
        eyebrow=f"{len(names)} studies: {', '.join(names)} · {datetime.now(UTC):%d %B %Y}",
        headline=headline,
        lead=f"{wording.count(ended, 'trial')} have ended in them. Each has a chapter of its own "
        "below; what one of them says about a choice is a fact about that search.",
    )
    section = Section(
        "together", "Side by side", "Side by side",
        cards=[
            *cards,
            *cards_of("numbers", "In numbers", lambda: studies.key_numbers(all_results)),
        ],
    )  # fmt: skip
    return Chapter("together", "Side by side", cover, [section])
