"""The artifact store: where checkpoints are, and when they go."""

from pathlib import Path

from tuner.artifacts import LONGEST_NAME, Artifacts


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
