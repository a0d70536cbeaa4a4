"""What `tuner gc` does: choose which files of trials stay, and remove the others.

It is safe while workers work:

- The database is read as it is at one moment, and the folder after it. Only a trial that was
  COMPLETE at that moment loses its files, and an ended trial never runs again.
- What no trial named at that moment may belong to a trial that began or ended since: it goes only
  when it is old.
- The trials forget their files in transactions that hold the study, and only then the files go. A
  kill between the two leaves files that nobody names, which a later gc removes.
- What running processes have in Optuna's cache names files that are gone; they do not open them.
"""

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tuner import wording
from tuner.artifacts import CHECKPOINTS, FILES, Artifacts
from tuner.errors import StudyGone, TunerError, UsageError
from tuner.flags import Given
from tuner.settings import artifacts_of, resolve_storage
from tuner.storage import (
    Database,
    KeptStudy,
    KeptTrial,
    find_study,
    forget_files,
    open_database,
    read_kept,
)

# The best trials of a study whose files are kept: to look at, to export, to choose among.
DEFAULT_KEEP = 5
# A worker stores a trial's files just before the transaction that names them: a file that no trial
# names is left for so long, in seconds.
YOUNG_SECONDS = 3600

# How a study is named in the store. Artifacts of other programs have a plain UUID, and begin with
# eight digits.
_UID = re.compile(r"[0-9a-f]{12}")
_SHOWN_UIDS = 3


@dataclass(frozen=True)
class Sorted:
    """Paths that stay and paths that go, with their sizes in bytes."""

    staying: dict[Path, int]
    going: dict[Path, int]


@dataclass(frozen=True)
class Sweep:
    """What stays and what goes, of one study.

    Attributes:
        forgotten: ids of files whose trials are to name them no more, by the trial's id.
    """

    study: KeptStudy
    forgotten: dict[int, list[str]]
    files: Sorted
    checkpoints: Sorted


def clean(given: Given, console: Console) -> None:
    """Remove what is not needed, and say how much that was.

    Raises:
        UsageError: there is no such study, or it is another program's.
        StorageError: the database cannot be used.
        TunerError: the folder cannot be read, or a file not be removed.
    """
    keep, dry = given.values["keep"], given.values["dry_run"]
    keep = DEFAULT_KEEP if keep is None else keep
    root, address = artifacts_of(given), resolve_storage(given.values["storage"])
    failed: dict[Path, str] = {}
    with contextlib.closing(open_database(address, create=False, read_only=dry)) as database:
        studies = read_kept(database)
        wanted = _named(database, studies, given.values["study"])
        if not _is_readable(root):
            _say(console, f"Nothing to remove: there is no folder {root}.")
            return
        sweeps = sweep(studies, wanted, root, keep)
        if not dry:
            failed = _carry_out(database, sweeps)
    _show(sweeps, console, dry=dry)
    _tell_of_strangers(root, {it.uid for it in studies}, console)
    if failed:
        path, reason = next(iter(failed.items()))
        raise TunerError(
            f"{wording.count(len(failed), 'file')} cannot be removed, the first one is {path} "
            f"({reason}); check its permissions and run again."
        )


def _named(database: Database, ours: list[KeptStudy], names: tuple[str, ...]) -> list[KeptStudy]:
    """The studies of these names; all of ours without one."""
    for name in names:
        study_id = find_study(database, name)
        if study_id not in {it.study_id for it in ours}:
            raise UsageError(
                f"The study {name!r} was made by another program, whose files are left alone; "
                "remove them with that program."
            )
    return [it for it in ours if not names or it.name in names]


def _is_readable(root: Path) -> bool:
    """Whether the store is there: a folder that cannot be read must not look like an empty one."""
    for folder in (root, root / FILES, root / CHECKPOINTS):
        try:
            with os.scandir(folder):
                pass
        except FileNotFoundError:
            if folder == root:
                return False
        except OSError as error:
            raise TunerError(
                f"{folder} cannot be read ({error.strerror}), so nothing was removed; check its "
                "permissions and run again."
            ) from error
    return True


def sweep(studies: list[KeptStudy], wanted: list[KeptStudy], root: Path, keep: int) -> list[Sweep]:
    """Choose what stays of each study.

    Args:
        studies: all of ours that the database has: a copy of a study names the same files.
        wanted: those to be cleaned.
        root: the artifact store's folder.
        keep: how many of a study's best trials keep their files.
    """
    stays = _stays(studies, {it.study_id for it in wanted}, keep)
    sweeps: list[Sweep] = []
    counted: set[str] = set()
    for study in wanted:
        store = Artifacts(root, study.name, study.uid)
        files = _sort(store.files(), lambda path: stays.get(path.name, _is_young(path)))
        gone = {path.name for path in files.going}
        losing = {it.trial_id: [name for name in it.files if name in gone] for it in study.trials}
        forgotten = {trial_id: names for trial_id, names in losing.items() if names}
        if study.uid in counted:
            files = Sorted({}, {})
        counted.add(study.uid)
        checkpoints = _sort(store.checkpoints(), _needed(study))
        sweeps.append(Sweep(study, forgotten, files, checkpoints))
    return sweeps


def _stays(studies: list[KeptStudy], wanted: set[int], keep: int) -> dict[str, bool]:
    """Of each file that is named, whether it stays: whether any study needs it."""
    stays: dict[str, bool] = {}
    for study in studies:
        complete = [it for it in study.trials if it.value is not None]
        losing = {it.number for it in complete} - _best(study, complete, keep)
        for trial in study.trials:
            stay = study.study_id not in wanted or trial.number not in losing
            for it in trial.files:
                stays[it] = stays.get(it, False) or stay
    return stays


def _best(study: KeptStudy, complete: list[KeptTrial], keep: int) -> set[int]:
    """Numbers of the trials that keep their files."""

    def rank(trial: KeptTrial) -> tuple[float, int]:
        value = trial.value or 0.0
        return (-value if study.maximize else value), trial.number

    ranked = sorted(complete, key=rank)
    best = {it.number for it in ranked[:keep]}
    if study.confirms:
        first: dict[str, int] = {}
        for trial in ranked:
            first.setdefault(trial.params, trial.number)
        best |= set(first.values())
    return best


def _needed(study: KeptStudy) -> Callable[[Path], bool]:
    """Whether a checkpoint is: by a trial that has not ended, or one that began since we looked."""
    ended = {str(it.number): it.state.is_finished() for it in study.trials}

    def is_needed(path: Path) -> bool:
        number = path.name.partition(".")[0]
        return not ended[number] if number in ended else _is_young(path)

    return is_needed


def _sort(paths: Iterable[Path], stays: Callable[[Path], bool]) -> Sorted:
    both = Sorted({}, {})
    for path in paths:
        (both.staying if stays(path) else both.going)[path] = _size(path)
    return both


def _is_young(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime < YOUNG_SECONDS
    except OSError:  # it has just gone, or is none of our business
        return True


def _size(path: Path) -> int:
    with contextlib.suppress(OSError):
        return path.stat().st_size
    return 0


def _carry_out(database: Database, sweeps: list[Sweep]) -> dict[Path, str]:
    """Forget and remove; returns what could not be removed, and why."""
    for one in sweeps:
        with contextlib.suppress(StudyGone):  # then nobody names its files
            forget_files(database, one.study.study_id, one.forgotten)
    failed: dict[Path, str] = {}
    for part in (part for one in sweeps for part in (one.files, one.checkpoints)):
        for path in list(part.going):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                failed[path] = error.strerror or str(error)
                part.staying[path] = part.going.pop(path)
    return failed


def _show(sweeps: list[Sweep], console: Console, *, dry: bool) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("study", overflow="fold")
    gone = "to go" if dry else "removed"
    for what in ("files kept", f"files {gone}", "checkpoints kept", f"checkpoints {gone}"):
        table.add_column(what, justify="right")
    freed = removed = 0
    for it in sweeps:
        parts = (it.files.staying, it.files.going, it.checkpoints.staying, it.checkpoints.going)
        if any(parts):
            table.add_row(Text(it.study.name), *(_said(part) for part in parts))
        for part in (it.files.going, it.checkpoints.going):
            removed, freed = removed + len(part), freed + sum(part.values())
    if table.rows:
        console.print(table)
    if not removed:
        words = "Nothing to remove."
    elif dry:
        words = f"{wording.size(freed)} would be freed; nothing was removed."
    else:
        words = f"{wording.size(freed)} are freed."
    _say(console, words)


def _said(part: Mapping[Path, int]) -> str:
    return f"{len(part):,} ({wording.size(sum(part.values()))})" if part else "none"


def _tell_of_strangers(root: Path, uids: set[str], console: Console) -> None:
    """Say what is here of studies that this database does not have: it is not ours to remove."""

    def paths() -> Iterator[tuple[str, Path]]:
        for path in Artifacts.all_files(root):
            yield path.name.partition("-")[0], path
        for path in Artifacts.all_checkpoints(root):
            yield path.parent.name.rpartition("-")[2], path

    sizes: dict[str, list[int]] = {}
    for uid, path in paths():
        if _UID.fullmatch(uid) and uid not in uids:
            sizes.setdefault(uid, []).append(_size(path))
    if sizes:
        every = [it for some in sizes.values() for it in some]
        more = f" or {len(sizes) - _SHOWN_UIDS:,} more" if len(sizes) > _SHOWN_UIDS else ""
        _say(
            console,
            f"Left alone: {wording.count(len(every), 'file')} ({wording.size(sum(every))}) of "
            f"deleted studies, or of another database that shares {root}. If no other one does, "
            f"remove by hand what has in its name {', '.join([*sizes][:_SHOWN_UIDS])}{more}.",
        )


def _say(console: Console, words: str) -> None:
    console.print(words, markup=False, highlight=False)
