"""The whole life of a service on PostgreSQL, with everything that a team starts.

`python -m pytest tests/e2e/test_service.py -s -n 0` prints its log; with
TUNER_TEST_PICTURES=DIR the screenshots are kept there.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from optuna.trial import TrialState

from tests.conftest import ENVIRONMENT, ROOT, wait_until
from tests.e2e.browser import Page, open_page
from tests.e2e.faults import Command, Commands, check_nothing_lost, request_of, trials_of
from tests.e2e.test_dashboard import ask, start

N = 20
# How wide a page is looked at, in pixels, and which pages; a phone's must not scroll sideways.
WIDE, PHONE = 1400, 390
PAGES = {"list": "", "study": "studies/1", "analytics": "studies/1/analytics",
         "trials": "studies/1/trials", "note": "studies/1/note"}  # fmt: skip
SEEN = {WIDE: PAGES, PHONE: ("study", "note")}
# Buttons of what a dashboard that can only read refuses.
SHOWN_BUTTONS = """[...document.querySelectorAll('button')]
  .filter(it => it.getBoundingClientRect().width && it.querySelector('[data-testid=AddBoxIcon],'
    + '[data-testid=DeleteIcon],[data-testid=DriveFileRenameOutlineIcon],[data-testid=EditIcon],'
    + '[data-testid=UploadFileIcon]'))
  .map(it => it.outerHTML)"""


class Life:
    """Does what a team does, and tells what and when."""

    def __init__(self, url: str, folder: Path) -> None:
        self._url = url
        self._folder = folder
        self._witness = folder / "witness.jsonl"
        self._began = time.monotonic()

    def log(self, words: str) -> None:
        print(f"{time.monotonic() - self._began:6.1f} s  {words}")  # noqa: T201

    def do(self, command: str, *arguments: str) -> str:
        """Run a command to its end; it must be well."""
        done = subprocess.run(
            [sys.executable, "-m", f"tuner.{command}", *arguments, "--storage", self._url],
            cwd=self._folder,
            env={**ENVIRONMENT, "PYTHONPATH": str(ROOT), "WITNESS": str(self._witness)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        self.log(f"$ python -m tuner.{' '.join([command, *arguments])}")
        return done.stdout

    def status(self) -> dict[str, Any]:
        """What status says of the study."""
        (study,) = json.loads(self.do("status", "--study", "study", "--format", "json"))
        counts = ", ".join(f"{count} {state}" for state, count in study["trials"].items() if count)
        self.log(f"  {study['state']}: {counts}, {len(study['workers'])} at work")
        return dict(study)

    def states(self) -> list[TrialState]:
        return [trial.state for trial in trials_of(self._url)]


def pictures(folder: Path) -> Path:
    kept = Path(os.environ.get("TUNER_TEST_PICTURES", folder / "pictures"))
    kept.mkdir(parents=True, exist_ok=True)
    return kept


def look(page: Page, address: str, name: str, says: str, file: Path) -> None:
    """Open a page of the dashboard, wait until it says so, and keep what is seen."""
    page.open(f"{address}/dashboard/{PAGES[name]}")
    page.wait_for(f"document.body.innerText.includes({json.dumps(says)})")
    page.wait_for("!document.querySelector('[role=progressbar]')")
    page.screenshot(file, full_page=False)
    assert file.stat().st_size > 5_000


def at_work_of(daemon: Command, commands: Commands) -> dict[int, int]:
    """Trials that a daemon's worker is in the midst of, and its process."""
    pids = {worker.pid for worker in daemon.workers()}
    return {it: pid for it, pid in commands.witness.at_work().items() if pid in pids}


@pytest.mark.soak
@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_the_life_of_a_service(database_url: str, tmp_path: Path) -> None:
    life = Life(database_url, tmp_path)
    shots = pictures(tmp_path)
    with Commands(tmp_path) as commands:
        commands.study()
        dashboard, address = start(commands, "--storage", database_url)
        assert ask(f"{address}/api/studies").status == 503  # no tables yet, and it makes none
        life.log(f"the dashboard waits at {address}")
        daemons = [commands.daemon(database_url, 1, STEP_SECONDS="0.2") for _ in range(2)]
        for daemon in daemons:
            daemon.await_words("waiting for trials of every study")
        life.log("two daemons wait for trials")
        wait_until(lambda: ask(f"{address}/api/studies").status == 200)
        life.log("the dashboard has found its tables")

        life.do("run", "--study", "study.py", "--trials", str(N), "--detach", "--seed", "1",
                "--pruner", "none")  # fmt: skip
        commands.witness.await_work(workers=2, ended=2)
        assert life.status()["state"] == "open"

        found: dict[int, int] = {}
        wait_until(lambda: bool(found.update(at_work_of(daemons[0], commands)) or found))
        number, victim = next(iter(found.items()))
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: len(commands.witness.attempts()[number]) == 2)
        life.log(f"kill -9 of worker {victim}: trial {number} was taken up again")

        life.do("control", "pause", "--study", "study")
        wait_until(lambda: TrialState.RUNNING not in life.states())
        ended, begun = commands.witness.count("end"), commands.witness.count("begin")
        paused = life.status()
        assert (paused["state"], paused["workers"]) == ("paused", [])
        with open_page(f"{address}/dashboard", WIDE) as page:
            look(page, address, "list", "study", shots / "1-paused-list.png")
            look(page, address, "study", "study", shots / "2-paused-study.png")
        assert ended < N
        assert (commands.witness.count("end"), commands.witness.count("begin")) == (ended, begun)
        life.log("paused: nothing ran while the dashboard was looked at")
        life.do("control", "resume", "--study", "study")

        wait_until(lambda: request_of(database_url)["state"] == "closed", 120)
        assert life.status()["trials"]["complete"] == N

        life.do("report", "--study", "study", "--publish")
        for width, names in SEEN.items():
            with open_page(f"{address}/dashboard", width) as page:
                for place, name in enumerate(names, 3):
                    says = "tuner" if name == "note" else "study"
                    look(page, address, name, says, shots / f"{place}-{name}-{width}.png")
                    assert page.evaluate(SHOWN_BUTTONS) == []
                assert not [it for it in page.console if "favicon" not in it], page.console
                assert all(url.startswith(address) for url in page.requests)
        life.log(f"{len(list(shots.iterdir()))} screenshots in {shots}")

        for command in (*daemons, dashboard):
            command.process.terminate()
        for command in (*daemons, dashboard):
            command.wait(0, 15)
        life.log("SIGTERM of all: exit codes 0")
        trials = check_nothing_lost(database_url, N, commands.witness)
        children = [psutil.Process().children(recursive=True)]
        assert not [it for it in children[0] if "tuner" in " ".join(it.cmdline())]
        life.log(f"{len(trials)} trials, all {N} complete, none RUNNING, nothing lost")
