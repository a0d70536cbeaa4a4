"""What gc keeps and removes, on real databases."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from optuna.artifacts import get_all_artifact_meta
from optuna.trial import TrialState

from tuner import cleaning
from tuner.artifacts import Artifacts
from tuner.cleaning import YOUNG_SECONDS, clean, sweep
from tuner.errors import TunerError
from tuner.flags import Given
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
from tuner.storage.attributes import CONFIRMS_ATTR
from tuner.study import Snapshot

ME = this_process()
HOUR_AGO = time.time() - YOUNG_SECONDS - 60


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    opened = open_database(database_url)
    yield opened
    opened.close()


def made(
    database: Database, name: str, root: Path, values: list[float], direction: str = "minimize",
    **attrs: Any,
) -> tuple[StudyRecord, Artifacts]:  # fmt: skip
    """A study with a complete trial and its file for each value; a pruned and a waiting one."""
    snapshot = Snapshot(None, "value", direction, None, "study.py", "hash")
    record = register(database, name, snapshot, seed=1, search={}, attrs=attrs)
    claims = Claims(database, record.study_id)
    store = Artifacts(root, name, record.uid)
    folder = root / "outputs"
    folder.mkdir(parents=True, exist_ok=True)
    for value in (*values, None, "waiting"):
        claim = claims.claim(ME, lambda number: number, target=99, most_failed=9)
        assert isinstance(claim, Claim)
        checkpoint = store.checkpoint(claim.number)
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        checkpoint.write_text("state")
        os.utime(checkpoint, (HOUR_AGO, HOUR_AGO))
        if value == "waiting":
            claims.hand_back(ME)
        elif value is None:
            claims.finish(claim, ME, TrialState.PRUNED, [0.0], {})
        else:
            (folder / "model.keras").write_text(f"{name} {value}")
            files = store.upload(folder)
            claims.finish(claim, ME, TrialState.COMPLETE, [float(value)], {}, files)
    for path in store.files():
        os.utime(path, (HOUR_AGO, HOUR_AGO))
    return record, store


def given(root: Path, url: str, keep: int | None = None, *, dry: bool = False) -> Given:
    values = {"keep": keep, "dry_run": dry, "artifacts": str(root), "storage": url, "study": ()}
    return Given(values, {})


class Silent:
    """A console that keeps what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def print(self, what: object) -> None:
        self.said.append(str(what))


def contents_of(store: Artifacts) -> list[str]:
    return sorted(it.read_text() for it in store.files())


def test_the_best_stay_with_what_can_be_resumed(
    database: Database, database_url: str, tmp_path: Path
) -> None:
    least, store = made(database, "least", tmp_path, [0.3, 0.1, 0.2, 0.1])
    _, greatest = made(database, "greatest", tmp_path, [0.3, 0.1, 0.2], "maximize")
    # Of a confirmation also the best of each configuration; here all have the same (no) parameters.
    _, confirming = made(database, "confirm", tmp_path, [0.4, 0.3], **{CONFIRMS_ATTR: "least"})
    stranger = tmp_path / "files" / "abcdefabcdef-1"
    stranger.write_text("another database's")
    young = store.path_of(f"{least.uid}-young")
    young.write_text("a worker is about to name it")
    orphan = store.path_of(f"{least.uid}-orphan")
    orphan.write_text("a worker was killed before it could")
    os.utime(orphan, (HOUR_AGO, HOUR_AGO))

    before = sorted(it.name for it in (tmp_path / "files").iterdir())
    console = Silent()
    clean(given(tmp_path, database_url, 1, dry=True), console)  # type: ignore[arg-type]
    assert any("nothing was removed" in it for it in console.said)
    assert any("Left alone: 1 file" in it for it in console.said)
    assert sorted(it.name for it in (tmp_path / "files").iterdir()) == before

    clean(given(tmp_path, database_url, 1), console)  # type: ignore[arg-type]
    assert contents_of(store) == ["a worker is about to name it", "least 0.1"]
    assert contents_of(greatest) == ["greatest 0.3"]
    assert contents_of(confirming) == ["confirm 0.3"]
    assert stranger.exists()
    assert [it.name for it in store.checkpoints()] == ["5.npz"]  # the waiting trial's
    # Of equal ones the first, and Optuna knows what is gone.
    trials = database.backend.get_all_trials(least.study_id)
    metas = [get_all_artifact_meta(it, storage=database.backend) for it in trials]
    assert [len(it) for it in metas] == [0, 1, 0, 0, 0, 0]


def test_a_kill_between_forgetting_and_removing_loses_nothing_and_is_made_good(
    database: Database, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, store = made(database, "study", tmp_path, [0.3, 0.1])
    with monkeypatch.context() as killed:
        killed.setattr(cleaning, "_remove", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            clean(given(tmp_path, database_url, 1), Silent())  # type: ignore[arg-type]
    assert contents_of(store) == ["study 0.1", "study 0.3"]
    clean(given(tmp_path, database_url, 1), Silent())  # type: ignore[arg-type]
    assert contents_of(store) == ["study 0.1"]
    with monkeypatch.context() as denied:
        denied.setattr(Path, "unlink", _deny)
        with pytest.raises(TunerError, match="1 file cannot be removed, the first one is"):
            clean(given(tmp_path, database_url, 0), Silent())  # type: ignore[arg-type]


def _deny(self: Path, missing_ok: bool = False) -> None:
    raise PermissionError(13, "Permission denied")


def test_many_files_are_forgotten_in_few_statements(database: Database, tmp_path: Path) -> None:
    record, _ = made(database, "study", tmp_path, [0.5])
    (kept,) = read_kept(database)
    assert (kept.uid, kept.maximize, kept.confirms, kept.unfinished) == (
        record.uid, False, False, {2},
    )  # fmt: skip
    forget_files(database, record.study_id, [f"{record.uid}-{it}" for it in range(2_500)])
    assert [len(it.files) for it in read_kept(database)[0].trials] == [1, 0, 0]
    found = sweep(kept, tmp_path, 0)
    assert found.forgotten == kept.trials[0].files
    assert len(found.going) == 3  # its file, and the checkpoints of the two that ended
