"""Studies from the database: one or several, with what confirms them."""

import contextlib
from collections.abc import Sequence

from tuner.flags import without_command
from tuner.report.material import Material
from tuner.report.results import Results, results_of
from tuner.settings import resolve_storage
from tuner.storage import Database, find_confirmations, find_study, open_database, read_contents


def read_one(study: str, storage: str | None) -> Results:
    """A study's results; see `tuner.report.load`."""
    address = resolve_storage(storage or without_command("storage"))
    with contextlib.closing(open_database(address, read_only=True)) as database:
        return _read(database, find_study(database, study))


def read_materials(database: Database, studies: Sequence[str]) -> list[Material]:
    """What the chapters of these studies are made from.

    Raises:
        UsageError: there is no such study.
    """
    ids = [find_study(database, name) for name in studies]  # all names first
    found = []
    for name, study_id in zip(studies, ids, strict=True):
        confirming, results = find_confirmations(database, name), _read(database, study_id)
        itself = results if results.stored.confirms else None  # then its own pairs are the finding
        confirm = _read(database, confirming[0]) if confirming else itself
        found.append(Material(results, confirm))
    return found


def _read(database: Database, study_id: int) -> Results:
    return results_of(read_contents(database, study_id))
