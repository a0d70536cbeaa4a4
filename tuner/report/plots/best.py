"""The best configuration, and where a study's numbers come from: tables to copy from."""

import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from optuna.distributions import IntDistribution

from tuner import __version__, wording
from tuner.environment import PACKAGES
from tuner.machine import AUTO
from tuner.report.cards import CannotDraw, TableCard
from tuner.report.factors import label_of, level_text
from tuner.report.plots.facts import (
    by_outcome,
    compute_text,
    count_workers,
    score_label,
    score_text,
    shown_best,
)
from tuner.report.results import COMPLETE, ENDED, Results
from tuner.search import DEFAULT_PRUNER, DEFAULT_SAMPLER
from tuner.study import STUDIES_DIRECTORY

_DEFAULTS = {"sampler": DEFAULT_SAMPLER, "pruner": DEFAULT_PRUNER, "precision": AUTO}
# So much of a hash names a thing.
_HASH_LENGTH = 12


def best_configuration(results: Results, expected: str = "") -> TableCard:
    """The parameters of the best complete trial.

    Args:
        results: the study.
        expected: a sentence on what a re-run of it would give, or "".

    Raises:
        CannotDraw: no trial is the best.
    """
    if len(results.directions) > 1:
        raise CannotDraw("A study with several objectives has no single best trial.")
    if results.best is None:
        raise CannotDraw("No trial completed, so none is the best.")
    scale, complete = results.scale, results.count(COMPLETE)
    value = score_text(scale, shown_best(results))
    text = f"Trial {results.best} of {len(results.trials):,}"
    if complete == 1:
        text += ", the only one that completed: nothing can be said of luck."
    else:
        text += (
            f", the best of {complete:,} that completed. The best of many is partly luck: a re-run "
            "of it will rather be a little worse."
        )
    return TableCard(
        key="best",
        title=f"Best configuration: {score_label(scale)} {value}",
        table=pd.DataFrame(_best_rows(results, results.best, value), columns=["setting", "value"]),
        text=f"{text} {expected}".strip(),
        command=command_of(results),
    )


def params_of(results: Results, number: int) -> dict[str, object]:
    """A trial's parameters as the objective saw them."""
    found = {}
    for name, value in results.params.loc[number].items():
        if isinstance(value, float) and pd.isna(value):
            continue
        whole = isinstance(results.distributions[str(name)], IntDistribution)
        found[str(name)] = int(value) if whole else value
    return found


def _best_rows(results: Results, number: int, value: str) -> list[tuple[str, str]]:
    rows = [(label_of(name), _text(it)) for name, it in params_of(results, number).items()]
    label = label_of(score_label(results.scale))
    rows += [(label, value), ("Trial", str(number))]
    seconds = results.trials["seconds"].loc[number]
    attrs = results.attrs.loc[number]
    rows += [("Seed", _text(attrs["seed"]))] if _there(attrs, "seed") else []
    rows += [("Took", wording.duration(float(seconds)))] if pd.notna(seconds) else []
    told = [it for it in ("precision", "device") if _there(attrs, it)]
    rows += [(label_of(it), _text(attrs[it])) for it in told]
    return rows


def _text(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else level_text(value)


def _there(attrs: Mapping[str, Any], name: str) -> bool:
    return name in attrs and not (isinstance(attrs[name], float) and pd.isna(attrs[name]))


def command_of(results: Results, *, study_name: str = "", compare: str = "") -> str:
    """The command line that repeats the search from its seed; "" for another program's study.

    Args:
        results: the study's.
        study_name: another name for the repetition.
        compare: a parameter whose levels are to share the budget equally.
    """
    stored = results.stored
    name = study_name or results.study
    search = stored.search
    compare = compare or stored.compare or ""
    if stored.snapshot is None:
        return ""
    path = Path(stored.snapshot.file)
    named = path == STUDIES_DIRECTORY / f"{path.stem}.py"
    words = ["python", "-m", "tuner.run", "--study", path.stem if named else stored.snapshot.file]
    words += ["--study-name", name] if path.stem != name else []
    words += ["--trials", str(stored.target or len(results.trials))]
    words += ["--compare", compare] if compare else []
    words += ["--seed", str(stored.seed)] if stored.seed is not None else []
    for setting, default in _DEFAULTS.items():
        chosen = search.get(setting, default)
        words += [f"--{setting}", chosen] if chosen != default else []
    return shlex.join(words)


def provenance(results: Results) -> TableCard:
    """What the study was run with, where and when."""
    rows = [*_of_study(results), *_of_trials(results), *_of_machines(results)]
    rows.append(("Report written by", f"tuner {__version__}"))
    by = "tuner run" if results.snapshot else "another program"
    return TableCard(
        key="provenance",
        title=f"Where the numbers come from: {wording.count(len(results.trials), 'trial')} of {by}",
        table=pd.DataFrame([row for row in rows if row[1]], columns=["what", "value"]),
    )


def opening_text(opening: Mapping[str, Any]) -> str:
    """When the test set was opened, and at which commit: ``2026-11-25 at 6fd31c0b1a2d``."""
    return f"{str(opening.get('when', 'unknown'))[:10]} at {opening.get('commit', 'unknown')}"


def mixed(values: Iterable[object]) -> str:
    """A value that all trials share, else each with its count: ``bfloat16 98 trials, float32 2``.

    Args:
        values: one a trial; NaN where a trial does not say.
    """
    texts = ["" if isinstance(it, float) and pd.isna(it) else _text(it) for it in values]
    counts = pd.Series(texts, dtype=object).value_counts()
    if len(counts) < 2:
        return str(counts.index[0]) if len(counts) else ""
    said = [(str(text) or "not recorded", int(count)) for text, count in counts.items()]
    first, *others = said
    words = [f"{first[0]} {wording.count(first[1], 'trial')}"]
    return ", ".join(words + [f"{text} {count:,}" for text, count in others])


def _of_study(results: Results) -> list[tuple[str, str]]:
    stored, snapshot = results.stored, results.snapshot
    rows = [("Study", results.study)]
    if snapshot:
        rows += [
            ("File", snapshot.file),
            ("SHA-256 of the file", snapshot.file_hash[:_HASH_LENGTH]),
        ]
    rows += [
        ("Metric", results.metric),
        ("Direction", ", ".join(results.directions)),
        ("Seed", "" if stored.seed is None else str(stored.seed)),
    ]
    rows += [(label_of(name), stored.search.get(name, "")) for name in _DEFAULTS]
    if stored.compare:
        rows.append(("Equal budgets for each", label_of(stored.compare)))
    if stored.confirms:
        rows.append(("Re-runs configurations of", stored.confirms))
    opened = ", ".join(opening_text(it) for it in stored.openings)
    rows.append(("Test set opened", opened))
    return [*rows, ("Target", "" if stored.target is None else f"{stored.target:,} trials")]


def _of_trials(results: Results) -> list[tuple[str, str]]:
    start, end = results.trials["start"].min(), results.trials["end"].max()
    workers = count_workers(results)
    return [
        ("Trials", by_outcome(results) or "none"),
        ("First start", "" if pd.isna(start) else f"{start:%Y-%m-%d %H:%M:%S} UTC"),
        ("Last end", "" if pd.isna(end) else f"{end:%Y-%m-%d %H:%M:%S} UTC"),
        ("Compute", "" if pd.isna(end) else compute_text(results)),
        ("Workers", str(workers) if workers else ""),
    ]


def _of_machines(results: Results) -> list[tuple[str, str]]:
    ended = results.attrs[results.trials["outcome"].isin(ENDED)]
    rows = [
        (label, mixed(ended[name]))
        for label, name in (
            ("Hosts", "host"),
            ("Device", "device"),
            ("Computed in", "precision"),
            ("Threads a worker", "threads"),
        )
        if name in ended
    ]
    if "environment" in ended and results.stored.environments:
        rows += _environments(ended["environment"], results.stored.environments)
    if "base_hash" in ended:
        short = [it[:_HASH_LENGTH] if isinstance(it, str) else it for it in ended["base_hash"]]
        rows.append(("SHA-256 of the base", mixed(short)))
    return rows


def _environments(
    hashes: "pd.Series[Any]", known: Mapping[str, Mapping[str, Any]]
) -> list[tuple[str, str]]:
    """What is known of the workers' environments: each fact, with counts where they differ."""
    of_trials = [known.get(it, {}) if isinstance(it, str) else {} for it in hashes]
    facts = {
        "Commit": "commit", "System": "system", "Processor": "cpu", "Cores": "cores",
        "Memory (GB)": "memory_gb", "Python": "python",
        **{label_of(package): package for package in PACKAGES},
    }  # fmt: skip
    rows = [
        (label, mixed(it.get(key, float("nan")) for it in of_trials))
        for label, key in facts.items()
    ]
    return [("Environment", mixed(hashes)), *((a, b) for a, b in rows if b)]
