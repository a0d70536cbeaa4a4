"""The answer in words: headline, what qualifies it, and a tile for each factor.

No sentence here is stronger than its evidence: what an adaptive search prefers is said to be that.
"""

import shlex
from functools import lru_cache

import numpy as np

from tuner import wording
from tuner.report.cards import CannotDraw, Tile
from tuner.report.factors import Factor
from tuner.report.material import Judged, Material
from tuner.report.plots import confirmed, facts
from tuner.report.plots.best import command_of
from tuner.report.plots.compared import span_text
from tuner.report.plots.words import joined
from tuner.report.results import COMPLETE, DIVERGED, ENDED, FAILED, Results
from tuner.report.verdicts import (
    CLEAR,
    EQUAL,
    LIKELY,
    MEANINGS,
    UNDECIDED,
    percent,
)

# An estimate so close to the model's ceiling may lie anywhere above it.
_AT_CEILING = 0.05
# So many levels are named in a sentence.
_MOST_NAMED = 4
_LONGEST = 40  # characters of a level's name in a sentence
_NORMAL = 1.96  # standard deviations to each side of 95 %
# Of the confirmation that is named: 0.7 against 0.8 % are told apart in 57 of 100 (see `paired`).
SEEDS = 10
# From this share of its trials on, a leader's failures and divergences are told with it.
_OFTEN = 0.1


def headline(material: Material) -> str:
    """The finding of the study, in one sentence."""
    results = material.results
    if len(results.directions) > 1:
        return f"{len(results.directions)} objectives: what can be had for what"
    if sentence := _confirmed(material):
        return sentence
    if results.count(COMPLETE) == 0 and not material.judged:
        return "No trial has run to its end yet"
    if not material.judged:
        return "Nothing can be compared yet"
    claims = [_claim(it) for it in material.judged if it.verdict.word != UNDECIDED]
    if not claims:
        claims = [_exclusion(material, it) for it in material.judged if it.verdict.worse]
    if not claims:
        names = [_short(it.factor.label).lower() for it in material.judged]
        return f"No {joined(names).replace(' and ', ' or ')} stands out yet"
    sentence = "; ".join(claims)
    # A level's name stays as it is written.
    labels = (_short(it.factor.label).lower() for it in material.judged)
    ours = sentence.startswith(("every ", *labels))
    return sentence[0].upper() + sentence[1:] if ours else sentence


@lru_cache(maxsize=8)  # asked for by headline, lead and command
def _confirmed(material: Material) -> str:
    """What the confirmation found; "" where there is none, or where it says nothing."""
    if material.confirm is None:
        return ""
    try:
        runs = confirmed.pairs(material.confirm)
    except CannotDraw:
        return ""
    if len(runs.labels) < 2:
        return ""
    return confirmed.verdict_of(runs, runs.comparison())[1].removesuffix(".")


def _claim(it: Judged) -> str:
    label, leader = _short(it.factor.label).lower(), _level(it.factor, it.verdict.leader)
    if it.verdict.word == EQUAL:
        return f"every {label} is {EQUAL}"
    return f"{leader} is {'the' if it.verdict.word == CLEAR else 'likely the'} best {label}"


def _exclusion(material: Material, it: Judged) -> str:
    verb = "is" if len(it.verdict.worse) == 1 else "are"
    likely = f"{LIKELY} " if material.adaptive else ""
    label, levels = _short(it.factor.label).lower(), _levels(it, it.verdict.worse)
    if isinstance(it.factor.levels[it.verdict.leader], str):
        return f"{levels} {verb} {likely}worse than the best {label}"
    return f"{label} {levels} {verb} {likely}worse than the best"


def lead(material: Material) -> str:
    """What qualifies the headline: the best error, how it was searched, what would settle it."""
    sentences = [
        _winner_sentence(material),
        _best_sentence(material),
        _taken_over_sentence(material.results),
    ]
    worse = [
        f"among {_short(it.factor.label).lower()} {_levels(it, it.verdict.worse)}"
        for it in material.judged
        if it.verdict.worse
    ]
    if worse:
        likely = "Likely worse" if material.adaptive else "Worse"
        sentences.append(f"{likely} than the leader (at 95 %): {'; '.join(worse)}.")
    if material.judged and not _confirmed(material):
        sentences.append(
            _adaptive_sentence(material)
            if material.adaptive
            else _balanced_sentence(material.results)
        )
    if settling_command(material):
        sentences.append(
            "The best of each level, re-run on shared fresh seeds, would settle more:"
            if _is_fair(material)
            else "Equal budgets for each level, and then a confirmation, would settle more:"
        )
    return " ".join(filter(None, sentences))


def _winner_sentence(material: Material) -> str:
    """What the confirmed winner is like; "" where nothing was compared."""
    if material.confirm is None or not _confirmed(material):
        return ""
    runs = confirmed.pairs(material.confirm)
    comparison = runs.comparison()
    mean = comparison.means[comparison.winner]
    label = facts.score_label(runs.scale)
    return (
        f"{_short(runs.labels[comparison.winner])} has a mean {label} of "
        f"{facts.score_text(runs.scale, mean.estimate)} "
        f"(95 %: {span_text(runs.scale, mean.low, mean.high)}) over "
        f"{wording.count(comparison.runs[comparison.winner], 'run')} of it."
    )


def _best_sentence(material: Material) -> str:
    results = material.results
    if results.best is None:
        return ""
    count = wording.count(results.count(COMPLETE), "completed trial")
    score = facts.score_text(results.scale, facts.shown_best(results))
    label = facts.score_label(results.scale)
    article = "an" if label[0] in "aeiou" else "a"
    seen = f"The best of {count} has {article} {label} of {score}"
    again = _again(material)
    if again is None:
        return f"{seen}."
    middle, low, high = again
    return f"{seen}; a re-run of it is expected to give {middle} (95 % of re-runs {low} to {high})."


def _again(material: Material) -> tuple[str, str, str] | None:
    """The expected value of a re-run of the best trial's configuration, and where it may lie."""
    results = material.results
    if not material.judged or results.best is None:
        return None
    mean, spread = material.model.again(results, results.best)
    scale = results.scale
    ends = scale.from_model([mean, mean - _NORMAL * spread, mean + _NORMAL * spread])
    middle, low, high = (facts.score_text(scale, float(it)) for it in ends)
    return (middle, high, low) if facts.turned(scale) else (middle, low, high)


def expected_again(material: Material) -> str:
    """A sentence for the best configuration's card, or ""."""
    again = _again(material)
    if again is None:
        return ""
    middle, low, high = again
    return f"The model expects {middle} of a re-run (95 % of re-runs {low} to {high})."


def _taken_over_sentence(results: Results) -> str:
    """That some configurations were not sampled here; "" if all were."""
    taken = results.taken_over
    if taken.empty:
        return ""
    studies = sorted({source.rpartition(", trial ")[0] for source in taken})
    best = results.best is not None and results.best in taken.index
    ours = f", the best one ({taken[results.best]}) among them" if best else ""
    return (
        f"{len(taken)} of its configurations are the best of {joined(studies)}, taken over{ours}."
    )


def _adaptive_sentence(material: Material) -> str:
    results = material.results
    factor = results.factors[0]
    counts = np.bincount(
        results.codes[factor.name][results.codes[factor.name] >= 0], minlength=len(factor.levels)
    )
    most = int(counts.argmax())
    samplers = ", ".join(sorted(results.stored.samplers)) or "its sampler is not known"
    if compared := _compared(results):
        return (
            f"Each {_short(compared.label).lower()} got {_share(results, compared)}, of a search "
            f"of its own ({samplers}); that search is no random sample, so nothing here is called "
            f"more than {LIKELY}."
        )
    return (
        f"The search chose its own trials ({samplers}), {counts[most]} of {counts.sum()} with "
        f"{_level(factor, most)}: its preference is weak evidence, so nothing here is called "
        f"more than {LIKELY}."
    )


def _balanced_sentence(results: Results) -> str:
    """That levels were compared on equal terms; "" where that was not asked for."""
    compared = _compared(results)
    if compared is None:
        return ""
    samplers = ", ".join(sorted(results.stored.samplers))
    return (
        f"Each {_short(compared.label).lower()} got {_share(results, compared)} ({samplers}), with "
        "the same other settings and seeds for all."
    )


def _compared(results: Results) -> Factor | None:
    """The factor whose levels share the budget equally, if there is one."""
    return next((it for it in results.factors if it.name == results.stored.compare), None)


def _share(results: Results, compared: Factor) -> str:
    """How many trials that did not fail each level has: ``14 or 15 trials``."""
    codes = results.codes[compared.name][results.trials["outcome"] != FAILED]
    counts = np.bincount(codes[codes >= 0], minlength=len(compared.levels))
    low, high = int(counts.min()), int(counts.max())
    if low == high:
        return wording.count(high, "trial")
    return f"{low:,} {'or' if high == low + 1 else 'to'} {wording.count(high, 'trial')}"


def settling_command(material: Material) -> str:
    """What to run to know more of the first factor that is open.

    Where budgets were unequal, a search that gives each level the same; else a confirmation. ""
    where nothing is open, where that was done, or for a study of another program.
    """
    results = material.results
    compared = results.stored.compare
    is_open = [
        it.factor.name
        for it in material.judged
        if it.verdict.word in {LIKELY, UNDECIDED} and compared in {None, it.factor.name}
    ]
    if not is_open or _confirmed(material) or results.stored.confirms or not results.snapshot:
        return ""
    if _is_fair(material):
        words = ["python", "-m", "tuner.confirm", f"--study={results.study}"]
        if not results.study.startswith("-"):
            words[-1:] = ["--study", results.study]
        return shlex.join([*words, "--per-level", is_open[0], "--seeds", str(SEEDS)])
    name = f"{results.study}-{is_open[0]}"
    return command_of(results, study_name=name, compare=is_open[0])


def _is_fair(material: Material) -> bool:
    """Whether the search gave each level of its first factor the same chance."""
    return not material.adaptive or material.results.stored.compare is not None


def tile(material: Material, it: Judged) -> Tile:
    """A factor's verdict, and two or three sentences on it."""
    tuned, verdict = it.tuned, it.verdict
    low, high = (_shown(material, end[verdict.leader]) for end in (tuned.low, tuned.high))
    middle = _shown(material, tuned.mean[verdict.leader])
    if facts.turned(material.results.scale):
        low, high = high, low
    sentences = [f"{middle} expected of new runs at its best settings ({low} to {high})."]
    if verdict.close:
        sentences.append(f"Not told from it: {_levels(it, verdict.close)}.")
    if verdict.worse:
        likely = "Likely worse" if material.adaptive else "Worse"
        sentences.append(f"{likely}: {_levels(it, verdict.worse)} ({_worst(material, it)}).")
    sentences.append(_went_wrong(material, it))
    return Tile(
        label=_short(it.factor.label),
        leader=_short(it.factor.texts[verdict.leader]),
        word=verdict.word,
        detail=f"P(best) {percent(verdict.p_best)}",
        text=" ".join(filter(None, sentences)),
    )


def _shown(material: Material, modelled: float) -> str:
    scale = material.results.scale
    return facts.score_text(scale, float(scale.from_model(modelled)))


def _worst(material: Material, it: Judged) -> str:
    """How far the last of the worse levels is behind."""
    scale, worst = material.results.scale, it.verdict.worse[-1]
    modelled = it.tuned.mean[[worst, it.verdict.leader]]
    values = scale.from_model(modelled)
    more = " or more" if modelled[0] > material.model.ceiling - _AT_CEILING else ""
    ratio = scale.ratio(float(values[0]), float(values[1]))
    return f"{_short(it.factor.texts[worst])} {ratio}{more}"


def _went_wrong(material: Material, it: Judged) -> str:
    """How many of the leader's trials diverged or failed, if that was often."""
    results = material.results
    at_leader = results.codes[it.factor.name] == it.verdict.leader
    ended = results.trials.loc[at_leader & results.trials["outcome"].isin(ENDED), "outcome"]
    wrong = int(ended.isin([DIVERGED, FAILED]).sum())
    if not wrong or wrong < _OFTEN * len(ended):
        return ""
    return f"{wrong} of its {wording.count(len(ended), 'trial')} diverged or failed."


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
    if compared := _compared(material.results):
        return (
            f"Each {_short(compared.label).lower()} had an equal share of the trials, and its own "
            "search spent them where it expected to win: the levels of other choices had no equal "
            "chance. The estimates come from a model of all reports; levels that were hardly tried "
            "get wide intervals."
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
    model = material.model
    taken = len(model.surrogate.rows)
    some = "" if taken == model.reports else f" {taken:,} of them were drawn, as whole trials."
    left_out = (
        f" {wording.count(model.left_out, 'parameter')} that told least were left out."
        if model.left_out
        else ""
    )
    pruned = (
        "Pruned trials count with what they reported before they were stopped"
        if material.results.steps_are_values
        else "Intermediate values are another quantity than the final one, so pruned trials do not "
        "count, and those that ran to the end may be the better ones"
    )
    return (
        "Comparisons rest on one Gaussian process over settings and step, fitted to "
        f"{wording.count(model.reports, 'report')} of the trials that ended.{some}{left_out} "
        f"{pruned}; diverged ones as very bad at their last report, whatever its value "
        f"({model.ceiling_text}); failed ones not at all. P(best) counts joint draws over all "
        f"levels of a factor at once; verdicts are for each factor by itself. {COVERAGE}"
    )


# From `python -m tests.benchmarks.coverage`, whose table is in the README.
COVERAGE = (
    "On 1,600 simulated studies with a known truth, of 105 trials each, 95 % intervals of balanced "
    "designs held 93 to 98 % of the true values, those of adaptive ones 92 to 98 %; least, 77 to "
    "98 %, for frozen layers, where the model expects too much of trials that were stopped early. "
    "Of 83 verdicts of likely or more 94 % named the best level, and all one within 0.1 point."
)


def _level(factor: Factor, place: int) -> str:
    text = _short(factor.texts[place])
    return text if isinstance(factor.levels[place], str) else f"{factor.label.lower()} {text}"


def _levels(it: Judged, places: list[int]) -> str:
    named = [_short(it.factor.texts[place]) for place in places[:_MOST_NAMED]]
    more = len(places) - len(named)
    return joined([*named, f"{more} more"] if more else named)


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
