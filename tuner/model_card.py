"""The card of an exported model: what it is, how to use it, and what error to expect of it."""

import ast
import contextlib
import json
import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuner import wording
from tuner.again import Recorded, Rerun
from tuner.errors import UsageError
from tuner.report.statistics.intervals import Interval
from tuner.sameness import Sameness
from tuner.study import TEST_PREFIX, find_again

_VERSIONS = ("tuner", "keras", "tensorflow", "optuna", "numpy", "python")
_FINAL = (
    "It was trained once more, on training and validation data; nothing was measured of this very "
    "model. The error above is that of its configuration, trained on the training data alone."
)
_OF_TRIAL = ("precision", "threads", "device", "base_hash", "weights_hash", "source")


@dataclass(frozen=True)
class Confirmed:
    """What a confirmation says of the configuration that is exported.

    Attributes:
        study: the confirmation's name.
        label: what the mean is of: "test error".
        share: it is a share of wrong answers, shown in per cent.
        mean: over its runs, with the 95 % interval.
        runs: how many.
        openings: when the test set was opened for the search.
    """

    study: str
    label: str
    share: bool
    mean: Interval
    runs: int
    openings: list[dict[str, Any]]


@dataclass(frozen=True)
class Card:
    """All that a card says.

    Attributes:
        name: of the search.
        recorded: the trial whose model, or whose configuration, it is.
        why: that trial was chosen.
        final: the model was trained once more, on training and validation data.
        confirmed: what a confirmation found of the configuration, or None.
        trials: how many the search has.
        validated: what the study's validate() says of exactly this file.
        command: that gives the model again.
        again: the run that made the file, where it is not the recorded one.
        sameness: of that run and the recorded one, where the file is to be that one's.
    """

    name: str
    recorded: Recorded
    why: str
    final: bool
    confirmed: Confirmed | None
    trials: int
    validated: Mapping[str, float]
    command: str
    again: Rerun | None = None
    sameness: Sameness | None = None

    @property
    def attrs(self) -> Mapping[str, Any]:
        """User attributes of the run that made the file."""
        return (self.again or self.recorded).trial.user_attrs

    @property
    def environment(self) -> Mapping[str, Any]:
        """Where that run was."""
        return (self.again or self.recorded).environment

    def made(self) -> str:
        """How the file was made, if not by the recorded trial: a sentence, or ""."""
        if self.final:
            return _FINAL
        if self.sameness is None:
            return ""
        return (
            f"The file of {self.recorded.name} was no longer kept, so it was trained again: this "
            f"run is {self.sameness}."
        )

    def expected(self) -> str:
        """What error to expect of such a model, in one sentence."""
        if self.confirmed is None:
            count = wording.count(self.trials, "trial")
            return (
                f"Not confirmed: of the best of {count} a part is luck, so expect a little worse "
                "than what it was chosen by."
            )
        found = self.confirmed
        mean, low, high = (
            _as_read(it, share=found.share)
            for it in (found.mean.estimate, found.mean.low, found.mean.high)
        )
        article = "an" if found.label[0].lower() in "aeiou" else "a"
        return (
            f"Expect {article} {found.label} of {mean} (95 % interval of the mean {low} to {high}, "
            f"over {wording.count(found.runs, 'run')} with seeds of their own)."
        )

    def config(self) -> dict[str, Any]:
        """What was trained, as JSON takes it."""
        trial, snapshot = self.recorded.trial, self.recorded.stored.snapshot
        return {
            "study": self.recorded.study,
            "search": self.name,
            "trial": trial.number,
            "chosen": self.why,
            "final": self.final,
            "params": dict(trial.params),
            "seed": trial.user_attrs.get("seed"),
            "study_file": None if snapshot is None else snapshot.file,
            "study_file_sha256": None if snapshot is None else snapshot.file_hash,
            "trained_again": None if self.sameness is None else str(self.sameness),
            **{name: self.attrs.get(name) for name in _OF_TRIAL},
            "environment": dict(self.environment),
            "command": self.command,
        }

    def metrics(self) -> dict[str, Any]:
        """What is known of its errors, as JSON takes it; never measured on the test set for it."""
        trial, snapshot = self.recorded.trial, self.recorded.stored.snapshot
        metrics = ["value"] if snapshot is None else snapshot.metrics
        values = dict(zip(metrics, map(_finite, trial.values or [None]), strict=False))
        tests = {} if self.final else _tests(trial.user_attrs)
        found = self.confirmed
        return {
            "of_this_file": dict(self.validated),
            "of_its_run": {} if self.final else {**values, **tests},
            "of_its_configuration": None
            if found is None
            else {
                "measured": found.label,
                "mean": found.mean.estimate,
                "low": _finite(found.mean.low),
                "high": _finite(found.mean.high),
                "confidence": 0.95,
                "runs": found.runs,
                "confirmation": found.study,
                "test_set_opened": len(found.openings),
            },
        }


def write_card(card: Card, model_file: Path) -> str:
    """The card in Markdown.

    Args:
        card: what it says.
        model_file: that it is about, for the shape of its input.
    """
    trial, snapshot = card.recorded.trial, card.recorded.stored.snapshot
    parts = [f"# {card.name}: a Keras model", "", _about(snapshot.file if snapshot else ""), ""]
    parts += ["## What to expect", "", card.expected(), ""]
    if card.made():
        parts += [card.made(), ""]
    parts += _errors(card)
    parts += ["## Use", "", *_use(model_file), ""]
    parts += ["## Configuration", "", "| parameter | value |", "|---|---|"]
    parts += [f"| {_cell(name)} | {_cell(value)} |" for name, value in trial.params.items()]
    parts += [f"| seed | {_cell(trial.user_attrs.get('seed'))} |", "", f"It is {card.why}.", ""]
    data = snapshot.data if snapshot else None
    parts += ["## Data and licence", ""]
    parts += [data or "The study file does not say what data it was trained on.", ""]
    parts += ["## Again", "", f"    {card.command}", ""]
    parts += ["| | |", "|---|---|"]
    facts = {name: card.environment.get(name) for name in (*_VERSIONS, "commit", "cpu")}
    facts |= {name: card.attrs.get(name) for name in _OF_TRIAL}
    parts += [f"| {name} | {_cell(value)} |" for name, value in facts.items() if value is not None]
    return "\n".join(parts) + "\n"


def _errors(card: Card) -> list[str]:
    """A table of what was measured, and on what."""
    metrics = card.metrics()
    rows = [(f"{name}, of this file", value) for name, value in metrics["of_this_file"].items()]
    rows += [(f"{name}, of its run", value) for name, value in metrics["of_its_run"].items()]
    lines = ["| measured | value |", "|---|---|"] if rows else []
    lines += [f"| {_cell(name)} | {_cell(value)} |" for name, value in rows]
    found = card.confirmed
    if found is not None and found.openings:
        opened = wording.times(len(found.openings))
        lines += ["", f"Confirmed by {found.study}; the test set was opened {opened} for it."]
    elif found is not None:
        lines += ["", f"Confirmed by {found.study}, without a test set."]
    return [*lines, ""]


def _about(file: str) -> str:
    """What the study file says of itself: its docstring, read without running it."""
    with contextlib.suppress(OSError, SyntaxError, ValueError, UsageError):
        text = ast.get_docstring(ast.parse(find_again(file).read_text()))
        if text:
            return text
    return "A model that was found by a hyperparameter search."


def _use(model_file: Path) -> list[str]:
    shape = _input_shape(model_file)
    said = f"  # {shape}" if shape else ""
    return [
        "```python", "import keras", "",
        'model = keras.models.load_model("model.keras")',
        f"outputs = model.predict(inputs){said}", "```", "",
        "It has Keras's own layers only: nothing else needs to be installed.",
    ]  # fmt: skip


def _input_shape(model_file: Path) -> str:
    """The shape of the inputs, as Keras's file says it; "" where it can't be read."""
    with contextlib.suppress(OSError, KeyError, ValueError, zipfile.BadZipFile):
        with zipfile.ZipFile(model_file) as content:
            config = json.loads(content.read("config.json"))
        for layer in config["config"]["layers"]:
            shape = layer["config"].get("batch_shape")
            if shape:
                return f"of the shape (n, {', '.join(map(str, shape[1:]))})"
    return ""


def _tests(attrs: Mapping[str, Any]) -> dict[str, float]:
    return {
        name: value
        for name, value in attrs.items()
        if name.startswith(TEST_PREFIX) and isinstance(value, int | float) and math.isfinite(value)
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _as_read(value: float, *, share: bool) -> str:
    """A value as people read it."""
    if not math.isfinite(value):
        return "–"
    return f"{value:.2%}".replace("%", " %") if share else f"{value:.4g}"


def _cell(value: object) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return " ".join(text.split()).replace("|", "\\|")
