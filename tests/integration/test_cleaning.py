"""What gc keeps and removes, on real databases."""

import io
import json
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import optuna
import pytest
import sqlalchemy
from optuna.artifacts import get_all_artifact_meta
from optuna.storages._rdb import models
from optuna.trial import TrialState
from rich.console import Console

from tests.conftest import ENVIRONMENT, Bucket
from tuner import cleaning, stores
from tuner.artifacts import Artifacts, named, open_store
from tuner.cleaning import DEFAULT_KEEP, YOUNG_SECONDS, clean, sweep
from tuner.errors import StudyGone, TunerError
from tuner.flags import Given
from tuner.gc import gc
from tuner.s3 import S3Store
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
from tuner.stores import Stored
from tuner.study import Snapshot

ME = this_process()
HOUR_AGO = time.time() - YOUNG_SECONDS - 60
KIND = optuna.distributions.FloatDistribution(0.0, 9.0)


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[Database]:
    opened = open_database(f"sqlite:///{tmp_path}/tuner.db")
    yield opened
    opened.close()


class Shelf:
    """What lies in an artifact store of either kind.

    Args:
        store: where.
        bucket: its bucket, if it is one. Nobody can make a bucket's files old: those that are meant
            to be are told as such.
    """

    aged: ClassVar[set[str]] = set()  # names of old files in buckets

    def __init__(self, place: str | Path, bucket: Bucket | None = None) -> None:
        self.store, self.bucket = open_store(str(place)), bucket
        self.root = Path(self.store.address)

    def put(self, name: str, text: str = "") -> str:
        """Put a file; returns its name."""
        if self.bucket is None:
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            (self.root / name).write_text(text)
        else:
            _, _, bucket, prefix = self.store.address.split("/", 3)
            self.bucket.client.put_object(Bucket=bucket, Key=f"{prefix}/{name}", Body=text.encode())
        return name

    def age(self, *names: str) -> None:
        """Make files old; all that trials have left without a name."""
        for name in names or [it.name for it in self.store.find("files/*")]:
            if self.bucket is None:
                os.utime(self.root / name, (HOUR_AGO, HOUR_AGO))
            else:
                self.aged.add(name)

    def old(self, name: str, text: str = "") -> str:
        """Put an old file; returns its name."""
        self.age(self.put(name, text))
        return name

    def tree(self) -> list[Stored]:
        """All that is there."""
        found = [self.store.find(it) for it in ("*", "files/*", "checkpoints/*/*")]
        return [replace(it, age=0) for some in found for it in some]

    def text(self, name: str) -> str:
        """The content of a file that a trial left."""
        with self.store.files.open_reader(name.removeprefix("files/")) as file:
            return file.read().decode()


@pytest.fixture
def in_bucket(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    real, aged = S3Store.find, Shelf.aged

    def find(store: S3Store, pattern: str) -> list[Stored]:
        return [
            replace(it, age=YOUNG_SECONDS + 60) if it.name in aged else it
            for it in real(store, pattern)
        ]

    monkeypatch.setattr(S3Store, "find", find)
    return Shelf(bucket.address, bucket)


def claimed(database: Database, record: StudyRecord, store: Artifacts) -> Claim:
    """A running trial with its checkpoint."""
    claims = Claims(database, record.study_id)
    claim = claims.claim(ME, lambda number: number, target=99, most_failed=9)
    assert isinstance(claim, Claim)
    checkpoint(store, claim.number, "state")
    return claim


def checkpoint(store: Artifacts, number: int, text: str) -> str:
    """Save a checkpoint; returns its name."""
    with tempfile.TemporaryDirectory() as scratch:
        store.checkpoint(number, Path(scratch)).save(lambda path: path.write_text(text) and None)
    return next(it.name for it in store.checkpoints() if it.last == f"{number}.npz")


def completed(
    database: Database, record: StudyRecord, shelf: Shelf, value: float, kind: float | None = None
) -> None:
    """A complete trial with its file."""
    store = Artifacts(shelf.store, record.name, record.uid)
    claim = claimed(database, record, store)
    if kind is not None:
        database.backend.set_trial_param(claim.trial_id, "kind", kind, KIND)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "model.keras").write_text(f"{record.name} {value}")
        files = store.upload(Path(folder))
    claims = Claims(database, record.study_id)
    assert claims.finish(claim, ME, TrialState.COMPLETE, [value], {}, files)
    shelf.age(*(it.name for it in store.files()))


def made(
    database: Database, name: str, shelf: Shelf, values: list[float], direction: str = "minimize",
    kinds: list[float] | None = None, **attrs: Any,
) -> tuple[StudyRecord, Artifacts]:  # fmt: skip
    """A study with a complete trial and its file for each value; a pruned and a waiting one."""
    snapshot = Snapshot(None, "value", direction, None, "study.py", "hash")
    record = register(database, name, snapshot, seed=1, search={}, attrs=attrs)
    store = Artifacts(shelf.store, name, record.uid)
    for value, kind in zip(values, kinds or [None] * len(values), strict=True):
        completed(database, record, shelf, value, kind)
    claims = Claims(database, record.study_id)
    claims.finish(claimed(database, record, store), ME, TrialState.PRUNED, [0.0], {})
    claimed(database, record, store)
    claims.hand_back(ME)
    return record, store


def cleaned(
    shelf: Shelf, url: str, keep: int | None = None, *studies: str, dry: bool = False
) -> str:
    """What it says, in 80 columns; as one line."""
    values: Mapping[str, Any] = {
        "keep": keep, "dry_run": dry, "artifacts": shelf.store.address, "storage": url,
        "study": studies,
    }  # fmt: skip
    file = io.StringIO()
    clean(Given(values, {}), Console(file=file, width=80))
    assert all(len(line.rstrip()) <= 80 for line in file.getvalue().splitlines())
    return " ".join(file.getvalue().split())


def texts(shelf: Shelf, store: Artifacts) -> list[str]:
    return sorted(shelf.text(it.name) for it in store.files())


def rows(database: Database) -> dict[str, list[str]]:
    tables = [*models.BaseModel.metadata.sorted_tables, claims_table]
    with database.backend.engine.connect() as connection:
        return {
            it.name: sorted(map(repr, connection.execute(sqlalchemy.select(it)))) for it in tables
        }


def test_the_best_stay_with_what_can_be_resumed(
    database: Database, database_url: str, tmp_path: Path
) -> None:
    check_the_best_stay(database, database_url, Shelf(tmp_path / "store"))


def test_of_several_objectives_those_stay_that_none_beats(sqlite: Database, tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "store")
    snapshot = Snapshot(
        None, "error", "minimize", None, "study.py", "h", more_objectives=(("score", "maximize"),)
    )
    record = register(sqlite, "both", snapshot, seed=1, search={})
    store = Artifacts(shelf.store, "both", record.uid)
    claims = Claims(sqlite, record.study_id)
    for values, constraint in (
        ([0.3, 0.9], -1.0), ([0.2, 0.5], 0.0), ([0.25, 0.4], -1.0), ([0.1, 0.99], 2.0),
    ):  # fmt: skip
        claim = claimed(sqlite, record, store)
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "model.keras").write_text(f"{values}")
            files = store.upload(Path(folder))
        more = {**files, "constraints:size": constraint}
        assert claims.finish(claim, ME, TrialState.COMPLETE, values, {}, more)
    shelf.age(*(it.name for it in store.files()))
    said = cleaned(shelf, sqlite.url)
    assert "deleted studies" not in said
    assert texts(shelf, store) == ["[0.2, 0.5]", "[0.3, 0.9]"]
    study = optuna.load_study(study_name="both", storage=sqlite.storage)
    assert [it.number for it in study.best_trials] == [0, 1]


def test_the_best_stay_in_a_bucket(sqlite: Database, in_bucket: Shelf) -> None:
    check_the_best_stay(sqlite, sqlite.url, in_bucket)


def check_the_best_stay(database: Database, database_url: str, shelf: Shelf) -> None:
    least, store = made(database, "least", shelf, [0.3, float("inf"), 0.1, 0.2, 0.1])
    _, greatest = made(database, "greatest", shelf, [float("-inf"), 0.1, 0.3, 0.2], "maximize")
    _, confirming = made(
        database, "confirm", shelf, [0.4, 0.3, 0.6, 0.5], kinds=[1.0, 1.0, 2.0, 2.0],
        **{CONFIRMS_ATTR: "least"},
    )  # fmt: skip
    stranger = shelf.old("files/abcdefabcdef-1", "another database's")
    other_checkpoint = shelf.old("checkpoints/mnist-fedcbafedcba/1.npz", "likewise")
    # What another program attached to a trial, to one that loses its model.
    attached = shelf.old(f"files/{uuid.uuid4()}", "a picture")
    trial_id = database.backend.get_all_trials(least.study_id)[0]._trial_id
    attached_id = attached.removeprefix("files/")
    meta = {"artifact_id": attached_id, "filename": "a.png", "mimetype": "image/png"}
    with session_of(database) as session:
        attrs = {f"artifacts:{attached_id}": json.dumps({**meta, "encoding": None})}
        add_system_attrs(session, trial_id, attrs)
    shelf.put(f"files/{least.uid}-young", "a worker is about to name it")
    shelf.old(f"files/{least.uid}-orphan", "a worker was killed before it could")
    checkpoint(store, 77, "of a trial that began since")
    shelf.age(checkpoint(store, 78, "of a trial that somebody deleted"))
    shelf.put(f"checkpoints/least-{least.uid}/0.9.tmp", "killed in the middle")
    # The study's page shows a model that goes, one that stays, and what is none of ours.
    going, staying = (named(it.system_attrs)[0][0] for it in
                      database.backend.get_all_trials(least.study_id)[1:3])  # fmt: skip
    for artifact_id in (going, staying, attached_id):
        key = f"artifacts:{artifact_id}"
        database.backend.set_study_system_attr(least.study_id, key, json.dumps(meta))

    before = rows(database), shelf.tree()
    said = cleaned(shelf, database_url, 1, dry=True)
    assert "would be freed; nothing was removed." in said
    assert "Left alone: 2 files (26 bytes) of deleted studies, or of another database" in said
    assert "what has in its name abcdefabcdef, fedcbafedcba." in said
    assert (rows(database), shelf.tree()) == before
    would_free = said.partition(" would be freed")[0].rsplit(" ", 2)[1:]

    said = cleaned(shelf, database_url, 1)
    assert f"{' '.join(would_free)} are freed." in said
    assert texts(shelf, store) == ["a worker is about to name it", "least 0.1"]
    assert texts(shelf, greatest) == ["greatest 0.3"]
    assert texts(shelf, confirming) == ["confirm 0.3", "confirm 0.5"]  # of each configuration
    assert {stranger, other_checkpoint, attached} < {it.name for it in shelf.tree()}
    assert database.backend.get_study_system_attrs(least.study_id).keys() == {
        f"artifacts:{staying}", f"artifacts:{attached_id}"
    }  # fmt: skip
    assert [it.last for it in store.checkpoints()] == ["6.npz", "77.npz"]  # the waiting trial's
    # Of equal ones the first, and Optuna knows what is gone.
    trials = database.backend.get_all_trials(least.study_id)
    names = [[it.filename for it in get_all_artifact_meta(trial, storage=database.backend)]
             for trial in trials]  # fmt: skip
    assert names == [["a.png"], [], ["model.keras"], [], [], [], []]
    assert "Nothing to remove." in cleaned(shelf, database_url, 1)
    cleaned(shelf, database_url, 0, "confirm")
    # Only of the named study, which keeps at least one of each configuration.
    assert (len(texts(shelf, store)), len(texts(shelf, confirming))) == (2, 2)


def test_a_copy_of_a_study_costs_it_nothing(
    database: Database, database_url: str, tmp_path: Path
) -> None:
    """Optuna copies the id with the study, so that both name the same files."""
    shelf = Shelf(tmp_path / "store")
    record, store = made(database, "first", shelf, [0.3, 0.2])
    optuna.copy_study(
        from_study_name="first", from_storage=database.backend, to_storage=database.backend,
        to_study_name="second",
    )  # fmt: skip
    completed(database, record, shelf, 0.1)
    cleaned(shelf, database_url, 1, "second")
    assert texts(shelf, store) == ["first 0.1", "first 0.2", "first 0.3"]
    cleaned(shelf, database_url, 1)
    assert texts(shelf, store) == ["first 0.1", "first 0.2"]
    assert [sum(len(it.files) for it in study.trials) for study in read_kept(database)] == [2, 1]


def test_only_trials_that_are_complete_lose_files(sqlite: Database, tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "store")
    record, store = made(sqlite, "study", shelf, [0.3])
    claim = claimed(sqlite, record, store)
    early = shelf.old(f"files/{record.uid}-early")
    key = early.replace("files/", "artifacts:")
    sqlite.backend.set_trial_system_attr(claim.trial_id, key, "{}")
    studies = read_kept(sqlite)
    (found,) = sweep(studies, studies, shelf.store, 0)
    assert [it.name for it in found.files.staying] == [early]
    assert len(found.files.going) == len(found.forgotten) == 1
    assert {it.last for it in found.checkpoints.staying} == {f"{claim.number}.npz"}
    # What ends after the database was read and before the folder is, stays.
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs" / "model.keras").write_text("just now")
    attrs = store.upload(tmp_path / "outputs")
    Claims(sqlite, record.study_id).finish(claim, ME, TrialState.COMPLETE, [9.0], {}, attrs)
    (found,) = sweep(studies, studies, shelf.store, 0)
    assert sorted(shelf.text(it.name) for it in found.files.staying) == ["", "just now"]


def test_a_kill_between_forgetting_and_removing_loses_nothing_and_is_made_good(
    database: Database, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = Shelf(tmp_path / "store")
    record, store = made(database, "study", shelf, [0.3, 0.1])
    with monkeypatch.context() as killed:
        killed.setattr(Path, "unlink", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            cleaned(shelf, database_url, 1)
    assert texts(shelf, store) == ["study 0.1", "study 0.3"]
    assert [len(it.files) for it in read_kept(database)[0].trials] == [0, 1, 0, 0]
    cleaned(shelf, database_url, 1)
    assert texts(shelf, store) == ["study 0.1"]
    database.backend.delete_study(record.study_id)
    with pytest.raises(StudyGone):
        forget_files(database, record.study_id, {1: ["some"]})


def test_many_trials_take_few_statements(database: Database, tmp_path: Path) -> None:
    record, _ = made(database, "study", Shelf(tmp_path), [])
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
    assert len(statements) <= 5 * 5  # five batches: hold, find, remove, look at the study's; BEGIN
    assert sum(len(it.files) for it in read_kept(database)[0].trials) == many // 2


def test_what_the_command_says(
    sqlite: Database,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root, shelf = tmp_path / "store", Shelf(tmp_path / "store")
    record, store = made(sqlite, "a [bold] one", shelf, [0.3, 0.1])
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
    stubborn = root / "files" / f"{record.uid}-folder"
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
    left = [root / it.name for it in store.files()]
    assert [it for it in left if it.is_dir()] == [stubborn]
    assert [it.read_text() for it in left if it.is_file()] == ["a [bold] one 0.1"]


def test_a_folder_that_cannot_be_read_does_not_look_empty(
    sqlite: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = Shelf(tmp_path / "store")
    made(sqlite, "study", shelf, [0.3])

    scandir = os.scandir

    def deny(folder: Path) -> Any:
        if folder == tmp_path / "store" / "files":
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(stores.os, "scandir", deny)
    with pytest.raises(TunerError, match=r"files cannot be read \(Permission denied\), so"):
        cleaned(shelf, f"sqlite:///{tmp_path}/tuner.db", 0)
