"""Bad input gets one sentence with value, cause and remedy, and leaves nothing half-written."""

from pathlib import Path

import pytest

from tests.conftest import require_server
from tests.e2e.bad_input import CASES, Case, outcome_of, placed


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_input_is_one_sentence_and_an_exit_code(case: Case, tmp_path: Path) -> None:
    storage = case.env.get("OPTUNA_STORAGE", "")
    if "127.0.0.1/" in storage or storage == "{read only}":
        require_server("mysql" if storage.startswith("mysql") else "postgresql")
    with placed(case, tmp_path) as ready:
        found = outcome_of(ready, tmp_path)
    everything = found.out + found.err
    assert found.code == ready.code, everything
    assert "Traceback" not in everything
    assert "s3cr3t" not in everything
    if ready.code:
        assert found.err.startswith("error: ")
        assert found.err.count("\n") == 1, found.err
        assert found.err.rstrip().endswith((".", "?"))
        assert ready.says in found.err
    else:
        assert ready.says in found.out
    assert not found.left


def test_the_table_is_long_enough_and_its_names_differ() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 40
    assert sum(case.process for case in CASES) >= 20
