"""Replay, export and gc as their user meets them; no Keras."""

import json
import sqlite3
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from tests.e2e.test_confirm import STUDY, confirm, stored_of, trials_of

FINAL = """

def validate(model_file):
    assert model_file.name == "model.keras"  # Keras goes by the name
    return {"validation_error": float(model_file.read_text())}

def final(trial):
    (trial.outputs / "model.keras").write_text(f"final {trial.params['kind']}")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a search, and its confirmation."""
    folder = tmp_path_factory.mktemp("again")
    (folder / "studies").mkdir()
    about = '"""Three kinds of bowls."""\n'
    (folder / "studies" / "arms.py").write_text(about + STUDY.replace("SECONDS", "0") + FINAL)
    for command, flags in (
        ("run", ("--trials", "16", "--compare", "kind", "--workers", "2", "--seed", "3")),
        ("confirm", ("--per-level", "kind", "--seeds", "3", "--workers", "2")),
    ):
        done = confirm(folder, "--study", "arms", *flags, command=command)
        assert done.returncode == 0, done.stderr
    return folder


def content(folder: Path) -> bytes:
    with sqlite3.connect(folder / "tuner.db") as connection:
        dump = "\n".join(connection.iterdump())
    connection.close()
    return dump.encode()


def numbers(folder: Path, state: TrialState) -> list[int]:
    return [it.number for it in trials_of(folder, "arms") if it.state == state]


def test_a_trial_gives_the_same_again_and_nothing_is_written(folder: Path) -> None:
    before = content(folder)
    for state in (TrialState.COMPLETE, TrialState.PRUNED):
        number = str(numbers(folder, state)[0])
        done = confirm(folder, "--study", "arms", "--trial", number, command="replay")
        assert done.returncode == 0, done.stderr
        said = " ".join(done.stdout.split())
        assert f"Trial {number} of arms is the same in every value that was reported" in said
    assert content(folder) == before


def test_a_trial_that_is_different_is_told_with_what_changed(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    (other / "studies").mkdir(parents=True)
    (other / "tuner.db").write_bytes((folder / "tuner.db").read_bytes())
    text = (folder / "studies" / "arms.py").read_text()
    (other / "studies" / "arms.py").write_text(text.replace("0.006 +", "0.007 +"))
    number = str(numbers(folder, TrialState.COMPLETE)[0])
    done = confirm(other, "--study", "arms", "--trial", number, command="replay")
    assert done.returncode == 1
    said = " ".join(done.stdout.split())
    assert f"Trial {number} of arms is different" in said
    assert "the study file was" in said
    assert done.stderr.startswith(f"error: Trial {number} of arms does not give the same again.")


def test_what_cannot_be_run_again_is_refused(folder: Path) -> None:
    for flags, words in (
        (("--trial", "99"), "the last one is 15"),
        (("--trial", "x"), "give a whole number from 0"),
    ):
        done = confirm(folder, "--study", "arms", *flags, command="replay")
        assert done.returncode == 2
        assert words in done.stderr


def test_of_several_objectives_no_trial_is_the_best(tmp_path: Path) -> None:
    study = optuna.create_study(
        storage=f"sqlite:///{tmp_path}/tuner.db", study_name="Two", directions=["minimize"] * 2
    )
    study.optimize(lambda trial: (trial.suggest_float("x", 0, 1), 1.0), n_trials=1)
    done = confirm(tmp_path, "--study", "Two", "--out", "model", command="export")
    assert done.returncode == 2
    assert done.stderr.startswith("error: Two has 2 objectives")
    done = confirm(tmp_path, "--study", "Two", "--trial", "0", command="replay")
    assert done.returncode == 2
    assert done.stderr.startswith("error: Trial 0 of Two was not run by `tuner run`")


def exported(folder: Path, *flags: str, out: str = "model") -> tuple[dict, dict, str, str]:  # type: ignore[type-arg]
    done = confirm(folder, "--study", "arms", "--out", out, *flags, command="export")
    assert done.returncode == 0, done.stderr
    config, metrics = (json.loads((folder / out / it).read_text())
                       for it in ("config.json", "metrics.json"))  # fmt: skip
    return config, metrics, (folder / out / "README.md").read_text(), done.stdout


def test_the_winner_of_the_confirmation_is_exported(folder: Path) -> None:
    before, opened = content(folder), (folder / "opened.txt").read_text()
    config, metrics, card, said = exported(folder)
    runs = trials_of(folder, "arms-confirm")
    assert config["study"] == "arms-confirm"
    chosen = runs[config["trial"]]
    same = [it for it in runs if it.params == chosen.params]
    mean = sum(it.user_attrs["test_error"] for it in same) / len(same)
    assert metrics["of_its_configuration"]["mean"] == pytest.approx(mean)
    assert metrics["of_its_configuration"]["runs"] == 3
    kinds = {it.params["kind"] for it in runs}
    means = {kind: [it.user_attrs["test_error"] for it in runs if it.params["kind"] == kind]
             for kind in kinds}  # fmt: skip
    assert mean == pytest.approx(min(sum(it) / 3 for it in means.values()))
    # Of its runs the one with the best validation value, which the card says.
    assert chosen.value == min(it.value for it in same if it.value is not None)
    assert metrics["of_this_file"] == {"validation_error": chosen.value}
    assert (folder / "model" / "model.keras").read_text() == str(chosen.value)
    assert "Three kinds of bowls." in card
    assert "Expect a test error of" in " ".join(said.split())
    # Neither the database nor the test set was touched.
    # A run of the confirmation, named by its number as the card's command does, is confirmed, too.
    run = ("--study", "arms-confirm", "--trial", str(chosen.number), "--out", "run")
    done = confirm(folder, *run, command="export")
    assert done.returncode == 0, done.stderr
    again = json.loads((folder / "run" / "metrics.json").read_text())
    assert again == metrics
    assert content(folder) == before
    assert (folder / "opened.txt").read_text() == opened


def test_a_trial_as_asked_for_and_the_final_model(folder: Path) -> None:
    pruned = numbers(folder, TrialState.PRUNED)[-1]
    re_run = [it.params for it in trials_of(folder, "arms-confirm")]
    there = [it for it in trials_of(folder, "arms") if it.state == TrialState.COMPLETE]
    known = next(it.number for it in there if it.params in re_run)
    complete = next(it.number for it in there if it.params not in re_run)
    _, metrics, card, _ = exported(folder, "--trial", str(known), out="one")
    assert metrics["of_its_configuration"]["confirmation"] == "arms-confirm"
    assert "Expect a test error of" in card
    config, metrics, card, _ = exported(folder, "--trial", str(complete), out="one")
    assert (config["study"], config["trial"]) == ("arms", complete)
    assert metrics["of_its_configuration"] is None
    assert "Not confirmed" in card
    (folder / "one" / "notes.md").write_text("mine")
    config, metrics, card, _ = exported(folder, "--trial", str(complete), "--final", out="one")
    found = sorted(it.name for it in (folder / "one").iterdir())
    assert found == ["README.md", "config.json", "metrics.json", "model.keras", "notes.md"]
    kind = trials_of(folder, "arms")[complete].params["kind"]
    assert (folder / "one" / "model.keras").read_text() == f"final {kind}"
    assert metrics == {"of_this_file": {}, "of_its_run": {}, "of_its_configuration": None}
    assert "nothing was measured of this very model" in card
    done = confirm(folder, "--study", "arms", "--trial", str(pruned), "--out", "p",
                   command="export")  # fmt: skip
    assert done.returncode == 2
    assert "was pruned, so it has no model" in done.stderr
    assert not done.stdout  # told at once, not after it was run again
    done = confirm(folder, "--study", "arms", "--out", "studies", command="export")
    assert done.returncode == 2
    assert "no export of this program" in done.stderr
    assert (folder / "studies" / "arms.py").exists()


@pytest.mark.soak
def test_what_was_removed_is_trained_again(folder: Path) -> None:
    best = min(
        (it for it in trials_of(folder, "arms") if it.state == TrialState.COMPLETE),
        key=lambda it: it.value or 0.0,
    )
    done = confirm(folder, "--study", "arms", "--keep", "0", "--dry-run", command="gc")
    assert done.returncode == 0
    assert "nothing was removed" in done.stdout
    files = sorted((folder / "tuner-artifacts" / "files").iterdir())
    assert len(files) == 9 + len(numbers(folder, TrialState.COMPLETE))
    done = confirm(folder, "--study", "arms", "--keep", "0", command="gc")
    assert done.returncode == 0, done.stderr
    assert "are freed." in done.stdout
    assert len(list((folder / "tuner-artifacts" / "files").iterdir())) == 9  # the confirmation's
    config, *_, said = exported(folder, "--trial", str(best.number), out="again")
    assert config["trained_again"].startswith("the same in every value")
    assert "it is run again" in said
    assert (folder / "again" / "model.keras").read_text() == str(best.value)
    assert stored_of(folder, "arms").openings
