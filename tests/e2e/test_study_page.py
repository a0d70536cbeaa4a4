"""A study's page in a real optuna-dashboard, in a browser, and what a run puts there."""

import contextlib
import json
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import optuna
import optuna_dashboard
import pytest
from optuna_dashboard import _note as notes

from tests.conftest import run
from tests.e2e.browser import open_page
from tests.e2e.test_report import reported
from tests.samples import OURS, mnist_like, stored
from tests.unit.test_publishing import content
from tuner.artifacts import MISTAKES_FILE, MODEL_FILE, Artifacts, store_of
from tuner.storage import open_database

UID = "0123456789ab"
# The titles of the figures that Plotly has drawn, without spaces as lines are joined without one;
# and the pictures in them.
DRAWN = """[...document.querySelectorAll('.js-plotly-plot')]
  .map((it) => it.querySelector('.gtitle')?.textContent || '')
  .map((it) => it.replace(/\\s/g, '')).filter((it) => it)"""
PICTURES = "document.querySelectorAll('.js-plotly-plot .imagelayer image').length"
TEXT = "document.body.innerText"


class _Silent(WSGIRequestHandler):
    def log_message(self, *_: object) -> None: ...


class _Threads(ThreadingMixIn, WSGIServer):
    daemon_threads = True


@contextlib.contextmanager
def dashboard(url: str, artifacts: str) -> Iterator[str]:
    """optuna-dashboard as its own command starts it, at an address of this machine."""
    with contextlib.closing(open_database(url)) as database:
        application = optuna_dashboard.wsgi(database.storage, store_of(artifacts))
        server = make_server("127.0.0.1", 0, application, _Threads, _Silent)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


def search_with_files(folder: Path) -> tuple[str, str, int]:
    """A study whose best trial left its model and its mistakes: URL, store, the trial's number."""
    artifacts = str(folder / "store")
    outputs = folder / "outputs"
    outputs.mkdir()
    (outputs / MODEL_FILE).write_text("the model")
    (outputs / MISTAKES_FILE).write_text(json.dumps(content()))
    trials = mnist_like(40)
    complete = [it for it in trials if it.state.name == "COMPLETE"]
    best = min(complete, key=lambda it: it.value)
    best._system_attrs = Artifacts(artifacts, "mnist", UID).upload(outputs)
    url = stored(folder, trials, attrs={**OURS, "tuner:id": UID})
    return url, artifacts, trials.index(best)


@pytest.mark.soak
def test_the_page_of_a_study_has_note_figures_and_model(tmp_path: Path) -> None:
    url, artifacts, best = search_with_files(tmp_path)
    study = optuna.load_study(study_name="mnist", storage=url)
    optuna_dashboard.save_note(study, "Ask Ada before you change this.")
    given = ("--study", "mnist", "--storage", url, "--artifacts", artifacts, "--publish")
    code, out, err = reported(tmp_path, *given)
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == (
        "optuna-dashboard shows the verdict, 6 figures and the best trial's model with mnist."
    )
    with dashboard(url, artifacts) as address:
        place = f"{address}/dashboard/studies/{study._study_id}"
        with open_page(place, 1400, 3600) as page:
            page.wait_for(f"{DRAWN}.length >= 6 && {PICTURES} === 24")
            titles = page.evaluate(DRAWN)
            for said in (
                "most often 0 taken for 1: 9 times",
                "mistakes are made with 90 % or more",
                f"Trial {best} ends best",
            ):
                assert sum("".join(said.split()) in it for it in titles) == 1, (said, titles)
            page.wait_for(f"{TEXT}.includes('{MODEL_FILE}')")
            page.open(f"{place}/note")
            page.wait_for(f"{TEXT}.includes('searched among')")
            text = page.evaluate(TEXT)
            assert "Ask Ada before you change this." in text
            assert out.splitlines()[0].removesuffix(".") in text
            assert "tuner-begin" not in text  # the lines around our part are not seen
            assert page.console == []
        [link] = [
            it["artifact_id"]
            for it in json.load(urllib.request.urlopen(f"{address}/api/studies/1"))["artifacts"]
        ]
        file = urllib.request.urlopen(f"{address}/artifacts/1/{link}").read()
    assert link.startswith(f"{UID}-")
    assert file == b"the model"


def test_a_run_brings_the_page_up_to_date(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/tuner.db"

    def page() -> tuple[int, str]:
        study = optuna.load_study(study_name="paraboloid", storage=url)
        attrs = study._storage.get_study_system_attrs(study._study_id)
        note = notes.get_note_from_system_attrs(attrs, None)
        return note["version"], note["body"]

    def search(trials: int, publish: bool = True) -> None:
        given = ("--study", "paraboloid", "--trials", str(trials), "--storage", url, "--seed", "1")
        off = {} if publish else {"TUNER_NO_PUBLISH": "1"}
        done = run(*given, "--workers", "0", **({"TUNER_NO_PUBLISH": "0"} | off))
        assert (done.returncode, done.stderr) == (0, "")

    search(3)
    version, text = page()
    assert version == 1
    assert "\n3 trials: " in text
    assert "| x | " in text
    search(4, publish=False)
    search(4)  # nothing to do
    assert page() == (version, text)
