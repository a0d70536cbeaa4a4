"""The key figures of a study: what the cover says in large type."""

import math

import pandas as pd

from tuner import wording
from tuner.report.cards import Fact
from tuner.report.results import COMPLETE, OUTCOMES, Results
from tuner.report.scale import Scale

# From so many complete trials on their spread is told.
_LEAST_FOR_SPREAD = 4


def key_facts(results: Results, saved: str = "") -> list[Fact]:
    """The study in at most five figures.

    Args:
        results: the study.
        saved: the time that pruning saved, in words; "" if that is not known.
    """
    facts = [_best(results), Fact("Trials", f"{len(results.trials):,}", by_outcome(results))]
    if math.isfinite(wall_seconds(results)):
        facts.append(_wall_clock(results))
    if saved:
        facts.append(Fact("Saved by pruning", saved))
    if results.best is not None and results.count(COMPLETE) >= _LEAST_FOR_SPREAD:
        facts.append(_spread(results))
    return facts


def by_outcome(results: Results) -> str:
    """How many trials ended how: ``6 complete, 94 pruned``."""
    counts = [(results.count(it), it) for it in OUTCOMES]
    return ", ".join(f"{count:,} {outcome}" for count, outcome in counts if count)


def wall_seconds(results: Results) -> float:
    """From the first start to the last end; NaN if no trial tells one or the other."""
    span = results.trials["end"].max() - results.trials["start"].min()
    return float(pd.Timedelta(span).total_seconds())


def compute_text(results: Results) -> str:
    """The seconds of all trials that ended, in words."""
    return wording.duration(float(results.trials["seconds"].sum()))


def count_workers(results: Results) -> int:
    """How many workers the trials name; 0 if they name none."""
    named = [it for it in ("host", "worker") if it in results.attrs]
    return len(results.attrs[named].dropna().drop_duplicates()) if "worker" in named else 0


def score_text(scale: Scale, shown: float) -> str:
    """What is shown of a value, as it would be spoken of: a score that is maximised as it is."""
    return scale.text(-shown if turned(scale) else shown)


def score_label(scale: Scale) -> str:
    """What `score_text` is a value of."""
    return scale.label[1:] if turned(scale) else scale.label


def turned(scale: Scale) -> bool:
    """Whether the figures show the negative of the study's values."""
    return scale.sign < 0 and not scale.share


def shown_best(results: Results) -> float:
    """The best value as figures show it; NaN where no trial is the best."""
    if results.best is None:
        return float("nan")
    return float(results.scale.shown(results.trials["value"].loc[results.best]))


def _best(results: Results) -> Fact:
    if len(results.directions) > 1:
        return Fact("Objectives", str(len(results.directions)), " and ".join(results.metrics))
    scale = results.scale
    label = f"Best {score_label(scale)}"
    if results.best is None:
        return Fact(label, "none", "no trial completed")
    shown = shown_best(results)
    note = f"trial {results.best}"
    if scale.share:
        note += f" · {_percent(1 - shown)} {_complement(scale)}"
    return Fact(label, score_text(scale, shown), note)


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def _complement(scale: Scale) -> str:
    """What is as much as the error is short of one."""
    name = scale.metric.lower()
    return "accuracy" if "err" in name or "acc" in name else name.replace("_", " ")


def _wall_clock(results: Results) -> Fact:
    workers = count_workers(results)
    note = f"{compute_text(results)} of compute"
    if workers:
        note = f"{wording.count(workers, 'worker')} · {note}"
    return Fact("Wall clock", wording.duration(wall_seconds(results)), note)


def _spread(results: Results) -> Fact:
    complete = results.trials["outcome"] == COMPLETE
    shown = results.scale.shown(results.trials.loc[complete, "value"])
    quartiles = pd.Series(shown).dropna().quantile([0.25, 0.75])
    low, high = sorted(-quartiles if turned(results.scale) else quartiles)
    value = f"{results.scale.text(low)} to {results.scale.text(high)}"
    return Fact("Spread", value, f"middle half of {results.count(COMPLETE):,} complete trials")
