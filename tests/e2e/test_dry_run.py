"""`--dry-run` says what a run would do, and touches nothing."""

import re
import sqlite3
from pathlib import Path

import optuna
import pytest
import sqlalchemy

from tests.conftest import ROOT, run
from tests.e2e.test_run import trials_of
from tuner import wording

PARABOLOID = str(ROOT / "studies" / "paraboloid.py")


def contents(folder: Path) -> dict[str, bytes]:
    """Every file and folder below a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"folder"
        for path in folder.rglob("*")
    }


def samples(output: str) -> list[dict[str, str]]:
    """The table of sampled configurations."""
    table = output.split("\nsamples")[1].split("\n\n", maxsplit=1)[0].splitlines()[1:]
    head, *rows = [re.split(r"  +", line.strip()) for line in table]
    return [dict(zip(head, row, strict=True)) for row in rows]


def test_it_touches_nothing_and_every_setting_has_its_source(tmp_path: Path) -> None:
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    (work / "studies").mkdir(parents=True)
    (work / "studies" / "bowl.py").write_text(Path(PARABOLOID).read_text())
    (work / "tuner.toml").write_text('workers = 3\nartifacts = "kept"\n')
    before = contents(tmp_path)
    done = run(
        "--study", "bowl", "--trials", "9", "--pruner", "hyperband", "--dry-run", cwd=work,
        HOME=str(home), TUNER_SEED="4", TUNER_CACHE_DIR=str(home / "cache"), COLUMNS="200",
        PYTHONPATH=str(ROOT), XDG_CACHE_HOME=str(home / "xdg"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path) == before
    for line in (
        r"study +studies/bowl.py +flag",
        r"study-name +bowl +default",
        r"trials +9 +flag",
        r"storage +sqlite:///tuner.db +default",
        r"workers +3 +file",
        r"seed +4 +environment, TUNER_SEED",
        rf"artifacts +{work}/kept +file",
        rf"cache-dir +{home}/cache +environment, TUNER_CACHE_DIR",
        r"pruner +hyperband +flag",
        r"x +-5 to 5",
        r"bracket 1 +at steps 1, 3",
        r"unknown: no trial of bowl in this database was run on this machine",
        r"database +about 30.6 kB more",
        r"study file +does not say what it keeps",
    ):
        assert re.search(rf"^ +{line}", done.stdout, re.MULTILINE), (line, done.stdout)


@pytest.mark.soak
def test_keras_writes_nothing_either(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    done = run(
        "--study", str(ROOT / "studies" / "mnist.py"), "--trials", "9", "--dry-run", cwd=tmp_path,
        HOME=str(tmp_path / "home"), PYTHONPATH=str(ROOT), COLUMNS="120", XDG_CACHE_HOME="",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path) == {"home": b"folder"}
    for line in (
        r"the pretrained base +1.84 MB +to be made",
        r"epoch ¼/5 +the best third goes on: of 9 about 3",
        r"checkpoints +up to .* MB +.* 5.51 MB each; go with the trial",
    ):
        assert re.search(rf"^ +{line}", done.stdout, re.MULTILINE), (line, done.stdout)


def test_the_samples_are_those_of_the_run_and_an_old_study_goes_on(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/tuner.db"
    asked = ("--study", PARABOLOID, "--storage", url, "--seed", "4", "--workers", "1")
    planned = samples(run(*asked, "--trials", "3", "--dry-run").stdout)
    assert not list(tmp_path.iterdir())
    assert run(*asked, "--trials", "3").returncode == 0
    real = [
        {"trial": str(trial.number), **{k: wording.number(v) for k, v in trial.params.items()}}
        for trial in trials_of(url, "paraboloid")
    ]
    assert planned == real
    before = contents(tmp_path)
    later = run(*asked[:4], "--workers", "1", "--trials", "13", "--dry-run", COLUMNS="120")
    assert contents(tmp_path) == before
    assert "paraboloid: 13 trials, 3 there already" in later.stdout
    assert re.search(r"seed +4 +database", later.stdout)
    words = r"about \d+ s beside the start: 10 trials of .* s, the mean of 3 trials here, by 1 work"
    assert re.search(words, later.stdout)
    assert [row["trial"] for row in samples(later.stdout)] == ["3", "4", "5"]
    refused = run(*asked[:4], "--seed", "5", "--trials", "13", "--dry-run")
    assert refused.returncode == 2
    assert "was begun with --seed 4" in refused.stderr


@pytest.mark.soak
def test_a_log_that_a_kill_has_left_stays(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/tuner.db"
    asked = ("--study", PARABOLOID, "--storage", url, "--workers", "1")
    assert run(*asked, "--trials", "3").returncode == 0
    held = sqlite3.connect(tmp_path / "tuner.db")
    held.execute("SELECT count(*) FROM trials").fetchall()  # it keeps the log
    assert run(*asked, "--trials", "6").returncode == 0
    left = {name: (tmp_path / name).read_bytes() for name in ("tuner.db", "tuner.db-wal")}
    held.close()
    for name, content in left.items():
        (tmp_path / name).write_bytes(content)
    before = contents(tmp_path)
    assert len(before["tuner.db-wal"]) > 0
    later = run(*asked, "--trials", "9", "--dry-run")
    assert "9 trials, 6 there already" in later.stdout, later.stderr
    after = contents(tmp_path)
    assert {name: after[name] for name in before} == before


@pytest.mark.soak
def test_trials_that_wait_are_shown_first(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/tuner.db"
    asked = ("--study", PARABOLOID, "--storage", url, "--seed", "4", "--workers", "1")
    assert run(*asked, "--trials", "2").returncode == 0
    study = optuna.load_study(study_name="paraboloid", storage=url)
    study.enqueue_trial({"x": 1.5, "y": -2.5})
    shown = samples(run(*asked, "--trials", "5", "--dry-run").stdout)
    assert shown[0] == {"trial": "2", "x": "1.5", "y": "-2.5"}
    assert run(*asked, "--trials", "5").returncode == 0
    real = [t.params for t in optuna.load_study(study_name="paraboloid", storage=url).trials]
    assert shown[1]["x"] == wording.number(real[3]["x"])


def test_a_server_gets_no_table(database_url: str) -> None:
    done = run("--study", PARABOLOID, "--trials", "3", "--storage", database_url, "--dry-run")
    assert done.returncode == 0, done.stderr
    if database_url.startswith("sqlite"):
        assert not Path(database_url.removeprefix("sqlite:///")).exists()
        return
    driver = database_url.replace("postgresql:", "postgresql+psycopg:")
    engine = sqlalchemy.create_engine(driver.replace("mysql:", "mysql+pymysql:"))
    assert sqlalchemy.inspect(engine).get_table_names() == []
    engine.dispose()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("def objective(trial): return trial.suggest_float('x', 0, 1)\n", "known after the first"),
        ("import os\nos.kill(os.getpid(), 11)\n", "ended its process while it was loaded (sig"),
        ("import os\nprint('so long', flush=True)\nos._exit(3)\n", "(exit code 3); it wrote: so"),
        ("1 / 0\n", "line 1: ZeroDivisionError: division by zero"),
    ],
)
def test_files_of_every_kind(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "some.py").write_text(text)
    done = run("--study", "some.py", "--trials", "3", "--dry-run", cwd=tmp_path,
               PYTHONPATH=str(ROOT), COLUMNS="120")  # fmt: skip
    good = "objective" in text
    assert done.returncode == (0 if good else 2)
    assert says in (done.stdout if good else done.stderr)
    assert good or done.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["some.py"]
