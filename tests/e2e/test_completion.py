"""What a TAB offers, in a real bash, and by the protocol of each shell."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ENVIRONMENT, ROOT, run

# Beside the interpreter, as an installation puts it.
TUNER = Path(sys.executable).parent / "tuner"
PLACES = {**ENVIRONMENT, "PATH": f"{TUNER.parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}


def offered(line: str, folder: Path, **env: str) -> list[str]:
    """What bash offers at the end of a line."""
    words = line.split(" ")
    script = (
        'eval "$(tuner completion bash)"\n'
        f"COMP_WORDS=({' '.join(words[:-1])} {words[-1]!r}); COMP_CWORD={len(words) - 1}\n"
        '_tuner_completion tuner\nprintf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    done = subprocess.run(
        ["bash", "-c", script], cwd=folder, env={**PLACES, **env},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "bash:" not in done.stderr.replace("compopt: not currently executing", "")
    return done.stdout.split()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with two studies, one of which has run."""
    folder = tmp_path_factory.mktemp("completion")
    (folder / "studies").mkdir()
    for name in ("bowl", "bell"):
        text = (ROOT / "studies" / "paraboloid.py").read_text()
        (folder / "studies" / f"{name}.py").write_text(text)
    done = run("--study", "bowl", "--trials", "1", "--workers", "0", cwd=folder,
               PYTHONPATH=str(ROOT))  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize(
    ("line", "offers"),
    [
        ("tuner con", ["control", "confirm"]),
        ("tuner run --stu", ["--study", "--study-name"]),
        ("tuner run --study ", ["bell", "bowl"]),
        ("tuner run --sampler c", ["cmaes"]),
        ("tuner run --pruner ", ["asha", "percentile", "median", "patient", "hyperband", "none"]),
        ("tuner run --precision f", ["float32"]),
        ("tuner control re", ["resume"]),
        ("tuner status --study ", ["bowl"]),
        ("tuner status --storage sqlite:///none.db --study ", []),
        ("tuner status --format ", ["table", "json"]),
    ],
)
def test_bash_offers(line: str, offers: list[str], folder: Path) -> None:
    before = sorted(folder.iterdir())
    assert offered(line, folder) == offers
    assert sorted(folder.iterdir()) == before


def test_a_broken_file_of_settings_is_no_matter(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "tuner.toml").write_text("workers = \n")
    assert offered("tuner run --sampler q", tmp_path) == ["qmc"]


def test_the_database_of_the_file_of_settings_is_asked(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "tuner.toml").write_text(f'storage = "sqlite:///{folder}/tuner.db"\n')
    assert offered("tuner status --study b", tmp_path) == ["bowl"]


def test_zsh_is_told_the_same(folder: Path) -> None:
    script = subprocess.run([TUNER, "completion", "zsh"], env=PLACES, capture_output=True,
                            text=True, check=True).stdout  # fmt: skip
    assert script.startswith("#compdef tuner")
    assert "_TUNER_COMPLETE=zsh_complete tuner" in script
    asked = {"_TUNER_COMPLETE": "zsh_complete", "COMP_WORDS": "tuner run --sampler c",
             "COMP_CWORD": "3"}  # fmt: skip
    done = subprocess.run([TUNER], env={**PLACES, **asked}, capture_output=True, text=True,
                          check=True, cwd=folder)  # fmt: skip
    assert done.stdout.splitlines() == ["plain", "cmaes", "_"]
