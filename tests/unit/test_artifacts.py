"""The artifact store: checkpoints, when they go, and what completed trials leave."""

import errno
import shutil
from pathlib import Path
from typing import IO

import optuna
import pytest
from optuna.artifacts import FileSystemArtifactStore, download_artifact, get_all_artifact_meta

from tuner.artifacts import LONGEST_NAME, Artifacts, named


def stored(artifacts: Artifacts, number: int) -> Path:
    path = artifacts.checkpoint(number)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("state")
    path.with_suffix(".77.tmp").write_text("half of it")
    return path


def test_a_checkpoint_goes_with_what_was_left_of_it(tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path, "mnist", "abc")
    one, ten = stored(artifacts, 1), stored(artifacts, 10)
    assert one.parent == tmp_path / "checkpoints" / "mnist-abc"
    artifacts.discard_checkpoint(1)
    artifacts.discard_checkpoint(2)  # there is none
    assert sorted(path.name for path in one.parent.iterdir()) == ["10.77.tmp", "10.npz"]
    assert ten.exists()


def test_a_sweep_keeps_what_unfinished_trials_need(tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path, "mnist", "abc")
    other = stored(Artifacts(tmp_path, "mnist", "def"), 1)
    kept, gone = stored(artifacts, 3), stored(artifacts, 4)
    artifacts.sweep_checkpoints(lambda: {3, 5})
    assert kept.exists()
    assert not gone.exists()
    artifacts.sweep_checkpoints(set)
    assert not kept.parent.exists()  # nothing is left lying about
    assert other.exists()
    artifacts.sweep_checkpoints(set)  # nor needed
    assert not Artifacts(tmp_path / "none", "mnist", "abc").checkpoint(1).parent.exists()


def test_any_name_of_a_study_makes_a_folder(tmp_path: Path) -> None:
    for name in ("a/../../b", "räksmörgås", "x" * 500, "with space"):
        path = stored(Artifacts(tmp_path, name, "abc"), 0)
        assert path.parent.parent == tmp_path / "checkpoints"
        assert len(path.parent.name) <= LONGEST_NAME + 4


def left_behind(folder: Path, **texts: str) -> Path:
    """A folder in which an objective has left files, and one with something of its own."""
    (folder / "scratch").mkdir(parents=True)
    for name, text in texts.items():
        (folder / name).write_text(text)
    return folder


def test_what_is_stored_is_found_by_its_name(tmp_path: Path) -> None:
    store = Artifacts(tmp_path / "store", "mnist", "abc")
    attrs = store.upload(left_behind(tmp_path / "outputs", model="weights", notes="words"))
    assert [name for _, name in named(attrs)] == ["model", "notes"]
    assert all(artifact_id.startswith("abc-") for artifact_id, _ in named(attrs))
    found = store.find(attrs, "notes")
    assert found is not None
    assert found.read_text() == "words"
    assert sorted(store.files()) == sorted(store.path_of(it) for it, _ in named(attrs))
    # As Optuna's own functions and the dashboard read it.
    study = optuna.create_study()
    study.add_trial(optuna.trial.create_trial(value=0.0, system_attrs=attrs))
    metas = get_all_artifact_meta(study.trials[0], storage=study._storage)
    assert [it.filename for it in metas] == ["model", "notes"]
    target = tmp_path / "again"
    download_artifact(
        artifact_store=FileSystemArtifactStore(tmp_path / "store" / "files"),
        artifact_id=metas[0].artifact_id,
        file_path=str(target),
    )
    assert target.read_text() == "weights"

    store.discard(dict([next(iter(attrs.items()))]))
    assert store.find(attrs, "model") is None
    assert store.find(attrs, "notes") == found
    store.discard(attrs)
    assert store.files() == []
    store.discard(attrs)  # nothing is there any more


def test_other_attributes_name_no_files(tmp_path: Path) -> None:
    """Pruners write attributes, too, and the dashboard null for an artifact that it deleted."""
    attrs = {"artifacts:gone": "null", "completed_rung_0": 0.5, "tuner:arm": "sgd"}
    assert named(attrs) == []  # type: ignore[arg-type]
    assert Artifacts(tmp_path, "mnist", "abc").find({}, "model") is None


def test_a_disk_that_fills_up_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Artifacts(tmp_path / "store", "mnist", "abc")
    outputs = left_behind(tmp_path / "outputs", a="first", b="second", c="third")
    copy, copied = shutil.copyfileobj, []

    def fill_up(source: IO[bytes], target: IO[bytes], *more: int) -> None:
        copied.append(source)
        if len(copied) == 2:
            target.write(b"sec")
            raise OSError(errno.ENOSPC, "No space left on device")
        copy(source, target, *more)

    with monkeypatch.context() as full:
        full.setattr(shutil, "copyfileobj", fill_up)
        with pytest.raises(OSError, match="No space left"):
            store.upload(outputs)
    assert len(copied) == 2
    assert store.files() == []
    assert len(store.upload(outputs)) == 3  # the objective's files are still there
