"""What optuna-dashboard shows of a study beside its trials: the study's system attributes.

The dashboard writes them one by one, a transaction each. Here all that changes is written in one,
and nothing where nothing does. The names and the pieces are those of optuna-dashboard 0.21
(``_note.py``, ``_custom_plot_data.py``): importing it takes a second.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

from optuna.storages._rdb import models
from sqlalchemy import delete, insert, select, update

from tuner.artifacts import ARTIFACTS_ATTR_PREFIX
from tuner.storage.database import Database, locked_study, session_of

# Of a note: the key of its version, and what those of its pieces begin with.
NOTE_VERSION, NOTE_PIECE = "dashboard:note_ver", "dashboard:note_str:"
# Before a figure's id, which a colon and the number of the piece follow.
GRAPH = "dashboard:plot_data:"
# Characters of a piece.
PIECE = 2_045

# Rows that go in one statement: SQLite takes 32,766 variables.
_AT_ONCE = 1_000

Change = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""From a study's system attributes to those that shall be; a value None removes one."""


def change_shown(database: Database, study_id: int, change: Change) -> int:
    """Change system attributes of a study in one transaction, which holds the study.

    Args:
        database: where.
        study_id: of the study.
        change: says what shall be, from what is there; called again when the database was away.

    Returns:
        How many attributes were written or removed.

    Raises:
        StudyGone: somebody deleted the study.
    """
    attr: Any = models.StudySystemAttributeModel

    def write(_again: bool) -> int:  # noqa: FBT001 - the callback's signature
        with locked_study(database, study_id) as session:
            rows = session.execute(
                select(attr.study_system_attribute_id, attr.key, attr.value_json)
                .where(attr.study_id == study_id)
                # optuna-dashboard does not hold the study: a note that somebody saves waits for us.
                .with_for_update()
            ).all()
            ids = {key: row_id for row_id, key, _ in rows}
            there = {key: json.loads(text) for _, key, text in rows}
            wanted = change(there)
            going = [ids[key] for key, value in wanted.items() if value is None and key in ids]
            kept = {key: value for key, value in wanted.items() if value is not None}
            changed = [it for it in kept if it in ids and there[it] != kept[it]]
            new = [
                {"study_id": study_id, "key": it, "value_json": json.dumps(kept[it])}
                for it in kept
                if it not in ids
            ]
            for start in range(0, len(going), _AT_ONCE):
                some = going[start : start + _AT_ONCE]
                session.execute(
                    delete(attr)
                    .where(attr.study_system_attribute_id.in_(some))
                    .execution_options(synchronize_session=False)
                )
            if changed:
                session.execute(
                    update(attr),
                    [
                        {"study_system_attribute_id": ids[it], "value_json": json.dumps(kept[it])}
                        for it in changed
                    ],
                )
            if new:
                session.execute(insert(attr), new)
        return len(going) + len(changed) + len(new)

    return database.patience.run(write)


def note_of(there: Mapping[str, Any]) -> tuple[int, str]:
    """The version and the text of a study's note; 0 and "" without one.

    Args:
        there: the study's system attributes.
    """
    pieces = [key for key in there if key.startswith(NOTE_PIECE)]
    numbers = (f"{NOTE_PIECE}{number}" for number in range(len(pieces)))
    return int(there.get(NOTE_VERSION, 0)), "".join(str(there.get(key, "")) for key in numbers)


def note_change(there: Mapping[str, Any], text: str) -> dict[str, Any]:
    """What makes a text the study's note, under the next version; nothing if it is."""
    version, now = note_of(there)
    if text == now:
        return {}
    return _pieces(there, NOTE_PIECE, {NOTE_PIECE: text}) | {NOTE_VERSION: version + 1}


def graph_change(there: Mapping[str, Any], graphs: Mapping[str, str], ours: str) -> dict[str, Any]:
    """What makes these the figures of a study whose ids begin with ``ours``; others stay.

    Args:
        there: the study's system attributes.
        graphs: figures as Plotly's JSON, by id.
        ours: a beginning of ids.
    """
    return _pieces(there, f"{GRAPH}{ours}", {f"{GRAPH}{it}:": graphs[it] for it in graphs})


def _pieces(there: Mapping[str, Any], ours: str, texts: Mapping[str, str]) -> dict[str, Any]:
    """Texts in pieces, each behind its own beginning of keys; what else begins like ours goes."""
    wanted: dict[str, Any] = {key: None for key in there if key.startswith(ours)}
    for prefix, text in texts.items():
        for number, start in enumerate(range(0, len(text), PIECE)):
            wanted[f"{prefix}{number}"] = text[start : start + PIECE]
    return wanted


def read_artifact_attrs(database: Database, study_id: int, number: int) -> dict[str, str]:
    """The system attributes by which a trial names its files, as Optuna keeps them.

    Args:
        database: where.
        study_id: of the study.
        number: of the trial.
    """
    trial, attr = models.TrialModel, models.TrialSystemAttributeModel

    def read(_again: bool) -> dict[str, str]:  # noqa: FBT001
        with session_of(database) as session:
            rows = session.execute(
                select(attr.key, attr.value_json)
                .join(trial, trial.trial_id == attr.trial_id)
                .where(
                    trial.study_id == study_id,
                    trial.number == number,
                    attr.key.startswith(ARTIFACTS_ATTR_PREFIX, autoescape=True),
                )
            )
            return {key: json.loads(text) for key, text in rows}

    return database.patience.run(read)
