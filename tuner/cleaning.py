"""What `tuner gc` does: choose which files of trials stay, and remove the others.

Safe while workers work: a file is removed only when its trial has ended and no longer names it, or
when no trial has named it for an hour. A kill between the two leaves a file that nobody names,
which the next one removes.
"""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tuner import wording
from tuner.artifacts import Artifacts
from tuner.errors import TunerError, UsageError
from tuner.flags import Given
from tuner.settings import artifacts_of, resolve_storage
from tuner.storage import KeptStudy, KeptTrial, forget_files, open_database, read_kept
from tuner.wording import closest

# The best trials of a study whose files are kept: to look at, to export, to choose among.
DEFAULT_KEEP = 5
# A worker stores a trial's files just before the transaction that names them: a file that no trial
# names is left for so long, in seconds.
YOUNG_SECONDS = 3600


@dataclass(frozen=True)
class Sweep:
    """What stays and what goes, of one study.

    Attributes:
        forgotten: ids of files whose trials are to name them no more.
        going: files, with their sizes in bytes.
        staying: likewise.
    """

    study: KeptStudy
    forgotten: list[str]
    going: dict[Path, int]
    staying: dict[Path, int]


def clean(given: Given, console: Console) -> None:
    """Remove what is not needed, and say how much that was.

    Raises:
        UsageError: there is no such study.
        TunerError: a file cannot be removed.
    """
    keep, dry = given.values["keep"], given.values["dry_run"]
    keep = DEFAULT_KEEP if keep is None else keep
    root, address = artifacts_of(given), resolve_storage(given.values["storage"])
    with contextlib.closing(open_database(address, create=False, read_only=dry)) as database:
        kept = read_kept(database)
        sweeps = [sweep(it, root, keep) for it in _named(kept, given.values["study"])]
        failed: list[str] = []
        if not dry:
            for one in sweeps:
                forget_files(database, one.study.study_id, one.forgotten)
                failed += _remove(one.going)
    _show(sweeps, console, dry=dry)
    strangers = _strangers(root, {it.uid for it in kept})
    if strangers:
        console.print(
            f"Left alone: {wording.count(len(strangers), 'file')} "
            f"({wording.size(sum(strangers.values()))}) of no study in this database; of another "
            f"database that shares {root}, or of deleted studies."
        )
    if failed:
        raise TunerError(
            f"{wording.count(len(failed), 'file')} cannot be removed, the first one is {failed[0]};"
            " check its permissions and run again."
        )


def _named(kept: list[KeptStudy], names: tuple[str, ...]) -> list[KeptStudy]:
    known = [it.name for it in kept]
    for name in names:
        if name not in known:
            raise UsageError(f"There is no study {name!r} with files; {closest(name, known)}")
    return [it for it in kept if not names or it.name in names]


def sweep(study: KeptStudy, root: Path, keep: int) -> Sweep:
    """Choose what stays of a study.

    Args:
        study: as the database has it.
        root: the artifact store's folder.
        keep: how many of its best trials keep their files.
    """
    store = Artifacts(root, study.name, study.uid)
    stays = _staying(study, keep)
    named = {it: trial.number in stays for trial in study.trials for it in trial.files}
    going: dict[Path, int] = {}
    staying: dict[Path, int] = {}
    for path in store.files():
        stay = named.get(path.name, _is_young(path))
        (staying if stay else going)[path] = _size(path)
    for path in store.checkpoints():
        number = path.name.partition(".")[0]
        stay = (number.isdigit() and int(number) in study.unfinished) or _is_young(path)
        (staying if stay else going)[path] = _size(path)
    return Sweep(study, [it for it, stay in named.items() if not stay], going, staying)


def _staying(study: KeptStudy, keep: int) -> set[int]:
    """Numbers of the trials that keep their files; all of a study with several objectives."""

    def rank(trial: KeptTrial) -> tuple[float, int]:
        value = trial.value or 0.0
        return (-value if study.maximize else value), trial.number

    complete = [it for it in study.trials if it.complete]
    ranked = sorted((it for it in complete if it.value is not None), key=rank)
    stays = {it.number for it in ranked[:keep]} | {it.number for it in complete if it.value is None}
    if study.confirms:
        best_of: dict[str, int] = {}
        for trial in ranked:
            best_of.setdefault(trial.params, trial.number)
        stays |= set(best_of.values())
    return stays


def _is_young(path: Path) -> bool:
    with contextlib.suppress(OSError):
        return time.time() - path.stat().st_mtime < YOUNG_SECONDS
    return False


def _size(path: Path) -> int:
    with contextlib.suppress(OSError):
        return path.stat().st_size
    return 0


def _remove(files: dict[Path, int]) -> list[str]:
    """Remove files; those that cannot be are returned with the reason."""
    failed = []
    for path in files:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            failed.append(f"{path} ({error.strerror})")
    return failed


def _strangers(root: Path, uids: set[str]) -> dict[Path, int]:
    """Files that are of no study in the database, with their sizes."""

    def paths() -> Iterator[tuple[str, Path]]:
        for path in Artifacts.all_files(root):
            yield path.name.partition("-")[0], path
        for path in Artifacts.all_checkpoints(root):
            yield path.parent.name.rpartition("-")[2], path

    return {path: _size(path) for uid, path in paths() if uid not in uids}


def _show(sweeps: list[Sweep], console: Console, *, dry: bool) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("study", overflow="fold")
    table.add_column("would go" if dry else "removed", justify="right")
    table.add_column("kept", justify="right")
    shown = [it for it in sweeps if it.going or it.staying]
    for it in shown:
        table.add_row(it.study.name, _said(it.going), _said(it.staying))
    if shown:
        console.print(table)
    freed = sum(sum(it.going.values()) for it in sweeps)
    if not any(it.going for it in sweeps):
        console.print("Nothing to remove.")
    elif dry:
        console.print(f"{wording.size(freed)} would be freed; nothing was removed.")
    else:
        console.print(f"{wording.size(freed)} are freed.")


def _said(files: dict[Path, int]) -> str:
    if not files:
        return "none"
    return f"{wording.count(len(files), 'file')}, {wording.size(sum(files.values()))}"
