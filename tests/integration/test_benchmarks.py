"""Benchmarks that are rarely run still run: a search of each kind, and a worker of each way."""

import numpy as np
import pytest
import sqlalchemy
from sqlalchemy.engine import make_url

from tests.benchmarks import scale, search
from tests.benchmarks.coverage import draw_truth
from tests.benchmarks.service import fill, fresh_database
from tests.conftest import DRIVERS, require_server
from tuner.storage import find_study, open_database, read_contents


@pytest.mark.parametrize("way", [search.OURS, "Optuna's defaults", search.RANDOM])
def test_a_search_on_curves_spends_its_budget_and_is_better_than_the_median(way: str) -> None:
    truth = draw_truth(1)
    found = [search.search_curves(truth, search.WAYS[way], seed) for seed in (1, 2)]
    assert all(0 <= regret < 1 for regret in found)
    assert found[0] == search.search_curves(truth, search.WAYS[way], 1)  # by its seed alone
    spent = search._by_curves(truth, search.WAYS[way], 1, 40, np.random.default_rng(1))
    assert 20 <= sum(last for last, *_ in spent) <= 40  # another trial takes 20 steps


class Luckless:
    """A tabular benchmark of two parameters whose runs are all alike."""

    directions = {"loss": "minimize"}  # noqa: RUF012 - as the package has it
    search_space = {"rate": [0.1, 0.2, 0.4], "kind": ["a", "b"]}  # noqa: RUF012
    param_types = {"rate": float, "kind": str}  # noqa: RUF012
    _dataset = {  # noqa: RUF012
        f"{rate}{kind}": {"loss": [rate + 3.0 * kind]} for rate in range(3) for kind in range(2)
    }

    def reseed(self, seed: int) -> None:
        self.seed = seed

    def __call__(self, params: dict[str, object]) -> dict[str, float]:
        place = "".join(str(self.search_space[name].index(params[name])) for name in params)
        return {"loss": float(np.mean(self._dataset[place]["loss"]))}


def test_a_search_on_a_table_finds_its_best_row() -> None:
    task = search.Tabular(Luckless(), "loss", 1)
    assert task.scale == (0.0, 2.5)
    assert task.true({"rate": 1, "kind": "b"}) == task.observe({"rate": 1, "kind": "b"}) == 4.0
    assert search.search_table(task, search.WAYS[search.OURS], 0) == 0.0


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
            assert found.server_cpu_ms > 0
            scale._forget(engine, 3)
            database = open_database(url)
            left = read_contents(database, find_study(database, way))
            assert len(left.trials) == 3
            database.close()
        engine.dispose()
