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
from typing import Any

import numpy as np
from optuna.trial import TrialState
from rich.console import Console
from rich.text import Text

from tuner.again import Recorded, Rerun, pick, read_trials, run_again
from tuner.artifacts import MODEL_FILE
from tuner.design import Purpose
from tuner.errors import StorageError, UsageError
from tuner.flags import Given
from tuner.look import measure
from tuner.model_card import Card, Confirmed, write_card
from tuner.outcomes import breaks_constraint
from tuner.report.cards import CannotDraw
from tuner.report.plots.confirmed import ConfirmedRuns, pairs
from tuner.report.plots.facts import score_label, turned
from tuner.report.results import results_of
from tuner.report.statistics.intervals import Interval, t_interval
from tuner.report.statistics.levels import CONFIDENCE
from tuner.sameness import Sameness, compare
from tuner.settings import RunSettings, artifacts_of, resolve_again, resolve_storage
from tuner.storage import (
    Database,
    find_confirmations,
    find_study,
    open_database,
    read_contents,
    read_stored,
)
from tuner.study import find_again

CONFIG, METRICS, CARD = "config.json", "metrics.json", "README.md"
_MADE_BY = "tuner export"  # in config.json: these files may be replaced
_UNFINISHED = ".tmp"  # how the name ends of what is being written


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
    with _model_of(chosen, given, console) as model:
        card = Card(
            name=chosen.search,
            recorded=recorded,
            why=chosen.why,
            final=values["final"],
            confirmed=chosen.confirmed,
            trials=chosen.trials,
            validated={} if values["final"] else _validated(recorded, given, model.file),
            command=_command(recorded, final=values["final"]),
            again=model.again,
            sameness=model.sameness,
        )
        _write(out, model.file, card)
    console.print()
    console.print(Text(f"{chosen.why}: {recorded.name}"))
    console.print(Text(card.expected(), style="bold green"))
    if card.made():
        console.print(Text(card.made()))
    console.print(Text(f"The model and its card are in {out}."))


def _choose(database: Database, study: str, number: int | None) -> Chosen:
    """The trial that is asked for; else the confirmed winner's best run; else the best trial."""
    trials = read_trials(database, study)
    search = read_stored(database, study).confirms or study
    of_search = trials
    if search != study:
        with contextlib.suppress(UsageError):  # the search was deleted; its confirmation was not
            of_search = read_trials(database, search)
    ended = sum(it.trial.state in {TrialState.COMPLETE, TrialState.PRUNED} for it in of_search)
    openings = read_stored(database, search).openings
    confirmations = _confirmations(database, study, itself=search != study)
    if number is not None:
        recorded = pick(trials, study, number)
        found = (
            _confirmed(name, runs, runs.params.index(recorded.trial.params), openings)
            for name, runs in confirmations
            if recorded.trial.params in runs.params
        )
        return Chosen(recorded, "as asked for", search, next(found, None), ended)
    for name, runs in confirmations:
        place = runs.comparison().winner if len(runs.labels) > 1 else 0
        params = runs.params[place]
        best = _best([it for it in read_trials(database, name) if it.trial.params == params], name)
        why = (
            f"the winner of {name}, its run with the best validation value (not the best test "
            "error)"
        )
        return Chosen(best, why, search, _confirmed(name, runs, place, openings), ended)
    best = _best(trials, study)
    return Chosen(best, "the best trial of the search, not confirmed", search, None, ended)


def _best(trials: list[Recorded], study: str) -> Recorded:
    """The complete trial with the best value that keeps to its constraints; of equals the first.

    Raises:
        UsageError: there is none, or the study has several objectives.
    """
    complete = [it for it in trials if it.trial.state == TrialState.COMPLETE]
    if not complete:
        raise UsageError(f"{study} has no trial that ran to its end, so it has no model yet.")
    objectives = len(complete[0].trial.values or [])
    if objectives > 1:
        raise UsageError(
            f"{study} has {objectives} objectives, so no trial is the best; name one with --trial."
        )
    feasible = [it for it in complete if not breaks_constraint(it.trial)]
    if not feasible:
        raise UsageError(
            f"No trial of {study} keeps to every constraint, so none is the best; name one with "
            "--trial."
        )
    snapshot = complete[0].stored.snapshot
    sign = -1 if snapshot and snapshot.direction == "maximize" else 1
    return min(feasible, key=lambda it: (sign * (it.trial.value or 0.0), it.trial.number))


def _confirmations(
    database: Database, study: str, *, itself: bool
) -> Iterator[tuple[str, ConfirmedRuns]]:
    """The names and runs of what confirms a study, the latest first; one without runs says nothing.

    Args:
        database: where.
        study: its name.
        itself: it is a confirmation.
    """
    ids = [find_study(database, study)] if itself else find_confirmations(database, study)
    for study_id in ids:
        results = results_of(read_contents(database, study_id))
        with contextlib.suppress(CannotDraw):
            yield results.study, pairs(results)


def _confirmed(
    study: str, runs: ConfirmedRuns, place: int, openings: list[dict[str, Any]]
) -> Confirmed:
    """What the runs say of one of their configurations."""
    errors = runs.errors[:, place]
    errors = errors[np.isfinite(errors)]
    mean, scale = t_interval(errors, CONFIDENCE), runs.scale
    if turned(scale):  # a score that is maximised, as people speak of it
        mean = Interval(-mean.estimate, -mean.high, -mean.low)
    return Confirmed(study, score_label(scale), scale.share, mean, len(errors), openings)


@dataclass(frozen=True)
class Model:
    """A model's file, and the run that made it.

    Attributes:
        again: that run, where it is not the recorded one.
        sameness: of the two, where the file is to be the recorded one's.
    """

    file: Path
    again: Rerun | None = None
    sameness: Sameness | None = None


@contextlib.contextmanager
def _model_of(chosen: Chosen, given: Given, console: Console) -> Iterator[Model]:
    """The model: as the trial left it, or of its trial run again."""
    recorded, final = chosen.recorded, given.values["final"]
    if not final:
        artifacts = artifacts_of(given)
        with tempfile.TemporaryDirectory(prefix="tuner-export-") as folder:
            named = Path(folder) / MODEL_FILE  # Keras goes by a file's name
            if _is_kept(recorded, artifacts, named):
                yield Model(named)
                return
        if recorded.trial.state == TrialState.PRUNED:
            raise UsageError(
                f"{recorded.title} was pruned, so it has no model; choose one that is COMPLETE, "
                "or train its configuration to the end with --final."
            )
        console.print(f"{recorded.name} has no {MODEL_FILE} in {artifacts}: it is run again")
    purpose = Purpose.FINAL if final else Purpose.SEARCH
    with run_again(recorded, given, console, purpose) as again:
        if again.model_file is None:
            snapshot = recorded.stored.snapshot
            raise UsageError(
                f"{recorded.title} left no model: {snapshot.file if snapshot else 'its study'} "
                f"does not save one as {MODEL_FILE} in trial.outputs."
            )
        sameness = None if final else compare(recorded.trial, again.trial).sameness
        yield Model(again.model_file, again, sameness)


def _is_kept(recorded: Recorded, artifacts: str, to: Path) -> bool:
    """Copy the model that the trial left, if it is kept.

    Raises:
        StorageError: the artifact store cannot be read.
    """
    try:
        return recorded.fetch_model(artifacts, to)
    except OSError as error:
        raise StorageError(
            f"The model of {recorded.name} in {artifacts} cannot be read "
            f"({error.strerror or error}); run again when it can be."
        ) from error


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
    if not out.is_dir() or all(it.name.endswith(_UNFINISHED) for it in out.iterdir()):
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
    """Write all files under temporary names, then put them in place; others there are left."""
    there = out.is_dir()
    fresh = (out if there else out.parent) / f".{out.name}.{os.getpid()}{_UNFINISHED}"
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
        if there:
            for name in (CONFIG, MODEL_FILE, METRICS, CARD):  # the mark that they are ours first
                (fresh / name).replace(out / name)
        else:
            fresh.replace(out)
    except OSError as error:
        raise UsageError(
            f"--out {out} cannot be written ({error.strerror}); name another folder."
        ) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
