"""What `tuner gc` does: choose which files of trials stay, and remove the others.

It is safe while workers work:

- The database is read as it is at one moment, and the store after it. Only a trial that was
  COMPLETE at that moment loses its files, and an ended trial never runs again.
- What no trial named at that moment may belong to a trial that began or ended since: it goes only
  when it is old.
- The trials forget their files in transactions that hold the study, and only then the files go. A
  kill between the two leaves files that nobody names, which a later gc removes.
- What running processes have in Optuna's cache names files that are gone; they do not open them.
"""

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tuner import wording
from tuner.artifacts import Artifacts, open_store
from tuner.dominance import front
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
from tuner.stores import CHECKPOINTS, FILES, Store, Stored

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
    """What stays in the store and what goes."""

    staying: list[Stored]
    going: list[Stored]


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
        TunerError: the store cannot be read, or a file not be removed.
    """
    keep, dry = given.values["keep"], given.values["dry_run"]
    keep = DEFAULT_KEEP if keep is None else keep
    store, address = open_store(artifacts_of(given)), resolve_storage(given.values["storage"])
    failed: dict[str, str] = {}
    with contextlib.closing(open_database(address, create=False, read_only=dry)) as database:
        studies = read_kept(database)
        wanted = _named(database, studies, given.values["study"])
        if not store.is_there():
            _say(console, f"Nothing to remove: there is no folder {store.address}.")
            return
        with _reading(store):
            sweeps = sweep(studies, wanted, store, keep)
        if not dry:
            failed = _carry_out(database, store, sweeps)
    _show(sweeps, console, dry=dry)
    with _reading(store):
        _tell_of_strangers(store, {it.uid for it in studies}, console)
    if failed:
        name, reason = next(iter(failed.items()))
        raise TunerError(
            f"{wording.count(len(failed), 'file')} cannot be removed, the first one is "
            f"{store.address}/{name} ({reason}); check its permissions and run again."
        )


@contextlib.contextmanager
def _reading(store: Store) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise TunerError(
            f"{store.address} cannot be read ({error.strerror or error}); run again when it can be."
        ) from error


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


def sweep(
    studies: list[KeptStudy], wanted: list[KeptStudy], store: Store, keep: int
) -> list[Sweep]:
    """Choose what stays of each study.

    Args:
        studies: all of ours that the database has: a copy of a study names the same files.
        wanted: those to be cleaned.
        store: the artifact store.
        keep: how many of a study's best trials keep their files.

    Raises:
        OSError: the store cannot be read.
    """
    stays = _stays(studies, {it.study_id for it in wanted}, keep)
    sweeps: list[Sweep] = []
    counted: set[str] = set()
    for study in wanted:
        artifacts = Artifacts(store, study.name, study.uid)
        files = _sort(artifacts.files(), lambda it: stays.get(it.last, _is_young(it)))
        gone = {it.last for it in files.going}
        losing = {it.trial_id: [name for name in it.files if name in gone] for it in study.trials}
        forgotten = {trial_id: names for trial_id, names in losing.items() if names}
        if study.uid in counted:
            files = Sorted([], [])
        counted.add(study.uid)
        checkpoints = _sort(artifacts.checkpoints(), _needed(study))
        sweeps.append(Sweep(study, forgotten, files, checkpoints))
    return sweeps


def _stays(studies: list[KeptStudy], wanted: set[int], keep: int) -> dict[str, bool]:
    """Of each file that is named, whether it stays: whether any study needs it."""
    stays: dict[str, bool] = {}
    for study in studies:
        complete = [it for it in study.trials if it.values is not None]
        losing = {it.number for it in complete} - _best(study, complete, keep)
        for trial in study.trials:
            stay = study.study_id not in wanted or trial.number not in losing
            for it in trial.files:
                stays[it] = stays.get(it, False) or stay
    return stays


def _best(study: KeptStudy, complete: list[KeptTrial], keep: int) -> set[int]:
    """Numbers of the trials that keep their files; of several objectives those none beats."""

    def rank(trial: KeptTrial) -> tuple[bool, float, int]:
        value = (trial.values or [0.0])[0]
        better = value if study.directions[0] == "minimize" else -value
        return not trial.feasible, better, trial.number

    if len(study.directions) > 1:
        weighed = {it.number: it.values for it in complete if it.feasible and it.values}
        return front(weighed, study.directions)
    ranked = sorted(complete, key=rank)
    best = {it.number for it in ranked[:keep]}
    if study.confirms:
        first: dict[str, int] = {}
        for trial in ranked:
            first.setdefault(trial.params, trial.number)
        best |= set(first.values())
    return best


def _needed(study: KeptStudy) -> Callable[[Stored], bool]:
    """Whether a checkpoint is: by a trial that has not ended, or one that began since we looked."""
    ended = {str(it.number): it.state.is_finished() for it in study.trials}

    def is_needed(checkpoint: Stored) -> bool:
        number = checkpoint.last.partition(".")[0]
        return not ended[number] if number in ended else _is_young(checkpoint)

    return is_needed


def _sort(found: Iterable[Stored], stays: Callable[[Stored], bool]) -> Sorted:
    both = Sorted([], [])
    for it in found:
        (both.staying if stays(it) else both.going).append(it)
    return both


def _is_young(file: Stored) -> bool:
    return file.age < YOUNG_SECONDS


def _carry_out(database: Database, store: Store, sweeps: list[Sweep]) -> dict[str, str]:
    """Forget and remove; returns the names of what could not be removed, and why."""
    for one in sweeps:
        with contextlib.suppress(StudyGone):  # then nobody names its files
            forget_files(database, one.study.study_id, one.forgotten)
    parts = [part for one in sweeps for part in (one.files, one.checkpoints)]
    failed = store.remove([it.name for part in parts for it in part.going])
    for part in parts:
        part.staying.extend(it for it in part.going if it.name in failed)
        part.going[:] = [it for it in part.going if it.name not in failed]
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
            removed, freed = removed + len(part), freed + _sum(part)
    if table.rows:
        console.print(table)
    if not removed:
        words = "Nothing to remove."
    elif dry:
        words = f"{wording.size(freed)} would be freed; nothing was removed."
    else:
        words = f"{wording.size(freed)} are freed."
    _say(console, words)


def _sum(part: list[Stored]) -> int:
    return sum(it.size for it in part)


def _said(part: list[Stored]) -> str:
    return f"{len(part):,} ({wording.size(_sum(part))})" if part else "none"


def _tell_of_strangers(store: Store, uids: set[str], console: Console) -> None:
    """Say what is here of studies that this database does not have: it is not ours to remove."""

    def by_uid() -> Iterator[tuple[str, Stored]]:
        for it in store.find(f"{FILES}/*"):
            yield it.last.partition("-")[0], it
        for it in store.find(f"{CHECKPOINTS}/*/*"):
            yield it.name.rpartition("/")[0].rpartition("-")[2], it

    sizes: dict[str, list[int]] = {}
    for uid, it in by_uid():
        if _UID.fullmatch(uid) and uid not in uids:
            sizes.setdefault(uid, []).append(it.size)
    if sizes:
        every = [it for some in sizes.values() for it in some]
        more = f" or {len(sizes) - _SHOWN_UIDS:,} more" if len(sizes) > _SHOWN_UIDS else ""
        _say(
            console,
            f"Left alone: {wording.count(len(every), 'file')} ({wording.size(sum(every))}) of "
            f"deleted studies, or of another database that shares {store.address}. If no other one "
            f"does, remove by hand what has in its name {', '.join([*sizes][:_SHOWN_UIDS])}{more}.",
        )


def _say(console: Console, words: str) -> None:
    console.print(words, markup=False, highlight=False)
