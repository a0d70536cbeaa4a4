"""What gc keeps and removes, on real databases."""

import io
import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy
from optuna.artifacts import get_all_artifact_meta
from optuna.storages._rdb import models
from optuna.trial import TrialState
from rich.console import Console

from tests.conftest import ENVIRONMENT
from tuner import cleaning
from tuner.artifacts import Artifacts
from tuner.cleaning import DEFAULT_KEEP, YOUNG_SECONDS, clean, sweep
from tuner.errors import StudyGone, TunerError
from tuner.flags import Given
from tuner.gc import gc
from tuner.storage import (
    Claim,
    Claims,
    Database,
    StudyRecord,
    forget_files,
    open_database,
    read_kept,
    register,
    this_process,
)
from tuner.storage.attributes import CONFIRMS_ATTR, add_system_attrs
from tuner.storage.database import session_of
from tuner.storage.tables import claims as claims_table
from tuner.study import Snapshot

ME = this_process()
HOUR_AGO = time.time() - YOUNG_SECONDS - 60
KIND = optuna.distributions.FloatDistribution(0.0, 9.0)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    opened = open_database(database_url)
    yield opened
    opened.close()


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[Database]:
    opened = open_database(f"sqlite:///{tmp_path}/tuner.db")
    yield opened
    opened.close()


def old(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path, (HOUR_AGO, HOUR_AGO))
    return path


def claimed(database: Database, record: StudyRecord, store: Artifacts) -> Claim:
    """A running trial with its checkpoint."""
    claims = Claims(database, record.study_id)
    claim = claims.claim(ME, lambda number: number, target=99, most_failed=9)
    assert isinstance(claim, Claim)
    store.checkpoint(claim.number).parent.mkdir(parents=True, exist_ok=True)
    store.checkpoint(claim.number).write_text("state")
    return claim


def completed(
    database: Database, record: StudyRecord, root: Path, value: float, kind: float | None = None
) -> None:
    """A complete trial with its file."""
    store = Artifacts(root, record.name, record.uid)
    claim = claimed(database, record, store)
    if kind is not None:
        database.backend.set_trial_param(claim.trial_id, "kind", kind, KIND)
    folder = root / "outputs"
    folder.mkdir(exist_ok=True)
    (folder / "model.keras").write_text(f"{record.name} {value}")
    files = store.upload(folder)
    claims = Claims(database, record.study_id)
    assert claims.finish(claim, ME, TrialState.COMPLETE, [value], {}, files)
    for path in store.files():
        os.utime(path, (HOUR_AGO, HOUR_AGO))


def made(
    database: Database, name: str, root: Path, values: list[float], direction: str = "minimize",
    kinds: list[float] | None = None, **attrs: Any,
) -> tuple[StudyRecord, Artifacts]:  # fmt: skip
    """A study with a complete trial and its file for each value; a pruned and a waiting one."""
    root.mkdir(exist_ok=True)
    snapshot = Snapshot(None, "value", direction, None, "study.py", "hash")
    record = register(database, name, snapshot, seed=1, search={}, attrs=attrs)
    store = Artifacts(root, name, record.uid)
    for value, kind in zip(values, kinds or [None] * len(values), strict=True):
        completed(database, record, root, value, kind)
    claims = Claims(database, record.study_id)
    claims.finish(claimed(database, record, store), ME, TrialState.PRUNED, [0.0], {})
    claimed(database, record, store)
    claims.hand_back(ME)
    return record, store


def cleaned(root: Path, url: str, keep: int | None = None, *studies: str, dry: bool = False) -> str:
    """What it says, in 80 columns; as one line."""
    values: Mapping[str, Any] = {
        "keep": keep, "dry_run": dry, "artifacts": str(root), "storage": url, "study": studies
    }  # fmt: skip
    file = io.StringIO()
    clean(Given(values, {}), Console(file=file, width=80))
    assert all(len(line.rstrip()) <= 80 for line in file.getvalue().splitlines())
    return " ".join(file.getvalue().split())


def texts(store: Artifacts) -> list[str]:
    return sorted(it.read_text() for it in store.files())


def rows(database: Database) -> dict[str, list[str]]:
    tables = [*models.BaseModel.metadata.sorted_tables, claims_table]
    with database.backend.engine.connect() as connection:
        return {
            it.name: sorted(map(repr, connection.execute(sqlalchemy.select(it)))) for it in tables
        }


def tree(root: Path) -> dict[str, float]:
    return {str(it): it.stat().st_mtime for it in root.rglob("*") if "tuner.db" not in it.name}


def test_the_best_stay_with_what_can_be_resumed(
    database: Database, database_url: str, tmp_path: Path
) -> None:
    root = tmp_path / "store"
    least, store = made(database, "least", root, [0.3, float("inf"), 0.1, 0.2, 0.1])
    _, greatest = made(database, "greatest", root, [float("-inf"), 0.1, 0.3, 0.2], "maximize")
    _, confirming = made(
        database, "confirm", root, [0.4, 0.3, 0.6, 0.5], kinds=[1.0, 1.0, 2.0, 2.0],
        **{CONFIRMS_ATTR: "least"},
    )  # fmt: skip
    stranger = old(root / "files" / "abcdefabcdef-1", "another database's")
    other_checkpoint = old(root / "checkpoints" / "mnist-fedcbafedcba" / "1.npz", "likewise")
    # What another program attached to a trial, to one that loses its model.
    attached = old(root / "files" / str(uuid.uuid4()), "a picture")
    trial_id = database.backend.get_all_trials(least.study_id)[0]._trial_id
    meta = {"artifact_id": attached.name, "filename": "a.png", "mimetype": "image/png"}
    with session_of(database) as session:
        attrs = {f"artifacts:{attached.name}": json.dumps({**meta, "encoding": None})}
        add_system_attrs(session, trial_id, attrs)
    store.path_of(f"{least.uid}-young").write_text("a worker is about to name it")
    old(store.path_of(f"{least.uid}-orphan"), "a worker was killed before it could")
    store.checkpoint(77).write_text("of a trial that began since")
    old(store.checkpoint(78), "of a trial that somebody deleted")
    half = store.checkpoint(0).with_suffix(".9.tmp")
    half.write_text("killed in the middle")

    before = rows(database), tree(root)
    said = cleaned(root, database_url, 1, dry=True)
    assert "would be freed; nothing was removed." in said
    assert "Left alone: 2 files (26 bytes) of deleted studies, or of another database" in said
    assert "what has in its name abcdefabcdef, fedcbafedcba." in said
    assert (rows(database), tree(root)) == before
    would_free = said.partition(" would be freed")[0].rsplit(" ", 2)[1:]

    said = cleaned(root, database_url, 1)
    assert f"{' '.join(would_free)} are freed." in said
    assert texts(store) == ["a worker is about to name it", "least 0.1"]
    assert texts(greatest) == ["greatest 0.3"]
    assert texts(confirming) == ["confirm 0.3", "confirm 0.5"]  # of each configuration
    assert all(it.exists() for it in (stranger, other_checkpoint, attached))
    assert [it.name for it in store.checkpoints()] == ["6.npz", "77.npz"]  # the waiting trial's
    # Of equal ones the first, and Optuna knows what is gone.
    trials = database.backend.get_all_trials(least.study_id)
    names = [[it.filename for it in get_all_artifact_meta(trial, storage=database.backend)]
             for trial in trials]  # fmt: skip
    assert names == [["a.png"], [], ["model.keras"], [], [], [], []]
    assert "Nothing to remove." in cleaned(root, database_url, 1)
    cleaned(root, database_url, 0, "confirm")
    assert (len(texts(store)), len(texts(confirming))) == (2, 2)  # only the named study, which has
    # at least one of each configuration


def test_a_copy_of_a_study_costs_it_nothing(
    database: Database, database_url: str, tmp_path: Path
) -> None:
    """Optuna copies the id with the study, so that both name the same files."""
    root = tmp_path / "store"
    record, store = made(database, "first", root, [0.3, 0.2])
    optuna.copy_study(
        from_study_name="first", from_storage=database.backend, to_storage=database.backend,
        to_study_name="second",
    )  # fmt: skip
    completed(database, record, root, 0.1)
    cleaned(root, database_url, 1, "second")
    assert texts(store) == ["first 0.1", "first 0.2", "first 0.3"]
    cleaned(root, database_url, 1)
    assert texts(store) == ["first 0.1", "first 0.2"]
    assert [sum(len(it.files) for it in study.trials) for study in read_kept(database)] == [2, 1]


def test_only_trials_that_are_complete_lose_files(sqlite: Database, tmp_path: Path) -> None:
    record, store = made(sqlite, "study", tmp_path / "store", [0.3])
    claim = claimed(sqlite, record, store)
    path = old(store.path_of(f"{record.uid}-early"))
    sqlite.backend.set_trial_system_attr(claim.trial_id, f"artifacts:{path.name}", "{}")
    studies = read_kept(sqlite)
    (found,) = sweep(studies, studies, tmp_path / "store", 0)
    assert list(found.files.staying) == [path]
    assert len(found.files.going) == len(found.forgotten) == 1
    assert {it.name for it in found.checkpoints.staying} == {f"{claim.number}.npz"}
    # What ends after the database was read and before the folder is, stays.
    (tmp_path / "store" / "outputs" / "model.keras").write_text("just now")
    attrs = store.upload(tmp_path / "store" / "outputs")
    Claims(sqlite, record.study_id).finish(claim, ME, TrialState.COMPLETE, [9.0], {}, attrs)
    (found,) = sweep(studies, studies, tmp_path / "store", 0)
    assert sorted(it.read_text() for it in found.files.staying) == ["", "just now"]


def test_a_kill_between_forgetting_and_removing_loses_nothing_and_is_made_good(
    database: Database, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "store"
    record, store = made(database, "study", root, [0.3, 0.1])
    with monkeypatch.context() as killed:
        killed.setattr(Path, "unlink", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            cleaned(root, database_url, 1)
    assert texts(store) == ["study 0.1", "study 0.3"]
    assert [len(it.files) for it in read_kept(database)[0].trials] == [0, 1, 0, 0]
    cleaned(root, database_url, 1)
    assert texts(store) == ["study 0.1"]
    database.backend.delete_study(record.study_id)
    with pytest.raises(StudyGone):
        forget_files(database, record.study_id, {1: ["some"]})


def test_many_trials_take_few_statements(database: Database, tmp_path: Path) -> None:
    record, _ = made(database, "study", tmp_path, [])
    many = 10_000
    trial, attr = models.TrialModel.__table__, models.TrialSystemAttributeModel.__table__
    value = models.TrialValueModel.__table__
    with database.backend.engine.begin() as connection:
        connection.execute(sqlalchemy.insert(trial), [
            {"study_id": record.study_id, "number": 2 + it, "state": "COMPLETE"}
            for it in range(many)
        ])  # fmt: skip
        ids = list(connection.scalars(sqlalchemy.select(trial.c.trial_id).where(
            trial.c.number >= 2)))  # fmt: skip
        connection.execute(sqlalchemy.insert(value), [
            {"trial_id": it, "objective": 0, "value": 0.5, "value_type": "FINITE"} for it in ids
        ])  # fmt: skip
        connection.execute(sqlalchemy.insert(attr), [
            {"trial_id": it, "key": f"artifacts:{record.uid}-{it}", "value_json": "null"}
            for it in ids
        ])  # fmt: skip
    statements: list[str] = []
    sqlalchemy.event.listen(
        database.backend.engine,
        "before_cursor_execute",
        lambda _connection, _cursor, statement, *_: statements.append(statement),
    )
    (study,) = read_kept(database)
    assert len(study.trials) == many + 2
    assert len(statements) < 15
    statements.clear()
    half = {it.trial_id: it.files for it in study.trials[2 : 2 + many // 2]}
    forget_files(database, record.study_id, half)
    assert len(statements) <= 5 * 4  # five batches: hold, find, remove; SQLite's BEGIN
    assert sum(len(it.files) for it in read_kept(database)[0].trials) == many // 2


def test_what_the_command_says(
    sqlite: Database,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root = tmp_path / "store"
    record, store = made(sqlite, "a [bold] one", root, [0.3, 0.1])
    optuna.create_study(study_name="theirs", storage=sqlite.backend)
    flags = ["--storage", f"sqlite:///{tmp_path}/tuner.db", "--artifacts"]

    def said(*more: str) -> str:
        gc.main([*flags, *more], standalone_mode=False)
        return " ".join(capsys.readouterr().out.split())

    before = rows(sqlite)
    nowhere = str(tmp_path / "nowhere")
    assert said(nowhere, "--keep", "0") == f"Nothing to remove: there is no folder {nowhere}."
    assert rows(sqlite) == before
    for name, words in (("one", "There is no study 'one' in "), ("theirs", "by another program")):
        with pytest.raises(TunerError, match=words):
            said(str(root), "--study", name)
    help_of_keep = next(it for it in gc.params if it.name == "keep").help  # type: ignore[attr-defined]
    assert f"[default: {DEFAULT_KEEP}]" in help_of_keep
    with monkeypatch.context() as watched:
        watched.setattr(cleaning, "open_database", lambda address, create, read_only: (
            open_database(address, read_only=True) if read_only else 1 / 0))  # fmt: skip
        out = said(str(root), "--dry-run")
    # Its two models stay; the checkpoints of the three trials that ended go.
    assert "a [bold] one 2 (32 bytes) none 1 (5 bytes) 3 (15 bytes) 15 bytes would be freed" in out

    # What cannot be removed is told after all the others went, and is not counted.
    stubborn = store.path_of(f"{record.uid}-folder")
    stubborn.mkdir()
    os.utime(stubborn, (HOUR_AGO, HOUR_AGO))
    done = subprocess.run(
        [sys.executable, "-m", "tuner.gc", *flags, str(root), "--keep", "1"],
        cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("error: 1 file cannot be removed, the first one is ")
    assert done.stderr.count("\n") == 1
    assert "31 bytes are freed." in done.stdout
    assert [it.name for it in store.files() if it.is_dir()] == [stubborn.name]
    assert [it.read_text() for it in store.files() if it.is_file()] == ["a [bold] one 0.1"]


def test_a_folder_that_cannot_be_read_does_not_look_empty(
    sqlite: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(sqlite, "study", tmp_path / "store", [0.3])

    scandir = os.scandir

    def deny(folder: Path) -> Any:
        if folder == tmp_path / "store" / "files":
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(cleaning.os, "scandir", deny)
    with pytest.raises(TunerError, match=r"files cannot be read \(Permission denied\), so"):
        cleaned(tmp_path / "store", f"sqlite:///{tmp_path}/tuner.db", 0)
