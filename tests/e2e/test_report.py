"""`python -m tuner.report` from a database to a page: every kind of study, every output."""

import contextlib
import importlib.util
import io
import json
import math
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import optuna_dashboard
import pandas as pd
import pytest
import sqlalchemy
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState, create_trial
from optuna_dashboard import _note as notes
from plotly import graph_objects as go
from sqlalchemy.engine import make_url

from tests.conftest import DRIVERS, ENVIRONMENT, ROOT
from tests.e2e.bad_input import Case, in_process
from tests.e2e.browser import Page, browser_program, open_page
from tests.e2e.test_page_browser import BEYOND, SETTLED, look, quiet
from tests.e2e.test_status import command
from tests.samples import BEGAN, OURS, SPACE, frozen, in_memory, mnist_like, stored
from tests.unit.test_figures_compare import confirmed
from tuner import report as package
from tuner.report import figures
from tuner.report.cards import Blank, Card, Report
from tuner.report.compose import compose
from tuner.report.material import Material
from tuner.report.page import render
from tuner.report.results import Results
from tuner.storage import open_database

MISTAKE = "by a mistake in the report"


def reported(folder: Path, *arguments: str) -> tuple[int, str, str]:
    """The command in this process, as its entry runs it: exit code, output, errors."""
    return in_process(Case("", arguments, 0, "", "report"), list(arguments), folder)


def sentences(out: str) -> list[str]:
    return out.splitlines()


def contents(url: str) -> dict[str, list[tuple[Any, ...]]]:
    """Everything in a database: the rows of each table."""
    parsed = make_url(url)
    kind = parsed.get_backend_name()
    engine = sqlalchemy.create_engine(
        parsed.set(drivername=DRIVERS.get(kind, kind)), poolclass=sqlalchemy.NullPool
    )
    found: dict[str, list[tuple[Any, ...]]] = {}
    with engine.connect() as connection:
        tables = sqlalchemy.MetaData()
        tables.reflect(connection)
        for name, table in tables.tables.items():
            rows = connection.execute(sqlalchemy.select(table)).all()
            found[name] = sorted((tuple(row) for row in rows), key=repr)
    engine.dispose()
    return found


def kept(url: str, trials: Sequence[FrozenTrial], name: str = "mnist", **attrs: Any) -> None:
    """Put a study into a database of any kind."""
    with contextlib.closing(open_database(url, create=True)) as database:
        study = optuna.create_study(storage=database.storage, study_name=name)
        study.add_trials(trials)
        for key, value in attrs.items():
            study.set_user_attr(key, value)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the sample study ``mnist`` in ``samples.db``, for those who only read it."""
    made = tmp_path_factory.mktemp("samples")
    stored(made, mnist_like(100), attrs=OURS)
    return made


@pytest.fixture
def small(tmp_path: Path) -> str:
    """The URL of a database with a study of a few trials, for those who write to it."""
    return stored(tmp_path, mnist_like(12), attrs=OURS)


# --- the command --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "database_url",
    ["sqlite", *(pytest.param(it, marks=pytest.mark.soak) for it in ("postgresql", "mysql"))],
    indirect=True,
)
def test_writes_a_page_and_leaves_the_database_alone(database_url: str, tmp_path: Path) -> None:
    kept(database_url, mnist_like(15), **OURS)
    before, files = contents(database_url), {it.name for it in tmp_path.iterdir()}
    assert len(before["trials"]) == 17
    done = command("report", "--study", "mnist", "--storage", database_url, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    headline, where = sentences(done.stdout)
    page = tmp_path / "report-mnist.html"
    content = page.read_text(encoding="utf-8")
    assert content.rstrip().endswith("</html>")
    assert f'<h1 class="headline">{headline.removesuffix(".")}</h1>' in content
    size = re.fullmatch(
        r"The report is in report-mnist\.html \(([\d.]+) MB\); open it in a browser\.", where
    )
    assert size, where
    assert float(size[1]) == pytest.approx(page.stat().st_size / 1e6, rel=0.01)
    assert {it.name for it in tmp_path.iterdir()} == {*files, "report-mnist.html"}
    assert contents(database_url) == before


def test_loads_neither_tensorflow_nor_keras(small: str, tmp_path: Path) -> None:
    code = (
        "import sys\nfrom tuner.report import report\n"
        f"report.main(['--study', 'mnist', '--storage', {small!r}], standalone_mode=False)\n"
        "print(sorted({it.split('.')[0] for it in sys.modules} & {'tensorflow', 'keras', 'jax'}))\n"
        "print('plotly' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={**ENVIRONMENT, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert sentences(done.stdout)[-2:] == ["[]", "True"]


def test_a_page_that_is_there_is_replaced_whole(small: str, tmp_path: Path) -> None:
    page = tmp_path / "it.html"
    page.write_text("old")
    code, out, err = reported(tmp_path, "--study", "mnist", "--storage", small, "--out", "it.html")
    assert (code, err) == (0, "")
    assert "The report is in it.html (" in out
    assert page.read_text().lstrip().startswith("<!DOCTYPE html>")
    assert {it.name for it in tmp_path.iterdir()} == {"samples.db", "it.html"}


def test_several_studies_and_one_named_twice(tmp_path: Path) -> None:
    url = stored(tmp_path, mnist_like(12), attrs=OURS)
    stored(tmp_path, mnist_like(14, seed=1), name="theirs", attrs=OURS)
    named = ("--study", "mnist", "--study", "theirs", "--study", "mnist")
    code, out, err = reported(tmp_path, *named, "--storage", url, "--csv", "tables")
    assert (code, err) == (0, "")
    assert "The report is in report-mnist-theirs.html (" in out
    content = (tmp_path / "report-mnist-theirs.html").read_text()
    assert re.findall(r'<p class="name">(.*)</p>', content) == ["mnist", "theirs"]
    tables = {it.name for it in (tmp_path / "tables").iterdir()}
    assert {"1-mnist-trials.csv", "2-theirs-trials.csv", "1-mnist-steps.csv"} <= tables
    together = {it for it in tables if it.startswith("0-figure-together-")}
    assert len(together) == len(re.findall(r'class="card figure[^"]*" id="together-', content)) > 0
    alone = ("--study", "mnist", "--study", "mnist")
    code, out, _ = reported(tmp_path, *alone, "--storage", url)
    assert code == 0
    assert "The report is in report-mnist.html (" in out


# --- the page in a browser ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def page(folder: Path) -> Iterator[Page]:
    url = f"sqlite:///{folder}/samples.db"
    code, _, err = reported(folder, "--study", "mnist", "--storage", url, "--out", "page.html")
    assert (code, err) == (0, "")
    with open_page(folder / "page.html", 1400) as opened:
        opened.wait_for(SETTLED)
        yield opened


@pytest.mark.parametrize("width", [1400, 390])
def test_the_page_is_drawn_and_fits(page: Page, folder: Path, width: int) -> None:
    look(page, width)
    data = page.evaluate("({...document.documentElement.dataset})")
    assert data["drawn"] == data["figures"]
    assert int(data["figures"]) >= 15
    assert (folder / "page.html").stat().st_size < 3_000_000
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    widths = "[innerWidth, document.documentElement.scrollWidth]"
    assert page.evaluate(widths) == [width, width]
    assert page.evaluate(BEYOND) == 0
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = false; })")
    quiet(page)


def test_every_plot_has_words_and_a_table(page: Page) -> None:
    plots = page.evaluate(
        """[...document.querySelectorAll('.plot')].map((one) => [
          one.id, one.getAttribute('aria-label'),
          one.closest('.card').querySelectorAll('details tbody tr').length])"""
    )
    assert len(plots) >= 15
    assert [name for name, alt, _ in plots if not alt or len(alt) < 20] == []
    assert [name for name, _, rows in plots if not rows] == []


# --- studies of any origin ----------------------------------------------------------------------

Params = Callable[[np.random.Generator, int], dict[str, Any]]
Value = Callable[[np.random.Generator, int], float]
HOSTILE = "</script><b>"


def two_params(generator: np.random.Generator, number: int) -> dict[str, Any]:
    optimizers = SPACE["optimizer"].choices  # type: ignore[attr-defined]
    rate = float(10 ** generator.uniform(-4, 0))
    return {"learning_rate": rate, "optimizer": optimizers[number % 7]}


def error(generator: np.random.Generator, number: int) -> float:
    return float(generator.uniform(0.01, 0.05))


def made(
    count: int = 16,
    *,
    params: Params = two_params,
    value: Value = error,
    space: dict[str, BaseDistribution] = SPACE,
    state: TrialState = TrialState.COMPLETE,
    curve: Callable[[float], dict[int, float]] = lambda value: {1: 2 * value, 20: value},
    attrs: dict[str, Any] | None = None,
) -> list[FrozenTrial]:
    """Trials as any program may leave them."""
    generator = np.random.default_rng(0)
    found = []
    for number in range(count):
        chosen, result = params(generator, number), value(generator, number)
        final = None if state == TrialState.FAIL else result
        found.append(frozen(state, chosen, curve(result), final, attrs or {}, space=space))
    return found


def of_objectives(count: int) -> list[FrozenTrial]:
    generator = np.random.default_rng(0)
    found = []
    for number in range(14):
        params = two_params(generator, number)
        space = {name: SPACE[name] for name in params}
        values = [float(it) for it in generator.random(count)]
        found.append(create_trial(params=params, distributions=space, values=values))
    return found


CONDITIONAL: dict[str, BaseDistribution] = {
    "optimizer": CategoricalDistribution(("sgd", "adam")),
    "momentum": FloatDistribution(0, 1),
    "nesterov": CategoricalDistribution((True, False, None)),
    "lr": FloatDistribution(1e-4, 1, log=True),
}


def conditional(generator: np.random.Generator, number: int) -> dict[str, Any]:
    rate = {"lr": float(10 ** generator.uniform(-4, 0))}
    if number % 2:
        return {"optimizer": "adam", **rate}
    more = {"momentum": float(generator.random()), "nesterov": (True, False, None)[number % 3]}
    return {"optimizer": "sgd", **more, **rate}


SINGLE: dict[str, BaseDistribution] = {
    "optimizer": CategoricalDistribution(("adam",)),
    "x": FloatDistribution(1, 1),
    "k": IntDistribution(3, 3),
}
STRANGE: dict[str, BaseDistribution] = {
    HOSTILE: CategoricalDistribution((HOSTILE, "\U0001f600", "'\"`$(x)", "x" * 500)),
    "../../etc": FloatDistribution(0, 1),
    "": IntDistribution(0, 3),
    "%{x}<br>": FloatDistribution(1e-5, 1, log=True),
    "n" * 400: CategoricalDistribution((1, True, None)),
}


def strange(generator: np.random.Generator, number: int) -> dict[str, Any]:
    return {
        HOSTILE: STRANGE[HOSTILE].choices[number % 4],  # type: ignore[attr-defined]
        "../../etc": float(generator.random()),
        "": number % 4,
        "%{x}<br>": float(10 ** generator.uniform(-5, 0)),
        "n" * 400: (1, True, None)[number % 3],
    }


ACCURACY = {
    **OURS,
    "tuner:definition": {
        **OURS["tuner:definition"], "metric": "val_accuracy", "direction": "maximize",
    },
}  # fmt: skip
UNENDED = [
    frozen(TrialState.RUNNING, {"optimizer": "adam"}, {}, None, {}, BEGAN, None),
    create_trial(state=TrialState.WAITING, params={}, distributions={}),
]
ORIGINS: dict[str, dict[str, Any]] = {
    "another program": {"trials": made()},
    "another program without steps": {"trials": made(curve=lambda value: {})},
    "steps from 0": {"trials": made(curve=lambda value: {0: 2 * value, 1: value})},
    "two objectives": {"trials": of_objectives(2), "directions": ["minimize", "maximize"]},
    "three objectives": {"trials": of_objectives(3), "directions": ["minimize"] * 3},
    "conditional parameters": {
        "trials": made(20, space=CONDITIONAL, params=conditional),
    },
    "one trial": {"trials": made(1)},
    "none finished": {"trials": UNENDED},
    "no trial": {"trials": []},
    "all failed": {"trials": made(12, state=TrialState.FAIL, attrs={"reason": "killed"})},
    "all pruned": {"trials": made(12, state=TrialState.PRUNED)},
    "all diverged": {"trials": made(12, state=TrialState.PRUNED, attrs={"outcome": "diverged"})},
    "all infinite": {"trials": made(12, value=lambda *_: math.inf, curve=lambda value: {})},
    "NaN and infinities among the steps": {
        "trials": made(curve=lambda value: {1: math.nan, 2: math.inf, 3: -math.inf, 20: value}),
    },
    "nothing but NaN among the steps": {"trials": made(curve=lambda value: {1: math.nan})},
    "accuracy": {
        "trials": made(value=lambda *it: 1 - error(*it), curve=lambda value: {1: value - 0.1}),
        "directions": ["maximize"],
        "attrs": ACCURACY,
    },
    "a reward": {
        "trials": made(value=lambda generator, _: float(generator.normal())),
        "directions": ["maximize"],
    },
    "negative values": {"trials": made(value=lambda *it: -error(*it))},
    "ties": {"trials": made(value=lambda generator, number: (0.1, 0.2)[number % 2])},
    "all alike": {"trials": made(value=lambda *_: 0.0)},
    "a space of one point": {
        "trials": made(space=SINGLE, params=lambda *_: {"optimizer": "adam", "x": 1.0, "k": 3}),
    },
    "no parameters": {"trials": made(params=lambda *_: {})},
    "hostile names": {
        "trials": made(20, space=STRANGE, params=strange, attrs={HOSTILE: HOSTILE}),
        "name": f"{HOSTILE}\U0001f600'\" {'long' * 80}",
    },
}  # fmt: skip
# The sections of a study with one objective; further ones come where there is something to say.
SECTIONS = {"search", "factors", "interactions", "trials", "importance", "cost", "failures",
            "provenance"}  # fmt: skip


def blanks(report: Report) -> dict[str, str]:
    return {
        card.key: card.why
        for chapter in report.chapters
        for section in chapter.sections
        for card in section.cards
        if isinstance(card, Blank)
    }


@pytest.mark.parametrize("origin", ORIGINS)
def test_every_study_has_a_page(origin: str) -> None:
    results = in_memory(**ORIGINS[origin])
    report = compose([Material(results)])
    content = render(report)
    (chapter,) = report.chapters
    assert not [why for why in blanks(report).values() if MISTAKE in why]
    assert all(why.endswith(".") for why in blanks(report).values())
    found = {it.key for it in chapter.sections}
    several = len(results.directions) > 1
    assert found >= SECTIONS - ({"factors", "interactions"} if several else set())
    assert ("pareto" in found) == several
    assert [it.key for it in chapter.sections if not it.cards and not it.tiles] == []
    for word in (chapter.cover.headline, chapter.cover.lead, *blanks(report).values()):
        assert not re.search(r"\b(None|nan|inf)\b", word.replace("nesterov None", "")), word
    assert content.rstrip().endswith("</html>")
    if origin == "hostile names":
        assert HOSTILE not in content
        assert content.count("</script>") == 3


def test_a_page_of_hostile_names_in_a_browser(tmp_path: Path) -> None:
    report = compose([Material(in_memory(**ORIGINS["hostile names"]))])
    file = tmp_path / "page.html"
    file.write_text(render(report), encoding="utf-8")
    with open_page(file, 390) as opened:
        opened.wait_for(SETTLED)
        widths = "[innerWidth, document.documentElement.scrollWidth]"
        assert opened.evaluate(widths) == [390, 390]
        assert opened.evaluate("document.querySelectorAll('b').length") == 0
        quiet(opened)


def test_one_broken_figure_does_not_lose_the_page(
    small: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def whole() -> tuple[str, list[str]]:
        code, _, err = reported(tmp_path, "--study", "mnist", "--storage", small)
        assert code == 0
        content = (tmp_path / "report-mnist.html").read_text()
        return err, re.findall(r'class="card figure[^"]*" id="([^"]+)"', content)

    err, everything = whole()
    assert err == ""

    def broken(_: Results) -> Card:
        raise RuntimeError("boom")

    monkeypatch.setattr("tuner.report.compose.history.history", broken)
    err, others = whole()
    assert "The figure history failed" in err
    assert "RuntimeError: boom" in err
    assert set(everything) - set(others) == {"history"}
    content = (tmp_path / "report-mnist.html").read_text()
    (why,) = re.findall(
        r'id="history\.title">.*?</h3>\s*<p class="why">(.*?)</p>', content, re.DOTALL
    )
    assert why.startswith(f"This could not be made, {MISTAKE}: RuntimeError: boom.")


def test_a_confirmation_leads(tmp_path: Path) -> None:
    url = stored(tmp_path, mnist_like(12), attrs=OURS)
    again = confirmed({"adam": 0.006, "sgd": 0.02}, seeds=5)
    trials = []
    for number in again.trials.index:
        params = dict(again.params.loc[number])
        params["frozen_layers"] = int(params["frozen_layers"])
        value, seed = again.trials["value"][number], int(again.attrs["seed"][number])
        trials.append(frozen(TrialState.COMPLETE, params, {20: value}, value, {"seed": seed}))
    stored(tmp_path, trials, name="again", attrs={**OURS, "tuner:confirms": "mnist"})
    code, out, err = reported(tmp_path, "--study", "mnist", "--storage", url)
    assert (code, err) == (0, "")
    assert sentences(out)[0] == "On 5 shared seeds adam beats its rival."
    content = (tmp_path / "report-mnist.html").read_text()
    assert '<h1 class="headline">On 5 shared seeds adam beats its rival</h1>' in content
    sections = re.findall(r'<section id="([^"]+)"', content)
    assert "confirmation" in sections[:2]
    assert '<p class="why">' not in content.split('id="search"')[0]
    # By itself it is told by its own pairs, too.
    code, out, _ = reported(tmp_path, "--study", "again", "--storage", url)
    assert (code, sentences(out)[0]) == (0, "On 5 shared seeds adam beats its rival.")


# --- what is wrong ------------------------------------------------------------------------------


def test_a_folder_that_cannot_be_written(small: str, tmp_path: Path) -> None:
    code, out, err = reported(
        tmp_path, "--study", "mnist", "--storage", small, "--out", "/sys/page.html"
    )
    assert (code, out) == (2, "")
    assert re.fullmatch(r"error: /sys/page\.html cannot be written: .*\.\n", err), err


@pytest.mark.parametrize("out", ["no/such/page.html", "."])
def test_a_wrong_place_is_told_before_the_work(
    small: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str
) -> None:
    def work(*_: object) -> None:
        raise AssertionError("it was begun")

    monkeypatch.setattr("tuner.report.writing.read_materials", work)
    code, said, err = reported(tmp_path, "--study", "mnist", "--storage", small, "--out", out)
    assert (code, said) == (2, "")
    assert err.startswith(f"error: --out is {out}, and ")
    assert err.count("\n") == 1


# --- tables and pictures ------------------------------------------------------------------------


def test_tables_in_full(tmp_path: Path) -> None:
    rate = 0.1 + 0.2  # 0.30000000000000004
    trials = made(12, value=lambda generator, _: float(generator.uniform(0.01, 0.05)))
    params = {"learning_rate": rate, "optimizer": "adam"}
    attrs = {"worker": 3, "note": 'a,b\n"c"'}
    trials.append(frozen(TrialState.COMPLETE, params, {1: 1 / 3, 2: 1e-17}, 1e-17, attrs))
    url = stored(tmp_path, trials)
    code, out, err = reported(tmp_path, "--study", "mnist", "--storage", url, "--csv", "a/b")
    assert (code, err) == (0, "")
    found = {it.name for it in (tmp_path / "a" / "b").iterdir()}
    assert sentences(out)[-1] == f"Wrote {len(found)} tables into a/b."
    frame = pd.read_csv(tmp_path / "a/b/trials.csv", index_col="number")
    assert len(frame) == 13
    assert frame["value"].tolist() == [it.value for it in trials]
    assert frame["param_learning_rate"].tolist() == [it.params["learning_rate"] for it in trials]
    assert frame["param_learning_rate"][12] == rate
    assert frame["param_optimizer"].tolist() == [it.params["optimizer"] for it in trials]
    assert frame["attr_note"][12] == attrs["note"]
    assert frame["attr_worker"][12] == 3
    steps = pd.read_csv(tmp_path / "a/b/steps.csv")
    kept_steps = [(n, *it) for n, t in enumerate(trials) for it in t.intermediate_values.items()]
    assert list(steps[["number", "step", "value"]].itertuples(index=False, name=None)) == kept_steps
    content = (tmp_path / "report-mnist.html").read_text()
    drawn = re.findall(r'class="card figure[^"]*" id="([^"]+)"', content)
    assert len([it for it in found if it.startswith("figure-")]) == len(drawn) > 5


@pytest.mark.parametrize(
    "name", ["../../escaped", "/tmp/escaped", "..", "a\nb \U0001f600", "\u6570" * 150]
)
def test_a_hostile_name_stays_in_its_folder(tmp_path: Path, name: str) -> None:
    inside = tmp_path / "in" / "side"
    inside.mkdir(parents=True)
    stored(inside, made(2, space=STRANGE, params=strange), name=name)
    url = stored(inside, made(2), name="other")
    before = {it for it in tmp_path.rglob("*") if inside not in it.parents}
    with contextlib.chdir(inside):
        list(written([name], url))
        list(written([name, "other"], url, csv=Path("tables")))
    assert {it for it in tmp_path.rglob("*") if inside not in it.parents} == before
    pages = [it.name for it in inside.iterdir() if it.suffix == ".html"]
    assert 1 <= len(pages) <= 2  # long names are cut
    assert all(re.fullmatch(r"report-[\w.-]+\.html", it) for it in pages)
    tables = list((inside / "tables").iterdir())
    assert sum(it.name.endswith("trials.csv") and "figure" not in it.name for it in tables) == 2
    assert all(it.is_file() for it in tables)


def test_names_that_are_alike_keep_their_tables_apart(tmp_path: Path) -> None:
    url = stored(tmp_path, made(2), name="a b")
    stored(tmp_path, made(3), name="a_b")
    with contextlib.chdir(tmp_path):
        list(written(["a b", "a_b"], url, csv=Path("tables")))
    tables = [it for it in (tmp_path / "tables").glob("*trials.csv") if "figure" not in it.name]
    assert sorted(len(pd.read_csv(it)) for it in tables) == [2, 3]


def written(studies: Sequence[str], url: str, csv: Path | None = None) -> Iterator[str]:
    from tuner.report.writing import Outputs, write

    return write(studies, url, Outputs(page=None, csv=csv, png=None, publish=False))


def test_pictures_need_kaleido_which_is_told_before_the_work(
    small: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.util.find_spec

    def without(name: str, *more: Any) -> Any:
        return None if name == "kaleido" else real(name, *more)

    monkeypatch.setattr(importlib.util, "find_spec", without)
    before = sorted(tmp_path.iterdir())
    code, out, err = reported(tmp_path, "--study", "mnist", "--storage", small, "--png", "pictures")
    assert (code, out) == (2, "")
    assert err == (
        "error: --png needs the package kaleido; install it with: pip install 'tuner[png]'\n"
    )
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.soak
def test_pictures(small: str, tmp_path: Path) -> None:
    browser_program()  # skips without one, and fails under CI
    code, out, err = reported(tmp_path, "--study", "mnist", "--storage", small, "--png", "pictures")
    assert (code, err) == (0, "")
    pictures = list((tmp_path / "pictures").iterdir())
    assert sentences(out)[-1] == f"Wrote {len(pictures)} pictures into pictures."
    assert len(pictures) >= 15
    assert all(it.read_bytes().startswith(b"\x89PNG") for it in pictures)


# --- the dashboard ------------------------------------------------------------------------------


def asked(storage: optuna.storages.BaseStorage, path: str) -> dict[str, Any]:
    """What optuna-dashboard answers to a request."""
    said: dict[str, Any] = {}

    def begin(status: str, headers: list[tuple[str, str]], *_: object) -> None:
        said["status"] = status

    environ = {
        "REQUEST_METHOD": "GET", "PATH_INFO": path, "SERVER_NAME": "x", "SERVER_PORT": "80",
        "wsgi.url_scheme": "http", "wsgi.input": io.BytesIO(), "wsgi.errors": io.StringIO(),
        "QUERY_STRING": "",
    }  # fmt: skip
    body = b"".join(optuna_dashboard.wsgi(storage)(environ, begin))
    assert said["status"].startswith("200"), (said, body[:500])
    return dict(json.loads(body))


def test_publishes_a_note_and_figures_once(small: str, tmp_path: Path) -> None:
    before = contents(small)
    for _ in range(2):
        code, out, err = reported(tmp_path, "--study", "mnist", "--storage", small, "--publish")
        assert (code, err) == (0, "")
        said = re.fullmatch(
            r"optuna-dashboard shows the verdict and (\d) figures with mnist\.", sentences(out)[-1]
        )
        assert said, out
    with contextlib.closing(open_database(small)) as database:
        study = optuna.load_study(study_name="mnist", storage=database.storage)
        attrs = database.storage.get_study_system_attrs(study._study_id)
        note = notes.get_note_from_system_attrs(attrs, None)["body"]
        answer = asked(database.storage, f"/api/studies/{study._study_id}")
    headline = sentences(out)[0].removesuffix(".")
    assert f"\n\n## {headline}\n" in note
    assert "| Optimizer | " in note
    assert answer["note"]["body"] == note
    graphs = answer["plotly_graph_objects"]
    assert sorted(it["id"] for it in graphs) == [f"tuner-{n}" for n in range(1, int(said[1]) + 1)]
    assert 3 <= len(graphs) <= 4
    for it in graphs:
        figure = go.Figure(json.loads(it["graph_object"]))
        assert 0 < figure.layout.height <= 450
        assert figure.layout.title.text
        assert len(figure.data)
    after = contents(small)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"study_system_attributes"}


def test_publishing_needs_a_database_that_can_be_written(small: str, tmp_path: Path) -> None:
    from sqlite3 import dbapi2

    connect = dbapi2.connect

    def read_only(*arguments: Any, **options: Any) -> Any:
        connection = connect(*arguments, **options)
        connection.execute("PRAGMA query_only = on")
        return connection

    before = contents(small)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sqlite3.dbapi2.connect", read_only)
        patch.setattr("sqlite3.connect", read_only)
        code, _, err = reported(tmp_path, "--study", "mnist", "--storage", small, "--publish")
    assert code == 3
    assert err.startswith("error: ")
    assert "readonly" in err or "read-only" in err
    assert err.count("\n") == 1
    assert contents(small) == before


# --- in a notebook ------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["argument", "environment", "file"])
def test_loads_a_study(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    url = f"sqlite:///{folder}/samples.db"
    monkeypatch.delenv("OPTUNA_STORAGE", raising=False)
    monkeypatch.chdir(tmp_path)
    if how == "environment":
        monkeypatch.setenv("OPTUNA_STORAGE", url)
    elif how == "file":
        (tmp_path / "tuner.toml").write_text(f'storage = "{url}"\n')
    results = package.load("mnist", url if how == "argument" else None)
    assert results.trials.shape[0] == 102
    assert results.values.shape == (102, 1)
    assert results.params.shape == (102, 4)
    assert list(results.params.columns) == list(SPACE)
    assert results.attrs.index.equals(results.trials.index)
    assert list(results.steps.columns) == ["number", "step", "value"]
    assert results.metric == "val_error"


def test_figures_for_a_notebook(folder: Path) -> None:
    results = package.load("mnist", f"sqlite:///{folder}/samples.db")
    found = [
        figures.history(results),
        figures.forest(results, "optimizer"),
        figures.expected(results, "optimizer"),
        *figures.interactions(results),
        figures.response(results),
        figures.curves(results),
        figures.leaders(results),
        figures.parallel(results),
        figures.importance(results),
        *figures.spending(results),
        figures.timeline(results),
        figures.savings(results),
        figures.cost(results),
        *figures.failures(results),
        *figures.side_by_side([results, results]),
        *figures.confirmation(confirmed({"adam": 0.006, "sgd": 0.02})),
        figures.pareto(in_memory(**ORIGINS["two objectives"])),
    ]
    assert len(found) >= 20
    for figure in found:
        assert isinstance(figure, go.Figure)
        assert len(figure.layout.title.text) > 10
        assert len(figure.data)
    with pytest.raises(KeyError, match="nesterov"):
        figures.forest(results, "nesterov")
