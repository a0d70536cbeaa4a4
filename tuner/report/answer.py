"""The answer in words: headline, what qualifies it, and a tile for each factor.

No sentence here is stronger than its evidence: what an adaptive search prefers is said to be that.
"""

import numpy as np

from tuner import wording
from tuner.report.cards import CannotDraw, Tile
from tuner.report.material import Judged, Material
from tuner.report.plots import confirmed
from tuner.report.plots.best import command_of
from tuner.report.plots.words import joined
from tuner.report.results import COMPLETE, Results
from tuner.report.statistics.surrogate import CEILING
from tuner.report.verdicts import (
    CLEAR,
    EQUAL,
    LIKELY,
    MEANINGS,
    UNDECIDED,
    percent,
)

# So many levels are named in a sentence.
_MOST_NAMED = 4


def headline(material: Material) -> str:
    """The finding of the study, in one sentence."""
    results = material.results
    if len(results.directions) > 1:
        return f"{len(results.directions)} objectives: what can be had for what"
    if material.confirm is not None:
        sentence = _confirmed(material.confirm)
        if sentence:
            return sentence
    if results.count(COMPLETE) == 0 and not material.judged:
        return "No trial has run to its end yet"
    if not material.judged:
        return "Nothing can be compared yet"
    claims = [_claim(it) for it in material.judged if it.verdict.word != UNDECIDED]
    if not claims:
        claims = [_exclusion(material, it) for it in material.judged if it.verdict.worse]
    if not claims:
        names = [it.factor.label.lower() for it in material.judged]
        return f"No {joined(names).replace(' and ', ' or ')} stands out yet"
    sentence = "; ".join(claims)
    # A level's name stays as it is written.
    ours = any(sentence.startswith(it.factor.label.lower()) for it in material.judged)
    return sentence[0].upper() + sentence[1:] if ours else sentence


def _confirmed(confirm: Results) -> str:
    """What the confirmation found, or "" where it says nothing."""
    try:
        runs = confirmed.pairs(confirm)
    except CannotDraw:
        return ""
    if len(runs.labels) < 2:
        return ""
    return confirmed.verdict_of(runs, runs.comparison())[1].removesuffix(".")


def _claim(it: Judged) -> str:
    label, leader = it.factor.label.lower(), _level(it, it.verdict.leader)
    if it.verdict.word == EQUAL:
        return f"every {label} is {EQUAL}"
    return f"{leader} is {'the' if it.verdict.word == CLEAR else 'likely the'} best {label}"


def _exclusion(material: Material, it: Judged) -> str:
    verb = "is" if len(it.verdict.worse) == 1 else "are"
    likely = f"{LIKELY} " if material.adaptive else ""
    label, levels = it.factor.label.lower(), _levels(it, it.verdict.worse)
    if isinstance(it.factor.levels[it.verdict.leader], str):
        return f"{levels} {verb} {likely}worse than the best {label}"
    return f"{label} {levels} {verb} {likely}worse than the best"


def lead(material: Material) -> str:
    """What qualifies the headline: the best error, how it was searched, what would settle it."""
    sentences = [_best_sentence(material)]
    worse = [
        f"among {it.factor.label.lower()} {_levels(it, it.verdict.worse)}"
        for it in material.judged
        if it.verdict.worse
    ]
    if worse:
        beyond = "as it seems" if material.adaptive else "beyond chance"
        sentences.append(f"Worse than the leader, {beyond}: {'; '.join(worse)}.")
    if material.judged and material.adaptive and material.confirm is None:
        sentences.append(_adaptive_sentence(material))
    if settling_command(material):
        sentences.append("A search that gives every level the same chance would settle more:")
    return " ".join(filter(None, sentences))


def _best_sentence(material: Material) -> str:
    results = material.results
    if results.best is None:
        return ""
    shown = float(results.scale.shown([results.trials.loc[results.best, "value"]])[0])
    count = results.count(COMPLETE)
    seen = (
        f"The best of {wording.count(count, 'completed trial')} has a {results.scale.label} of "
        f"{results.scale.text(shown)}"
    )
    again = _again(material)
    if again is None:
        return f"{seen}."
    middle, low, high = again
    return f"{seen}; a re-run of it is expected to give {middle} (95 % interval {low} to {high})."


def _again(material: Material) -> tuple[str, str, str] | None:
    """The expected value of a re-run of the best trial's configuration, and its interval."""
    results = material.results
    if not material.judged or results.best is None:
        return None
    mean, spread = material.model.again(results, results.best)
    scale = results.scale
    ends = scale.from_model([mean, mean - 1.96 * spread, mean + 1.96 * spread])
    middle, low, high = (scale.text(float(it)) for it in ends)
    return middle, low, high


def expected_again(material: Material) -> str:
    """A sentence for the best configuration's card, or ""."""
    again = _again(material)
    if again is None:
        return ""
    middle, low, high = again
    return f"The model expects {middle} of a re-run (95 % interval {low} to {high})."


def _adaptive_sentence(material: Material) -> str:
    results = material.results
    factor = results.factors[0]
    counts = np.bincount(
        results.codes[factor.name][results.codes[factor.name] >= 0], minlength=len(factor.levels)
    )
    most = int(counts.argmax())
    samplers = ", ".join(sorted(results.stored.samplers)) or "its sampler is not known"
    return (
        f"The search chose its own trials ({samplers}), {counts[most]} of {counts.sum()} with "
        f"{factor.texts[most]}: its preference is weak evidence, so nothing here is called more "
        f"than {LIKELY}."
    )


def settling_command(material: Material) -> str:
    """What to run for a comparison in which every level gets the same chance.

    "" where nothing is open, where that was done, or for a study of another program.
    """
    is_open = any(it.verdict.word in {LIKELY, UNDECIDED} for it in material.judged)
    if not is_open or not material.adaptive or material.confirm is not None:
        return ""
    name = f"{material.results.study}-balanced"
    return command_of(material.results, study_name=name, sampler="random")


def tile(material: Material, it: Judged) -> Tile:
    """A factor's verdict, and two or three sentences on it."""
    scale, tuned, verdict = material.results.scale, it.tuned, it.verdict
    low, high = (
        scale.text(float(scale.from_model(end[verdict.leader]))) for end in (tuned.low, tuned.high)
    )
    middle = scale.text(float(scale.from_model(tuned.mean[verdict.leader])))
    sentences = [f"{middle} expected of a new run at its best settings ({low} to {high})."]
    if verdict.close:
        sentences.append(f"Not told from it: {_levels(it, verdict.close)}.")
    if verdict.worse:
        last = verdict.worse[-1]
        values = scale.from_model(np.array([tuned.mean[last], tuned.mean[verdict.leader]]))
        sentences.append(
            f"Worse: {_levels(it, verdict.worse)}"
            f" ({it.factor.texts[last]} {scale.ratio(float(values[0]), float(values[1]))})."
        )
    return Tile(
        label=it.factor.label,
        leader=it.factor.texts[verdict.leader],
        word=verdict.word,
        detail=f"P(best) {percent(verdict.p_best)}",
        text=" ".join(sentences),
    )


def how_to_read() -> str:
    """What the tiles mean."""
    words = " ".join(f"{word.capitalize()}: {meaning}." for word, meaning in MEANINGS.items())
    return f"Each level is judged with all other settings tuned for it, by one model. {words}"


def caution(material: Material) -> str:
    """What to keep in mind while comparing."""
    if not material.judged:
        return ""
    if not material.adaptive:
        return (
            "Trials were drawn without regard to results, so every level had the same chance. "
            "Estimates come from a model of all reports; dots are the runs themselves."
        )
    return (
        "The search spent its trials where it expected to win, so averages of the runs would "
        "compare tuned levels with untuned ones. The estimates come from a model of all reports; "
        "levels that were hardly tried get wide intervals."
    )


def method(material: Material) -> str:
    """How the numbers were computed, and how far they can be believed."""
    if not material.judged:
        return "No comparison was computed."
    taken, reports = len(material.model.surrogate.rows), material.model.reports
    some = "" if taken == reports else f" {taken:,} of them were drawn, as whole trials."
    return (
        "Comparisons rest on one Gaussian process over settings and step, fitted to "
        f"{wording.count(reports, 'report')} of the trials that ended.{some} Pruned trials "
        "count with what they reported before they were stopped; diverged ones as very bad, "
        f"whatever their value (errors beyond {10**CEILING:.0f} times the median are not told "
        "apart); failed ones not at all. P(best) counts joint draws over all levels at once. "
        f"{COVERAGE}"
    )


# From `python -m tests.benchmarks.coverage`, whose table is in the README.
COVERAGE = ""


def _level(it: Judged, place: int) -> str:
    text = it.factor.texts[place]
    return text if isinstance(it.factor.levels[place], str) else f"{it.factor.label.lower()} {text}"


def _levels(it: Judged, places: list[int]) -> str:
    named = [it.factor.texts[place] for place in places[:_MOST_NAMED]]
    more = len(places) - len(named)
    return joined([*named, f"{more} more"] if more else named)
