"""Whether a trial that was run again is the same, and the card of an exported model."""

import json
import math
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import FrozenTrial, TrialState

from tests.samples import SNAPSHOT
from tuner.again import Recorded, Rerun, _precision_of, _threads_of
from tuner.model_card import Card, Confirmed, write_card
from tuner.report.statistics.intervals import Interval
from tuner.sameness import ROUNDING, Sameness, compare, excerpt, reasons
from tuner.storage import StoredAttributes

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def trial(curve: dict[int, float], value: float | None = 0.5, **attrs: Any) -> FrozenTrial:
    return FrozenTrial(
        3, TrialState.COMPLETE, value, NOW, NOW, {"x|y": 0.25}, {}, attrs, {}, curve, 3
    )


CURVE = {1: 0.9, 2: 0.5}


@pytest.mark.parametrize(
    ("now", "hashes", "expected"),
    [
        (CURVE, ("a", "a"), Sameness.BIT_FOR_BIT),
        (CURVE, (None, "a"), Sameness.VALUES),
        (CURVE, ("a", "b"), Sameness.ROUNDING),
        ({1: 0.9 * (1 + ROUNDING / 2), 2: 0.5}, ("a", "b"), Sameness.ROUNDING),
        ({1: 0.9 * (1 + ROUNDING * 2), 2: 0.5}, ("a", "b"), Sameness.DIFFERENT),
        ({1: 0.9}, ("a", "a"), Sameness.DIFFERENT),
        ({**CURVE, 3: 0.4}, ("a", "a"), Sameness.DIFFERENT),
        ({1: math.nan, 2: 0.5}, ("a", "a"), Sameness.DIFFERENT),
        ({1: math.inf, 2: 0.5}, ("a", "a"), Sameness.DIFFERENT),
    ],
)
def test_how_alike_two_runs_are(
    now: dict[int, float], hashes: tuple[str | None, str], expected: Sameness
) -> None:
    attrs = [{} if it is None else {"weights_hash": it} for it in hashes]
    found = compare(trial(CURVE, **attrs[0]), trial(now, **attrs[1]))
    assert found.sameness is expected
    assert [it.step for it in found.pairs] == [*sorted({*CURVE, *now}), None]


def test_values_that_are_no_numbers_and_final_values() -> None:
    nan = {1: math.nan, 2: math.inf}
    assert compare(trial(nan, weights_hash="a"), trial(dict(nan), weights_hash="a")).sameness is (
        Sameness.BIT_FOR_BIT
    )
    assert compare(trial(CURVE, 0.5), trial(CURVE, 0.6)).sameness is Sameness.DIFFERENT
    assert compare(trial(CURVE, None), trial(CURVE, None)).sameness is Sameness.VALUES
    assert compare(trial(CURVE, 0.0), trial(CURVE, 1e-9)).sameness is Sameness.DIFFERENT


def test_a_table_of_many_values_has_the_ends_and_the_first_that_differs() -> None:
    curve = {step: 1 / step for step in range(1, 101)}
    pairs = compare(trial(curve), trial({**curve, 38: 0.5})).pairs
    found = excerpt(pairs, 8)
    assert len(found) == 8
    assert (found[0], found[-1]) == (pairs[0], pairs[-1])
    assert pairs[37] in found
    assert found == sorted(found, key=pairs.index)
    assert excerpt(pairs[:8], 8) == pairs[:8]
    assert len(excerpt(compare(trial(curve), trial(curve)).pairs, 8)) == 7


def test_why_it_may_be_different() -> None:
    before = ({"threads": 1, "base_hash": "a" * 64, "seed": 1}, {"keras": "3.14", "host": "a"})
    now = ({"threads": 2, "base_hash": "b" * 64, "seed": 1}, {"keras": "3.15", "host": "b"})
    assert reasons(before, now) == [
        f"the pretrained base was {'a' * 12} and is {'b' * 12}",
        "the number of threads was 1 and is 2",
        "Keras was 3.14 and is 3.15",
    ]
    assert reasons(before, before) == []
    assert reasons(({}, {}), now) == []  # what was not recorded is not said to differ


@pytest.mark.parametrize(
    ("attrs", "threads", "precision"),
    [
        ({"threads": 2, "precision": "bfloat16"}, 2, "bfloat16"),
        ({"threads": "auto", "precision": "high"}, None, "float32"),  # the objective's own words
        ({}, None, "float32"),
    ],
)
def test_what_a_trial_is_run_again_with(
    attrs: dict[str, Any], threads: int | None, precision: str
) -> None:
    stored = StoredAttributes(search={"precision": "float32"})
    recorded = Recorded("MNIST", "", stored, trial(CURVE, **attrs), {})
    assert (_threads_of(recorded), _precision_of(recorded)) == (threads, precision)
    assert recorded.title == "Trial 3 of MNIST"


def card(**changes: Any) -> Card:
    attrs = {"seed": 7, "test_error": 0.0061, "precision": "float32"}
    stored = StoredAttributes(snapshot=SNAPSHOT)
    recorded = Recorded("mnist", "abc", stored, trial(CURVE, 0.0063, **attrs), {"keras": "3.15"})
    whole = {
        "name": "mnist", "recorded": recorded, "why": "the best trial", "final": False,
        "confirmed": None, "trials": 100, "validated": {"validation_error": 0.0064},
        "command": "python -m tuner.replay --study mnist --trial 3",
    }  # fmt: skip
    return Card(**{**whole, **changes})


def test_a_card_says_what_was_measured_and_no_more(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    with zipfile.ZipFile(path, "w") as content:
        layers = [{"config": {"batch_shape": [None, 28, 28, 1]}}]
        content.writestr("config.json", json.dumps({"config": {"layers": layers}}))
    text = write_card(card(), path)
    assert "of the shape (n, 28, 28, 1)" in text
    assert "Not confirmed: of the best of 100 trials a part is luck" in text
    assert "| validation_error, of this file | 0.0064 |" in text
    assert "| test_error, of its run | 0.0061 |" in text
    assert "| x\\|y | 0.25 |" in text  # a name cannot break the table
    assert "python -m tuner.replay --study mnist --trial 3" in text

    mean = Interval(0.0062, 0.006, 0.0064)
    found = Confirmed("mnist-confirm", "test error", True, mean, 10, [{}, {}])
    text = write_card(card(confirmed=found), path)
    assert "Expect a test error of 0.62 % (95 % interval of the mean 0.60 % to 0.64 %" in text
    assert "the test set was opened twice" in text
    assert card(confirmed=found).metrics()["of_its_configuration"]["runs"] == 10
    loss = Confirmed("c", "angle", False, Interval(0.38, 0.37, 0.39), 3, [])
    assert "Expect an angle of 0.38 (95 % interval of the mean 0.37 to 0.39" in (
        card(confirmed=loss).expected()  # what is no share is not shown in per cent
    )

    now = Rerun(trial(CURVE, 0.0063, weights_hash="new", test_error=0.5), {"keras": "3.16"}, path)
    again = card(again=now, sameness=Sameness.ROUNDING)
    text = write_card(again, path)
    assert "was trained again: this run is the same within rounding." in text
    assert "| weights_hash | new |" in text  # of the file, not of the recorded run
    assert "| keras | 3.16 |" in text
    assert again.config()["environment"] == {"keras": "3.16"}
    assert again.metrics()["of_its_run"]["test_error"] == 0.0061

    final = card(final=True, validated={}, again=now)
    assert final.config()["weights_hash"] == "new"
    text = write_card(final, path)
    assert "nothing was measured of this very model" in text
    # The errors of the run that it was made from are not its own.
    assert final.metrics()["of_its_run"] == {}
    assert "0.0061" not in text


def test_a_card_of_a_file_that_is_no_model(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    path.write_text("no zip")
    assert "of the shape" not in write_card(card(), path)
    json.dumps(card().config(), allow_nan=False)
    one = Confirmed("c", "test error", True, Interval(0.1, math.nan, math.nan), 1, [])
    json.dumps(card(confirmed=one).metrics(), allow_nan=False)
    infinite = Recorded("c", "", StoredAttributes(), trial({}, math.inf, test_x=math.inf), {})
    json.dumps(card(recorded=infinite).metrics(), allow_nan=False)
