"""What `tuner export` does: choose a trial, get its model, and write a folder about it."""

import contextlib
import json
import os
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from optuna.trial import TrialState
from rich.console import Console
from rich.text import Text

from tuner.again import Recorded, pick, read_trials, run_again
from tuner.artifacts import MODEL_FILE
from tuner.design import Purpose
from tuner.errors import UsageError
from tuner.flags import Given
from tuner.look import measure
from tuner.model_card import Card, Confirmed, write_card
from tuner.report.cards import CannotDraw
from tuner.report.plots.confirmed import pairs
from tuner.report.results import results_of
from tuner.report.statistics.intervals import t_interval
from tuner.report.statistics.levels import CONFIDENCE
from tuner.settings import RunSettings, artifacts_of, resolve_again, resolve_storage
from tuner.storage import Database, find_confirmations, open_database, read_contents
from tuner.study import find_again

CONFIG, METRICS, CARD = "config.json", "metrics.json", "README.md"
_MADE_BY = "tuner export"  # in config.json: this folder may be replaced


@dataclass(frozen=True)
class Chosen:
    """The trial whose model is exported.

    Attributes:
        why: it was chosen, in words.
        search: the name of the search.
        confirmed: of its configuration, or None.
        trials: how many ended in the search.
    """

    recorded: Recorded
    why: str
    search: str
    confirmed: Confirmed | None
    trials: int


def export_model(given: Given, console: Console) -> None:
    """Write the folder.

    Raises:
        UsageError: there is no model, or the folder is somebody else's.
        TunerError: the trial was run again, and failed.
    """
    values = given.values
    out = Path(os.path.expanduser(values["out"])).absolute()  # noqa: PTH111 - an unknown ~ stays
    _check_folder(out)
    address = resolve_storage(values["storage"])
    with contextlib.closing(open_database(address, read_only=True)) as database:
        chosen = _choose(database, values["study"], values["trial"])
    recorded = chosen.recorded
    artifacts = artifacts_of(given)
    with _model_of(chosen, given, console, artifacts) as model_file:
        card = Card(
            name=chosen.search,
            recorded=recorded,
            why=chosen.why,
            final=values["final"],
            confirmed=chosen.confirmed,
            trials=chosen.trials,
            validated={} if values["final"] else _validated(recorded, given, model_file),
            command=_command(recorded, final=values["final"]),
        )
        _write(out, model_file, card)
    console.print()
    console.print(Text(f"{chosen.why}: {recorded.name}"))
    console.print(Text(card.expected(), style="bold green"))
    console.print(Text(f"The model and its card are in {out}."))


def _choose(database: Database, study: str, number: int | None) -> Chosen:
    """The trial that is asked for; else the confirmed winner's best run; else the best trial."""
    trials = read_trials(database, study)
    ended = sum(it.trial.state in {TrialState.COMPLETE, TrialState.PRUNED} for it in trials)
    if number is not None:
        return Chosen(pick(trials, study, number), "as asked for", study, None, ended)
    confirming = find_confirmations(database, study)
    if confirming and (found := _winner(database, confirming[0], trials)):
        recorded, confirmed = found
        why = (
            f"the winner of {confirmed.study}, its run with the best validation value (not the "
            "best test error)"
        )
        return Chosen(recorded, why, study, confirmed, ended)
    best = _best(trials)
    if best is None:
        raise UsageError(f"{study} has no trial that ran to its end, so it has no model yet.")
    return Chosen(best, "the best trial of the search, not confirmed", study, None, ended)


def _best(trials: list[Recorded]) -> Recorded | None:
    """The complete trial with the best value; of equals the first."""
    complete = [
        it for it in trials if it.trial.state == TrialState.COMPLETE and it.trial.value is not None
    ]
    if not complete:
        return None
    snapshot = complete[0].stored.snapshot
    sign = -1 if snapshot and snapshot.direction == "maximize" else 1
    return min(complete, key=lambda it: (sign * (it.trial.value or 0.0), it.trial.number))


def _winner(
    database: Database, study_id: int, search: list[Recorded]
) -> tuple[Recorded, Confirmed] | None:
    """The best run of the configuration with the lowest mean, and what was found of that."""
    results = results_of(read_contents(database, study_id))
    try:
        runs = pairs(results)
    except CannotDraw:
        return None
    place = runs.comparison().winner if len(runs.labels) > 1 else 0
    errors = runs.errors[:, place]
    errors = errors[np.isfinite(errors)]
    params = runs.params[place]
    ours = [it for it in read_trials(database, results.study) if it.trial.params == params]
    best = _best(ours)
    if best is None:
        return None
    openings = search[0].stored.openings if search else []
    mean = t_interval(errors, CONFIDENCE)
    return best, Confirmed(results.study, runs.scale.label, mean, len(errors), openings)


@contextlib.contextmanager
def _model_of(chosen: Chosen, given: Given, console: Console, artifacts: Path) -> Iterator[Path]:
    """The model's file: as the trial left it, or of its trial run again."""
    recorded, final = chosen.recorded, given.values["final"]
    kept = None if final else recorded.model_file(artifacts)
    if kept is not None:
        with tempfile.TemporaryDirectory(prefix="tuner-export-") as folder:
            named = Path(folder) / MODEL_FILE  # Keras goes by a file's name
            shutil.copyfile(kept, named)
            yield named
        return
    if not final:
        console.print(f"{recorded.name} has no {MODEL_FILE} in {artifacts}: it is run again")
    purpose = Purpose.FINAL if final else Purpose.SEARCH
    with run_again(recorded, given, console, purpose) as again:
        if again.model_file is None:
            raise UsageError(
                f"{recorded.name.capitalize()} left no model: {recorded.stored.snapshot.file} "
                f"does not save one as {MODEL_FILE} in trial.outputs, or the trial was pruned."
                if recorded.stored.snapshot
                else f"{recorded.name.capitalize()} left no model."
            )
        named = again.model_file.with_name(MODEL_FILE)
        shutil.copyfile(again.model_file, named)
        yield named


def _validated(recorded: Recorded, given: Given, model_file: Path) -> dict[str, float]:
    """What the study's validate() says of exactly this file; nothing where it has none."""
    snapshot = recorded.stored.snapshot
    if snapshot is None or "validate" not in snapshot.offers:
        return {}
    try:
        study_file = find_again(snapshot.file)
    except UsageError:  # the file is elsewhere: what was recorded has to do
        return {}
    settings: RunSettings = resolve_again(
        given, study="", study_file=study_file, folder=model_file.parent, precision="float32",
        threads=None,
    )  # fmt: skip
    return measure(study_file, "validate", model_file, settings.worker_variables())


def _command(recorded: Recorded, *, final: bool) -> str:
    number = str(recorded.trial.number)
    words = ["python", "-m", f"tuner.{'export' if final else 'replay'}"]
    words += ["--study", recorded.study, "--trial", number]
    return shlex.join([*words, "--final", "--out", "model"] if final else words)


def _check_folder(out: Path) -> None:
    """Refuse a folder with something else in it.

    Raises:
        UsageError: so it is.
    """
    if out.is_file():
        raise UsageError(f"--out {out} is a file; name a folder, or one to be made.")
    if not out.is_dir() or not any(out.iterdir()):
        return
    try:
        ours = json.loads((out / CONFIG).read_text()).get("made_by") == _MADE_BY
    except (OSError, ValueError, AttributeError):
        ours = False
    if not ours:
        raise UsageError(
            f"--out {out} has files that are no export of this program; name another folder."
        )


def _write(out: Path, model_file: Path, card: Card) -> None:
    """Write the folder beside its place, and put it there whole."""
    fresh = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        fresh.mkdir(parents=True)
        shutil.copyfile(model_file, fresh / MODEL_FILE)
        for name, content in (
            (CONFIG, {"made_by": _MADE_BY, **card.config()}),
            (METRICS, card.metrics()),
        ):
            (fresh / name).write_text(json.dumps(content, indent=2) + "\n")
        (fresh / CARD).write_text(write_card(card, fresh / MODEL_FILE))
        shutil.rmtree(out, ignore_errors=True)
        fresh.replace(out)
    except OSError as error:
        raise UsageError(
            f"--out {out} cannot be written ({error.strerror}); name another folder."
        ) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
