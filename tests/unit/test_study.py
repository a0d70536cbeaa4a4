"""Study files: what is accepted, and the sentence for what is not."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from optuna.distributions import FloatDistribution, IntDistribution, distribution_to_json

from tuner.errors import UsageError
from tuner.study import Snapshot, find_file, load

GOOD = "def objective(trial):\n    return 1.0\n"
SPACE = (
    "from optuna.distributions import FloatDistribution\nspace = {'x': FloatDistribution(0, 1)}\n"
)

Write = Callable[[str], Path]


def test_an_unmodified_optuna_objective_is_a_study(write_study: Write) -> None:
    definition = load(write_study(GOOD))
    assert definition.objective(None) == 1.0  # type: ignore[arg-type]
    assert definition.space is None
    snapshot = definition.snapshot
    assert (snapshot.metric, snapshot.direction, snapshot.max_step) == ("value", "minimize", None)


def test_a_declared_study_survives_the_snapshot(write_study: Write) -> None:
    text = GOOD + SPACE + "metric = 'loss'\ndirection = 'maximize'\nmax_step = 9\n"
    snapshot = load(write_study(text)).snapshot
    again = Snapshot.from_json(snapshot.to_json())
    assert again == snapshot
    assert again.distributions() == {"x": FloatDistribution(0, 1)}
    assert (again.metric, again.direction, again.max_step) == ("loss", "maximize", 9)


def test_a_study_may_import_its_neighbours(write_study: Write, tmp_path: Path) -> None:
    (tmp_path / "beside_the_study.py").write_text("answer = 42.0\n")
    path = write_study("from beside_the_study import answer\ndef objective(trial): return answer\n")
    assert load(path).objective(None) == 42.0  # type: ignore[arg-type]


def test_several_objectives(write_study: Write) -> None:
    text = GOOD + SPACE + "metric = ('error', 'size')\n"
    snapshot = load(write_study(text)).snapshot
    assert snapshot.metrics == ["error", "size"]
    assert snapshot.directions == ["minimize", "minimize"]
    assert Snapshot.from_json(snapshot.to_json()) == snapshot
    other = load(write_study(text + "direction = ['minimize', 'maximize']\n")).snapshot
    assert other.difference(snapshot) == (
        "direction is 'minimize' and 'maximize' and was 'minimize' and 'minimize'"
    )
    one = load(write_study(GOOD + SPACE + "metric = 'error'\n")).snapshot
    assert one.difference(snapshot) == "metric is 'error' and was 'error' and 'size'"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("def objective(trial:\n", "line 1: SyntaxError"),
        ("x = 1\n\nraise KeyError('no such thing')\n", "line 3: KeyError: 'no such thing'"),
        ("import sys\nsys.exit(3)\n", "line 2: SystemExit: 3"),
        ("import no_such_module_at_all\n", "line 1: ModuleNotFoundError"),
        ("def objectiv(trial): return 1\n", "no function objective.*it has 'objectiv'"),
        ("objective = 3\n", "no function objective"),
        (GOOD + GOOD, "defines objective more than once \\(lines \\d+ and \\d+\\)"),
        (GOOD + SPACE + "spaec = space\ndel space\n", "the name 'spaec'; did you mean 'space'"),
        (GOOD + "def prepair(): ...\n", "the name 'prepair'; did you mean 'prepare'"),
        (GOOD + "space = {}\n", "space in .* is {}"),
        (GOOD + "space = {'x': (0, 1)}\n", "maps 'x' to \\(0, 1\\)"),
        (GOOD + SPACE + "space[3] = space['x']\n", "maps 3 to"),
        (GOOD + "metric = ''\n", "metric in .* is ''"),
        (GOOD + "direction = 'down'\n", "direction in .* is 'down'"),
        (GOOD + "metric = ()\n", "metric in .* is \\(\\); write a name for each objective"),
        (GOOD + "metric = ('a', 'a')\n", "write a name for each objective, each another one"),
        (GOOD + "metric = ('a', 3)\n", "metric in .* is 3"),
        (
            GOOD + "metric = ('a', 'b')\ndirection = 'minimize'\n",
            "metric has 2 names; write a direction for each, for example \\('minimize', 'mini",
        ),
        (GOOD + "metric = ['a', 'b']\ndirection = ['minimize']\n", "write a direction for each"),
        (GOOD + "metric = ('a', 'b')\ndirection = ('minimize', 'up')\n", "direction in .* is 'up'"),
        (GOOD + "max_step = 0\n", "max_step in .* is 0"),
        (GOOD + "max_step = '20'\n", "max_step in .* is '20'"),
        (GOOD + "steps_per_epoch = 0\n", "steps_per_epoch in .* is 0"),
        (GOOD + "steps_per_epoch = 0.5\n", "steps_per_epoch in .* is 0.5; write a whole number"),
        (GOOD + "prepare = 1\n", "prepare in .* is 1"),
        (
            "from optuna.distributions import CategoricalDistribution\nimport warnings\n"
            "with warnings.catch_warnings(action='ignore'):\n"
            "    space = {'kind': CategoricalDistribution((int, float))}\n" + GOOD,
            "choices for kind that a database cannot hold",
        ),
    ],
)
def test_a_broken_study_gets_a_sentence(write_study: Write, text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        load(write_study(text))
    assert "\n" not in str(caught.value)
    assert "study.py" in str(caught.value)


def test_an_objective_may_build_on_another(write_study: Write) -> None:
    later = "plain = objective\ndef objective(trial):\n    return -plain(trial)\n"
    assert load(write_study(GOOD + later)).objective(None) == -1.0  # type: ignore[arg-type]


def test_names_that_hold_something_else_are_no_slips(write_study: Write) -> None:
    names = ("spaces = [1]", "prepared = 3", "directions = (1, 2)", "max_steps = 4",
             "batches_per_epoch = 9", "metrics = {}")  # fmt: skip
    load(write_study(GOOD + "\n".join(names) + "\n"))


def test_a_study_may_change_the_directory(
    write_study: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_study("import os\nos.chdir('/')\n" + GOOD)
    monkeypatch.chdir(path.parent)
    assert load(Path(path.name)).snapshot.file == path.name


def test_a_mistake_in_a_neighbour_names_its_file(write_study: Write, tmp_path: Path) -> None:
    (tmp_path / "broken_neighbour.py").write_text("x = (\n")
    path = write_study("import broken_neighbour\n" + GOOD)
    with pytest.raises(UsageError, match=r"broken_neighbour\.py line 1: SyntaxError"):
        load(path)


def test_prepare_is_there_and_its_failure_is_a_sentence(write_study: Write) -> None:
    load(write_study(GOOD)).prepare()
    definition = load(write_study(GOOD + "def prepare():\n    raise OSError('disk full')\n"))
    with pytest.raises(UsageError, match=r"prepare\(\) in .* failed: line 4: OSError: disk full"):
        definition.prepare()


def test_a_snapshot_of_a_later_version_is_read() -> None:
    one = Snapshot(None, "loss", "minimize", 4, "a.py", "h")
    assert Snapshot.from_dict({**vars(one), "invented_later": 1}) == one


def test_a_snapshot_of_an_earlier_version_is_read() -> None:
    one = Snapshot(None, "loss", "minimize", 4, "a.py", "h")
    stored = dict(vars(one))
    del stored["steps_per_epoch"]
    assert Snapshot.from_dict(stored) == one


def test_epochs_are_for_people_and_no_part_of_the_definition(write_study: Write) -> None:
    one = load(write_study(GOOD + "steps_per_epoch = 4\n")).snapshot
    other = load(write_study(GOOD)).snapshot
    assert (one.steps_per_epoch, other.steps_per_epoch) == (4, None)
    assert one.difference(other) == ""
    assert Snapshot.from_json(one.to_json()) == one


def test_the_name_of_a_study_is_a_file_in_studies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="has no study files"):
        find_file("mnist")
    (tmp_path / "studies").mkdir()
    for name in ("mnist", "paraboloid"):
        (tmp_path / "studies" / f"{name}.py").write_text(GOOD)
    assert find_file("mnist") == Path("studies/mnist.py")
    assert find_file("studies/mnist.py") == Path("studies/mnist.py")
    with pytest.raises(UsageError, match="did you mean 'mnist'"):
        find_file("mnits")
    with pytest.raises(UsageError, match="there are: mnist, paraboloid"):
        find_file("zzz")
    with pytest.raises(UsageError, match=r"There is no study file other/x\.py"):
        find_file("other/x.py")


def test_differences_are_told_in_words() -> None:
    space = {"x": distribution_to_json(IntDistribution(0, 4))}
    one = Snapshot(space, "loss", "minimize", 4, "a.py", "h")
    same = Snapshot(one.space, "loss", "minimize", 4, "b.py", "other")
    assert one.difference(same) == ""
    wider = Snapshot(None, "loss", "minimize", 4, "a.py", "h")
    assert wider.difference(one).startswith("x is absent and was IntDistribution(high=4")


def test_a_file_that_changes_within_a_second_is_what_it_says(
    write_study: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    for number in (1, 2):
        path = write_study(f"max_step = {number}\ndef objective(trial):\n    return 0.0\n")
        os.utime(path, (1e9, 1e9))
        assert load(path).snapshot.max_step == number
