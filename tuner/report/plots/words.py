"""What several figures say and choose alike: the n below a figure, hover texts, seeded subsets."""

import math
import re
import zlib
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tuner import wording
from tuner.report.factors import Factor
from tuner.report.plots.facts import by_outcome, score_label, score_text, turned
from tuner.report.plots.theme import plain, short
from tuner.report.results import COMPLETE, DIVERGED, ENDED, FAILED, PRUNED, Results
from tuner.report.scale import Scale

# Parameters in a hover text.
_MOST_PARAMS = 8
# An aggregated table has one row for so many trials; a figure's data is a table up to so many rows.
TRIALS_A_ROW = 50
MOST_ROWS = 200
_LARGEST = 1e37  # in single precision


def trials_text(results: Results) -> str:
    """How many trials had which outcome: ``100 trials: 6 complete, 94 pruned``."""
    parts = by_outcome(results)
    return wording.count(len(results.trials), "trial") + (f": {parts}" if parts else "")


def basis_of(results: Results, *sentences: str) -> str:
    """The n of a figure, and how it treats what did not complete."""
    first = [f"{trials_text(results)}."]
    if len(results.directions) > 1:
        first.append(f"Shown is the first of {len(results.directions)} objectives.")
    return " ".join([*first, *(it for it in sentences if it)])


def last_shown(results: Results) -> "pd.Series[float]":
    """Each trial's value as it is shown: a complete one's, else the last that it reported.

    NaN of what did not complete where intermediate values are another quantity.
    """
    trials = results.trials
    final = trials["value"].where(trials["outcome"] == COMPLETE)
    if results.steps_are_values:
        final = final.fillna(trials["last_value"]).fillna(trials["value"])
    shown = results.scale.shown(final.to_numpy(float))
    return pd.Series(np.where(np.isfinite(shown), shown, np.nan), trials.index)


def pruned_text(results: Results) -> str:
    """Where pruned trials stand in a figure of values: a sentence, or "" if there are none."""
    if not results.count(PRUNED):
        return ""
    if results.steps_are_values:
        return "Pruned trials stand at their last value."
    return (
        "Its intermediate values are another quantity, so pruned trials have no place here: they "
        "have no comparable value."
    )


def axis_text(scale: Scale) -> str:
    """For a figure's reading, where its axis shows the negative of what is maximised."""
    if not turned(scale):
        return ""
    return f" The axis shows the negative of the {plain(score_label(scale))}: lower is better."


def single(values: npt.ArrayLike) -> npt.NDArray[np.floating[Any]]:
    """In single precision, which halves a figure's bytes, where that can hold the values."""
    array = np.asarray(values, dtype=float)
    return array if (np.abs(array) > _LARGEST).any() else array.astype(np.float32)


def with_params(results: Results, table: pd.DataFrame) -> pd.DataFrame:
    """A table with a row for each trial, by number, and the trial's parameters beside it."""
    taken = {name: f"{name} (parameter)" for name in ("trial", *table)}
    return table.join(results.params.rename(columns=taken))


def complete_shown(results: Results) -> "pd.Series[float]":
    """The values of the complete trials, as they are shown."""
    return last_shown(results)[of_outcome(results, COMPLETE)].dropna()


def of_outcome(results: Results, *which: str) -> "pd.Index[int]":
    """The numbers of the trials with one of these outcomes."""
    return results.trials.index[results.trials["outcome"].isin(which)]


def subset(
    numbers: "pd.Index[int]", most: int, keep: Collection[int] = ()
) -> "tuple[pd.Index[int], str]":
    """At most so many of the trials, chosen at random with a fixed seed.

    Args:
        numbers: of the trials.
        most: how many may stay.
        keep: those that stay in any case.

    Returns:
        The numbers in their order, and words for a figure's basis: "" where all stay.
    """
    if len(numbers) <= most:
        return numbers, ""
    kept = numbers[numbers.isin(list(keep))][:most]
    others = numbers.difference(kept)
    drawn = np.random.default_rng(0).choice(others.to_numpy(), most - len(kept), replace=False)
    return kept.union(pd.Index(drawn)), f"{most:,} of {len(numbers):,}, drawn with seed 0"


def hover_texts(results: Results, numbers: "pd.Index[int]") -> list[str]:
    """A line for each trial: ``trial 43 · complete · 0.58 %``, and its parameters below."""
    shown = last_shown(results).reindex(numbers).to_numpy(float)
    outcomes = results.trials["outcome"].reindex(numbers)
    settings = settings_texts(results, numbers)

    def said(value: float) -> str:
        return f" · {score_text(results.scale, value)}" if math.isfinite(value) else ""

    return [
        "<br>".join(filter(None, [f"trial {number} · {outcome}{said(value)}", setting]))
        for number, outcome, value, setting in zip(numbers, outcomes, shown, settings, strict=True)
    ]  # fmt: skip


def settings_texts(results: Results, numbers: "pd.Index[int]") -> list[str]:
    """Each trial's parameters: ``adam, glorot_normal, 2 frozen layers, learning rate 0.0012``."""
    knobs = [(it.name, it.label) for it in results.knobs]
    columns: list[list[str]] = []
    for factor in results.factors[:_MOST_PARAMS]:
        places = results.codes[factor.name].reindex(numbers)
        texts = [*map(level_name, [factor] * len(factor.levels), range(len(factor.levels))), ""]
        columns.append([texts[place] for place in places])
    for name, label in knobs[: max(0, _MOST_PARAMS - len(columns))]:
        values = results.params[name].reindex(numbers).to_numpy(float)
        label = plain(label.lower())  # noqa: PLW2901
        columns.append([f"{label} {value:.3g}" if math.isfinite(value) else "" for value in values])
    rows = zip(*columns, strict=True) if columns else [()] * len(numbers)
    return [", ".join(part for part in row if part) for row in rows]


def level_name(factor: Factor, place: int) -> str:
    """A level within a sentence or a hover text: ``adam``; a number with its factor's name."""
    text = short(factor.texts[place])
    if isinstance(factor.levels[place], str):
        return text
    return f"{plain(factor.label.lower())} {text}"


def key_of(figure: str, name: str) -> str:
    """A `Card.key` for one parameter: ``spending-optimizer``; a strange name becomes a number."""
    if re.fullmatch(r"[A-Za-z0-9_]{1,60}", name):
        return f"{figure}-{name}"
    return f"{figure}-{zlib.crc32(name.encode()):08x}"


def joined(texts: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    if len(texts) < 2:
        return "".join(texts)
    return f"{', '.join(texts[:-1])} and {texts[-1]}"


def outcome_counts(outcomes: "pd.Series[str]") -> dict[str, int]:
    """How many trials of a group ended how: a part of a table's row."""
    counts = outcomes.value_counts()
    return {it: int(counts.get(it, 0)) for it in ENDED}


def trial_table(results: Results) -> pd.DataFrame:
    """One row a trial; above `MOST_ROWS` one row for `TRIALS_A_ROW` trials."""
    shown, trials = last_shown(results), results.trials
    label = results.scale.label
    if len(trials) <= MOST_ROWS:
        columns = {"outcome": trials["outcome"], label: shown, "last step": trials["last_step"]}
        if len(results.taken_over):
            columns["taken over from"] = results.taken_over.reindex(trials.index)
        frame = with_params(results, pd.DataFrame(columns))
        return frame.rename_axis("trial").reset_index()
    rows = []
    for first, group in trials.groupby(trials.index // TRIALS_A_ROW):
        complete = shown[group.index[group["outcome"] == COMPLETE]]
        start = int(first) * TRIALS_A_ROW
        rows.append(
            {"trials": f"{start} to {start + TRIALS_A_ROW - 1}", **outcome_counts(group["outcome"]),
             f"best {label}": complete.min(), f"median {label}": complete.median()}
        )  # fmt: skip
    return pd.DataFrame(rows)


def went_wrong(results: Results) -> str:
    """How many trials diverged and failed, in words: "" if none."""
    counts = [(results.count(DIVERGED), "diverged"), (results.count(FAILED), "failed")]
    return joined([f"{count:,} {word}" for count, word in counts if count])
