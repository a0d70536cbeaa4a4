"""The steps of docker-compose.yml's image, executed without Docker.

Each stage is an empty folder with a fresh virtual environment, which stands for /usr/local of
Python's image; absolute paths lead into that folder. What COPY does not copy is not there.
"""

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT

pytestmark = pytest.mark.soak

BUILD = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["init"]["build"]
UID = 10001
# Folders of the image that its steps name by absolute paths.
PLACES = re.compile(r"(?<![\w.])/(requirements\.txt|package|pyproject\.toml|project|data|home)\b")


def interpreter() -> str:
    """A Python of the image's release that any user may run; skips without one."""
    if os.geteuid() != 0:
        pytest.skip("only root may give files to another user")
    check = ["-c", "import sys, venv; sys.exit(sys.version_info[:2] != (3, 11))"]
    for program in (os.path.realpath(sys.executable), "/usr/local/bin/python3", "/usr/bin/python3"):
        with contextlib.suppress(OSError):
            if subprocess.run([program, *check], user=UID, check=False).returncode == 0:
                return program
    pytest.skip("no Python 3.11 that every user may run")


class Stage:
    """A stage of the image, and what it has come to.

    Args:
        root: an empty folder.
        environment: the folder of its virtual environment; the same for all stages, as in images.
        python: what makes it.
    """

    def __init__(self, root: Path, environment: Path, python: str) -> None:
        self.root, self.environment = root, environment
        self.folder = root
        self.env = {"PATH": f"{environment}/bin:{os.environ['PATH']}"}
        self.user = self.command = ""
        shutil.rmtree(environment, ignore_errors=True)
        subprocess.run([python, "-m", "venv", environment], check=True)
        (root / "etc").mkdir(parents=True)
        (root / "etc" / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
        (root / "etc" / "group").write_text("root:x:0:\n")
        for name in ("shadow", "gshadow", "login.defs"):
            (root / "etc" / name).write_text("")

    def here(self, text: str) -> str:
        """A text with absolute paths of the image, which mean the stage's folder."""
        return PLACES.sub(lambda found: f"{self.root}{found[0]}", text)

    def path(self, text: str) -> Path:
        """Where a path of the image lies."""
        if text == "/usr/local":
            return self.environment
        return self.root / text[1:] if text.startswith("/") else self.folder / text

    def run(self, line: str) -> None:
        """RUN, by the image's shell."""
        line = self.here(line).replace("useradd ", f"useradd --prefix {self.root} ")
        done = subprocess.run(
            ["/bin/sh", "-c", line], cwd=self.folder, env=self.env, capture_output=True, text=True,
            check=False, timeout=1200,
        )  # fmt: skip
        sys.stdout.write(f"RUN {line}\n{done.stdout[-600:]}{done.stderr[-600:]}\n")
        assert done.returncode == 0, done.stderr

    def copy(self, words: list[str], stages: dict[str, "Stage"]) -> None:
        """COPY, from the build's context or from another stage."""
        other = words.pop(0).partition("=")[2] if words[0].startswith("--from=") else None
        *sources, target = words
        into = self.path(target)
        for source in sources:
            found = stages[other].path(source) if other else ROOT / source
            if found.is_dir():
                ignored = shutil.ignore_patterns("__pycache__") if other is None else None
                shutil.copytree(found, into, dirs_exist_ok=True, ignore=ignored)
            else:
                into.mkdir(parents=True, exist_ok=True)
                shutil.copy2(found, into / found.name)


def built(folder: Path, python: str) -> Stage:
    """Execute the Dockerfile; return its last stage."""
    stages: dict[str, Stage] = {}
    for line in BUILD["dockerfile_inline"].replace("$$", "$").splitlines():
        word, _, rest = line.partition(" ")
        if word in {"", "#"}:
            continue
        if word == "FROM":
            name = rest.partition(" AS ")[2] or "last"
            stage = stages[name] = Stage(folder / name, folder / "environment", python)
        elif word == "RUN":
            stage.run(rest)
        elif word == "COPY":
            stage.copy(rest.split(), stages)
        elif word == "WORKDIR":
            stage.folder = stage.path(rest)
            stage.folder.mkdir(parents=True, exist_ok=True)
        elif word == "ENV":
            stage.env |= dict(pair.split("=") for pair in stage.here(rest).split())
        elif word == "ARG":
            stage.env |= dict([rest.replace('"', "").split("=")])
        elif word == "USER":
            stage.user = rest
        elif word == "CMD":
            stage.command = rest
        else:
            pytest.fail(f"this test does not know {line!r}")
    return stages["last"]


@pytest.fixture(scope="module")
def image() -> Iterator[Stage]:
    python = interpreter()
    folder = Path(tempfile.mkdtemp(prefix="tuner-image-"))
    folder.chmod(0o755)  # its user must come in
    try:
        yield built(folder, python)
    finally:
        shutil.rmtree(folder)


def call(image: Stage, *words: str, **env: str) -> str:
    """What a container writes that runs this as the image's user."""
    uid, gid = map(int, image.user.split(":"))
    done = subprocess.run(
        words, cwd=image.folder, env={**image.env, **env}, user=uid, group=gid, extra_groups=[],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.timeout(1800)
def test_the_image_can_be_built_and_its_commands_run_as_its_user(image: Stage) -> None:
    assert "Usage: tuner" in call(image, *yaml.safe_load(image.command))
    assert f"tuner:x:{UID}:{UID}:" in (image.root / "etc" / "passwd").read_text()
    # The package with its data is installed, and nothing of this folder is used.
    place = Path(call(image, "python", "-c", "import tuner; print(tuner.__file__)").strip())
    assert place.is_relative_to(image.environment)
    assert list((place.parent / "finetune" / "mnist").glob("*.npz"))
    assert not (image.environment / "lib" / "tests").exists()
    left = {it.name for it in image.root.iterdir()} - {"etc", "home", "project", "data"}
    assert left == {"requirements.txt"}
    # Volumes are made with the owner of these folders.
    for name in ("data/artifacts", "home/tuner/.cache/tuner"):
        assert (image.root / name).stat().st_uid == UID
    (image.folder / "studies").mkdir()
    shutil.copy2(ROOT / "studies" / "paraboloid.py", image.folder / "studies")
    storage = f"sqlite:///{image.root}/data/tuner.db"
    env = {"OPTUNA_STORAGE": storage, "TUNER_ARTIFACTS": str(image.root / "data" / "artifacts")}
    assert "tables were made" in call(image, "python", "-m", "tuner.init", **env)
    words = shlex.split("python -m tuner run --study paraboloid --trials 4 --workers 2 --quiet")
    call(image, *words, **env)
    assert "4/4" in call(image, "python", "-m", "tuner", "status", **env)
    report = image.root / "data" / "report.html"
    call(
        image, "python", "-m", "tuner.report", "--study", "paraboloid", "--out", str(report), **env
    )
    assert report.stat().st_size > 100_000
    call(image, "python", "-c", "import keras; print(keras.__version__)")
    # What the image would be in, beside Python's own.
    size = sum(it.stat().st_size for it in image.environment.rglob("*") if not it.is_symlink())
    sys.stdout.write(f"{size / 1e9:.2f} GB installed\n")
