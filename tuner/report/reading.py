"""Studies from the database: one or several, what confirms them, and files of the best trials."""

import contextlib
import logging
from collections.abc import Mapping, Sequence

from optuna.artifacts.exceptions import ArtifactNotFound

from tuner.artifacts import ARTIFACT_ID, MISTAKES_FILE, MODEL_FILE, named, store_of
from tuner.errors import TunerError
from tuner.flags import without_command
from tuner.report.material import Material
from tuner.report.mistakes import MOST_BYTES, BadMistakes, Mistakes, parsed
from tuner.report.results import Results, results_of
from tuner.settings import resolve_storage
from tuner.storage import (
    Database,
    find_confirmations,
    find_study,
    open_database,
    read_artifact_attrs,
    read_contents,
)

_log = logging.getLogger(__name__)


def read_one(study: str, storage: str | None) -> Results:
    """A study's results; see `tuner.report.load`."""
    address = resolve_storage(storage or without_command("storage"))
    with contextlib.closing(open_database(address, read_only=True)) as database:
        return _read(database, find_study(database, study))


def read_materials(
    database: Database, studies: Sequence[str], artifacts: str | None = None
) -> list[Material]:
    """What the chapters of these studies are made from.

    Args:
        database: an open one.
        studies: their names.
        artifacts: the artifact store with the trials' files, or None to do without.

    Raises:
        UsageError: there is no such study.
    """
    ids = [find_study(database, name) for name in studies]  # all names first
    found = []
    for name, study_id in zip(studies, ids, strict=True):
        confirming, results = find_confirmations(database, name), _read(database, study_id)
        itself = results if results.stored.confirms else None  # then its own pairs are the finding
        confirm = _read(database, confirming[0]) if confirming else itself
        mistakes = None
        if artifacts is not None and results.best is not None:
            attrs = read_artifact_attrs(database, study_id, results.best)
            mistakes = _mistakes_of(results.best, attrs, artifacts)
        found.append(Material(results, confirm, mistakes))
    return found


def _read(database: Database, study_id: int) -> Results:
    return results_of(read_contents(database, study_id))


def files_of(attrs: Mapping[str, str]) -> dict[str, str]:
    """The names of a trial's files, by their ids; empty where the attributes are of no use.

    Args:
        attrs: see `tuner.storage.read_artifact_attrs`.
    """
    try:
        return dict(named(dict(attrs)))
    except (ValueError, KeyError, TypeError):  # another program's, or damaged
        return {}


def _mistakes_of(number: int, attrs: Mapping[str, str], artifacts: str) -> Mistakes | str | None:
    """What the best trial's model gets wrong, or why that is not known; None: it left no model."""
    names = files_of(attrs)
    ids = [it for it, name in names.items() if name == MISTAKES_FILE]
    if not ids:
        left_model = MODEL_FILE in names.values()
        return f"Trial {number}, the best one, left no {MISTAKES_FILE}." if left_model else None
    which = f"{MISTAKES_FILE} of trial {number}, the best one,"
    try:
        content = _fetched(ids, artifacts)
    except Exception as error:  # noqa: BLE001 - a store's client raises what it likes
        _log.debug("the artifact store failed", exc_info=True)
        known = str(error) if isinstance(error, TunerError) else getattr(error, "strerror", None)
        reason = (known or type(error).__name__).removesuffix(".")
        return f"The file {which} cannot be read from {artifacts}: {reason}."
    if content is None:
        return (
            f"The file {which} is not in {artifacts}: name the store that the workers use with "
            "--artifacts."
        )
    try:
        return parsed(content)
    except BadMistakes as error:
        return f"The file {which} cannot be used: {error}."


def _fetched(ids: Sequence[str], artifacts: str) -> bytes | None:
    """The first of these files that is in the store, as far as it may be long."""
    store = store_of(artifacts)
    for artifact_id in ids:
        if ARTIFACT_ID.fullmatch(artifact_id):
            with contextlib.suppress(ArtifactNotFound), store.open_reader(artifact_id) as file:
                return file.read(MOST_BYTES + 1)
    return None
