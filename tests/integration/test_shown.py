"""What optuna-dashboard shows beside the trials: written in one go, read by the dashboard's own."""

import contextlib
import json
from typing import Any

import optuna
from optuna_dashboard import _custom_plot_data as plot_data
from optuna_dashboard import _note as notes
from plotly import graph_objects as go

from tuner.storage import change_shown, open_database, read_artifact_attrs
from tuner.storage.attributes import TRIAL_FIRST, TRIAL_LAST
from tuner.storage.shown import GRAPH, NOTE_PIECE, NOTE_VERSION, PIECE, graph_change, note_change


def test_names_and_pieces_are_the_dashboards() -> None:
    assert notes.note_ver_key(None) == NOTE_VERSION
    assert notes.note_str_key_prefix(None) == NOTE_PIECE
    assert plot_data.SYSTEM_ATTR_PLOT_DATA == GRAPH
    assert notes.SYSTEM_ATTR_MAX_LENGTH == plot_data.SYSTEM_ATTR_MAX_LENGTH == PIECE


def test_only_what_changes_is_written_and_the_dashboard_reads_it(database_url: str) -> None:
    with contextlib.closing(open_database(database_url)) as database:
        storage = database.storage
        study = optuna.create_study(storage=storage, study_name="a")
        study_id = study._study_id
        storage.set_study_system_attr(study_id, "artifacts:theirs", "{}")
        theirs = go.Figure(go.Scatter(y=[1, 2]))
        import optuna_dashboard

        optuna_dashboard.save_plotly_graph_object(study, theirs, graph_object_id="theirs")
        optuna_dashboard.save_note(study, "what was there, " * 300)  # of several pieces

        def write(note: str, graphs: dict[str, str]) -> int:
            return change_shown(
                database,
                study_id,
                lambda there: note_change(there, note) | graph_change(there, graphs, "tuner-"),
            )

        long, short = "ä | \n" * 2_000, "short"
        graphs = {"tuner-1": "[1]" * 3_000, "tuner-2": "{}"}
        assert write(long, graphs) > 8
        assert write(long, graphs) == 0
        now = storage.get_study_system_attrs(study_id)
        assert notes.get_note_from_system_attrs(now, None) == {"version": 2, "body": long}
        found = plot_data.get_plotly_graph_objects(now)
        assert {it: found[it] for it in graphs} == graphs
        assert json.loads(found["theirs"]) == json.loads(theirs.to_json())
        assert write(short, {"tuner-1": "{}"}) > 4  # what is left over goes
        now = storage.get_study_system_attrs(study_id)
        assert notes.get_note_from_system_attrs(now, None) == {"version": 3, "body": short}
        found = plot_data.get_plotly_graph_objects(now)
        assert set(found) == {"tuner-1", "theirs"}
        assert found["tuner-1"] == "{}"
        assert now["artifacts:theirs"] == "{}"
        assert notes.version_is_incremented(now, None, 4)  # somebody who edits it now can save
        assert sum(key.startswith(NOTE_PIECE) for key in now) == 1


def test_attributes_come_in_the_order_in_which_people_look(database_url: str) -> None:
    names = [*TRIAL_LAST, "an_own_one", *TRIAL_FIRST]
    files = {"artifacts:1-2": json.dumps({"artifact_id": "1-2", "filename": "x"})}
    trial = optuna.trial.create_trial(
        value=1.0, user_attrs=dict.fromkeys(sorted(names), 1), system_attrs={**files, "other": "1"}
    )
    with contextlib.closing(open_database(database_url)) as database:
        study = optuna.create_study(storage=database.storage, study_name="a")
        study.add_trials([trial, trial])
        attrs: dict[str, Any] = {
            "tuner:definition": {}, "environment:abc": {}, "tuner:seed": 1, "tuner:search": {},
            "an_own_one": 1,
        }  # fmt: skip
        for name, value in attrs.items():
            study.set_user_attr(name, value)
        expected = [*TRIAL_FIRST, "an_own_one", *TRIAL_LAST]
        for stored in database.storage.get_all_trials(study._study_id):
            assert list(stored.user_attrs) == expected
        [shown] = database.storage.get_all_studies()
        assert list(shown.user_attrs) == [
            "an_own_one", "tuner:search", "tuner:seed", "environment:abc", "tuner:definition",
        ]  # fmt: skip
        assert read_artifact_attrs(database, study._study_id, 1) == files
        assert read_artifact_attrs(database, study._study_id, 2) == {}
