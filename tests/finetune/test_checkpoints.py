"""Checkpoints: an interrupted trial goes on, and nothing tells it from an uninterrupted one."""

import contextlib
import dataclasses
import errno
import io
import json
import logging
import math
import re
import time
from types import SimpleNamespace

import keras
import numpy as np
import optuna
import pytest

from tuner import cache as cache_module
from tuner import interrupt, s3, wording
from tuner.artifacts import MISTAKES_FILE, MODEL_FILE, Artifacts
from tuner.finetune import checkpoints, training
from tuner.finetune import task as task_module
from tuner.finetune.checkpoints import Progress
from tuner.finetune.clock import Clock
from tuner.finetune.weights import weights_hash
from tuner.outcomes import Diverged
from tuner.stores import FileCheckpoint


class Killed(BaseException):
    """Stands for a kill: what was written before stays, nothing is written after."""


class Attempt:
    """The trial that an objective is given, with what the database holds of earlier attempts.

    Args:
        leave: ``(place, step)`` -> the exception that leaves the trial there.
        prune_at: the step to prune after.
    """

    number = 0

    def __init__(self, path, stored, *, seed=11, leave=None, prune_at=None):
        self.checkpoint = path
        self.stored_steps = frozenset(stored)
        self.user_attrs = {"seed": seed}
        self.values = stored
        self.reported = {}
        self._leave = leave or {}
        self._prune_at = prune_at

    def report(self, value, step):
        self._leave_at("report", step)
        assert self.values.setdefault(step, value) == value  # as it was reported before
        self.reported[step] = value

    def should_prune(self):
        step = max(self.reported)
        self._leave_at("should_prune", step)
        return step == self._prune_at

    def set_user_attr(self, key, value):
        self.user_attrs[key] = value

    def _leave_at(self, place, step):
        if (place, step) in self._leave:
            raise self._leave[place, step]


@dataclasses.dataclass
class Watch:
    """How many batches were trained, and where to leave between two pieces."""

    trained: int = 0
    leave_at: int | None = None
    by: BaseException | None = None


@pytest.fixture(scope="module")
def make_small_task(make_task, digits):
    """Makes the task on fewer digits: as many batches, but of 32."""

    def make(**changes):
        return make_task(**({"images": lambda: digits.first(640, 500), "batch_size": 32} | changes))

    return make


@pytest.fixture(scope="module")
def task(make_small_task):
    return make_small_task()


@pytest.fixture
def watch(monkeypatch):
    """Pieces of two batches: a step of 5 batches is left between them."""
    watch, train_to = Watch(), training.Run.train_to
    running = []

    def watched(run, *arguments):
        before, running[:] = run.batch, [run]
        try:
            return train_to(run, *arguments)
        finally:
            watch.trained += run.batch - before
            running.clear()

    def check():
        if running and running[0].batch == watch.leave_at:
            raise watch.by

    monkeypatch.setattr(training, "PIECE_IMAGES", 64)
    monkeypatch.setattr(training.Run, "train_to", watched)
    monkeypatch.setattr(interrupt, "check", check)
    return watch


@pytest.fixture(autouse=True)
def _write_each_step(monkeypatch):
    monkeypatch.setattr(checkpoints, "CHECKPOINT_SECONDS", 0.0)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "trials" / "11.npz"


OPTIMIZERS = {
    "momentum": lambda rate: keras.optimizers.SGD(rate, momentum=0.9),
    "sgd": keras.optimizers.SGD,
    "adam": keras.optimizers.Adam,
    "adamw": keras.optimizers.AdamW,
    "rmsprop": keras.optimizers.RMSprop,
}


def run(
    task, attempt, *, optimizer="adam", rate=3e-3, init="pretrained", frozen=3, schedule=None,
    **technique,
):  # fmt: skip
    make = OPTIMIZERS.get(optimizer, optimizer)
    return task.run(
        attempt,
        optimizer=make(rate),
        init=init,
        frozen_stages=frozen,
        schedule=schedule or (lambda done: 1.0 - 0.9 * done),
        **technique,
    )


def weights(task):
    return [weight.numpy() for weight in task._trainer.model.weights]


def uninterrupted(task, *, seed=11, **configuration):
    """Its values and its last weights."""
    attempt = Attempt(None, {}, seed=seed)
    run(task, attempt, **configuration)
    return attempt.values, weights(task)


@pytest.fixture(scope="module")
def uninterrupted_adam(task):
    """By the number of frozen stages: values and last weights."""
    return {frozen: uninterrupted(task, frozen=frozen) for frozen in (0, 3)}


def header_of(path):
    with np.load(path) as arrays:
        return json.loads(str(arrays["header"]))


def left(task, path, leave, **configuration):
    """Leave a trial at one place; return what the database then holds."""
    attempt = Attempt(path, {}, leave=leave)
    (by,) = leave.values()
    with pytest.raises(type(by)):
        run(task, attempt, **configuration)
    return attempt.values


def assert_goes_on(task, path, stored, expected, outputs=None, **configuration):
    """Run the next attempt to its end; it ends as the uninterrupted trial."""
    values, last = expected
    attempt = Attempt(path, stored)
    attempt.outputs = outputs
    assert run(task, attempt, **configuration) == values[4]
    assert attempt.values == values
    assert attempt.user_attrs["weights_hash"] == weights_hash(last)
    for ours, theirs in zip(weights(task), last, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    return attempt


# Stages thaw before batches 7 and 14, where it is left, too.
THAWING = {"optimizer": "adamw", "frozen": 2, "thaw_epochs": 0.35, "stage_rate": 0.5,
           "label_smoothing": 0.1}  # fmt: skip
AUGMENTED = {"optimizer": "momentum", "frozen": 1, "augmentation": "elastic", "train_images": 640}


@pytest.mark.parametrize(
    "configuration",
    [
        {"optimizer": "momentum", "frozen": 3},
        {"optimizer": "adam", "frozen": 3},
        THAWING,
        AUGMENTED,
        *(
            pytest.param({"optimizer": name, "frozen": frozen}, marks=pytest.mark.soak)
            for name in ("adamw", "rmsprop")
            for frozen in (0, 3)
        ),
        *(
            pytest.param({"optimizer": name, "frozen": 0}, marks=pytest.mark.soak)
            for name in ("momentum", "adam")
        ),
    ],
    ids=lambda configuration: "-".join(map(str, list(configuration.values())[:3])),
)
def test_a_trial_interrupted_in_every_way_is_the_uninterrupted_one(
    configuration, task, path, tmp_path, watch
):
    expected = uninterrupted(task, **configuration)
    assert len(set(expected[0].values())) == 4
    watch.trained, stored = 0, {}
    handed_back, killed = interrupt.HandBack(), Killed()
    for leave, leave_at, by, trained in (
        ({("report", 2): killed}, None, None, 10),  # it lost batches 5 to 9
        ({}, 7, handed_back, 2),
        ({}, 9, killed, 2),  # it lost 7 and 8
        ({("report", 3): handed_back}, None, None, 8),
        ({("report", 4): handed_back}, None, None, 5),
    ):
        watch.leave_at, watch.by, watch.trained = leave_at, by, 0
        with pytest.raises((Killed, interrupt.HandBack)):
            run(task, Attempt(path, stored, leave=leave), **configuration)
        assert watch.trained == trained
    watch.trained = 0
    last = assert_goes_on(task, path, stored, expected, outputs=tmp_path, **configuration)
    assert watch.trained == 0
    saved = keras.saving.load_model(tmp_path / MODEL_FILE)
    assert weights_hash(saved.get_weights()) == weights_hash(expected[1])
    mistakes = json.loads((tmp_path / MISTAKES_FILE).read_text())  # of a model taken from the file
    assert 1 - (mistakes["images"] - mistakes["wrong"]) / mistakes["images"] == expected[0][4]
    assert list(last.reported) == [4]
    assert last.user_attrs["cached_features"] == (
        configuration["frozen"] >= 2 and "augmentation" not in configuration
    )


@pytest.mark.parametrize(
    ("leave", "stored", "trained"),
    [
        ({("should_prune", 1): Killed()}, [1], 20),  # no step was judged: it starts over
        ({("report", 3): Killed()}, [1, 2], 10),
        ({("should_prune", 3): Killed()}, [1, 2, 3], 10),
        ({("report", 1): interrupt.HandBack()}, [], 15),
        ({("should_prune", 2): interrupt.HandBack()}, [1, 2], 10),
    ],
)
def test_wherever_a_trial_is_left_it_goes_on(
    leave, stored, trained, task, path, watch, caplog, uninterrupted_adam
):
    expected = uninterrupted_adam[0]
    held = left(task, path, leave, frozen=0)
    assert list(held) == stored
    watch.trained = 0
    with caplog.at_level(logging.INFO, "tuner.finetune.checkpoints"):
        assert_goes_on(task, path, held, expected, frozen=0)
    assert watch.trained == trained
    step = (20 - trained) // 5
    place = wording.progress_of(step, 4, 4)
    lines = [f"goes on from its checkpoint at {place}"] if step else []
    assert caplog.messages == lines


def test_it_goes_on_where_no_value_is_stored(task, path, watch, uninterrupted_adam):
    """With several objectives a database holds no step's value."""
    attempts = [Attempt(path, {}, leave={("report", 3): interrupt.HandBack()}), Attempt(path, {})]
    for attempt in attempts:
        attempt.stores_steps = False
    with pytest.raises(interrupt.HandBack):
        run(task, attempts[0])
    watch.trained = 0
    assert run(task, attempts[1]) == uninterrupted_adam[3][0][4]
    assert watch.trained == 5
    assert attempts[1].user_attrs["weights_hash"] == weights_hash(uninterrupted_adam[3][1])


def test_it_goes_on_where_epochs_are_no_number_of_steps(task, path, watch):
    more = {"epochs": 8, "train_images": 64}  # 16 batches in 4 steps
    expected = uninterrupted(task, **more)
    held = left(task, path, {("report", 2): Killed()}, **more)
    watch.trained = 0
    assert_goes_on(task, path, held, expected, **more)
    assert watch.trained == 12


@pytest.mark.soak  # slow where the processor only emulates it
def test_it_goes_on_in_bfloat16(make_small_task, path, watch, monkeypatch):
    monkeypatch.setenv("TUNER_PRECISION", "bfloat16")
    task = make_small_task()
    expected = uninterrupted(task)
    assert task._trainer.model.layers[1].compute_dtype == "bfloat16"
    held = left(task, path, {("report", 3): interrupt.HandBack()})
    watch.trained = 0
    assert_goes_on(task, path, held, expected)
    assert watch.trained == 5


def test_variables_of_any_type_survive(path):
    def started(*values):
        variables = [keras.Variable(value, dtype=kind) for value, kind in values]
        run = SimpleNamespace(
            trainer=SimpleNamespace(model=SimpleNamespace(weights=variables[:2])),
            loop=SimpleNamespace(optimizer=SimpleNamespace(variables=variables[2:])),
            batch=3,
            settled=True,
            clock=Clock(),
        )
        run.be_after = lambda batch: vars(run).update(batch=batch)
        return run

    values = ([1.5, -0.0078], "bfloat16"), (2.5, "float16"), (7, "int64"), ([[0.1]], "float32")
    Progress(started(*values), {}, FileCheckpoint(path)).write()
    fresh = started(*[(np.zeros_like(value), kind) for value, kind in values])
    header, read = checkpoints._read(path, {})
    Progress(fresh, {}, None).put_back(header, read)
    for ours, theirs in zip(
        checkpoints._variables(fresh), checkpoints._variables(started(*values)), strict=True
    ):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())


def _after(function, leave):
    """The function, left as it returns: a second Ctrl-C is seen then."""

    def wrapped(*arguments):
        function(*arguments)
        raise leave

    return wrapped


@pytest.mark.parametrize("within", ["training", "validation"])
def test_a_second_ctrl_c_within_a_batch_keeps_the_earlier_checkpoint(
    within, task, path, watch, monkeypatch, uninterrupted_adam
):
    expected = uninterrupted_adam[0]
    held, leave = left(task, path, {("report", 2): Killed()}, frozen=0), interrupt.HandBack()
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        if within == "training":
            enter = training.Trainer.enter

            def entered(trainer, *arguments):
                reads, loop = enter(trainer, *arguments)
                return reads, dataclasses.replace(loop, train=_after(loop.train, leave))

            patch.setattr(training.Trainer, "enter", entered)
        else:
            error_of = _after(training.Run.validation_error, leave)
            patch.setattr(training.Run, "validation_error", error_of)
        with pytest.raises(interrupt.HandBack):
            run(task, Attempt(path, held), frozen=0)
    assert path.read_bytes() == before
    watch.trained = 0
    assert_goes_on(task, path, held, expected, frozen=0)
    assert watch.trained == 15


def _flip(*places):
    def damage(content):
        content = bytearray(content)
        for place in places:
            content[int(place * len(content))] ^= 0x55
        return bytes(content)

    return damage


def _array_file(content):
    file = io.BytesIO()
    np.save(file, np.arange(3))
    return file.getvalue()


def _rewrite(change):
    """A sound file with other content."""

    def damage(content):
        with np.load(io.BytesIO(content)) as arrays:
            changed = change(dict(arrays))
        file = io.BytesIO()
        np.savez(file, **changed)
        return file.getvalue()

    return damage


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:10],
        lambda content: content[: len(content) // 2],
        lambda content: content[:-1],
        _flip(0.2),
        _flip(0.5, 0.500001),
        _flip(0.001),
        _flip(0.9999),
        lambda content: b"step 2 of 4\n" * 1000,
        _array_file,
        _rewrite(lambda arrays: {"weights": np.zeros(3)}),
        _rewrite(lambda arrays: {"header": np.array("[1]")}),
        _rewrite(lambda arrays: {k: v for k, v in arrays.items() if k != "arr_7"}),
        _rewrite(lambda arrays: arrays | {"arr_7": arrays["arr_7"][..., :-1]}),
        _rewrite(lambda arrays: arrays | {"arr_7": arrays["arr_7"].astype("float64")}),
    ],
    ids=[
        "empty", "10 bytes", "half", "a byte less", "a byte flipped", "two bytes flipped",
        "start flipped", "end flipped", "text", "one array", "other names", "header a list",
        "an array missing", "another shape", "another type",
    ],
)  # fmt: skip
def test_a_damaged_file_is_a_warning_and_the_trial_starts_over(
    damage, task, path, watch, caplog, monkeypatch, uninterrupted_adam
):
    expected = uninterrupted_adam[3]
    held = left(task, path, {("report", 3): Killed()})
    path.write_bytes(damage(path.read_bytes()))
    monkeypatch.setattr(checkpoints, "CHECKPOINT_SECONDS", math.inf)
    watch.trained = 0
    assert_goes_on(task, path, held, expected)
    assert watch.trained == 20
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert re.search(r"11\.npz is of no use \(.+\): the trial starts over", caplog.text)
    assert not path.exists()


OTHER = {
    "seed": ({}, {"seed": 12}, "seed"),
    "optimizer": ({}, {"optimizer": "rmsprop"}, "optimizer"),
    "a setting": (
        {},
        {"optimizer": lambda rate: keras.optimizers.Adam(rate, beta_1=0.8)},
        "optimizer",
    ),
    "schedule": ({}, {"schedule": lambda done: 0.5}, "learning rates"),
    "init": ({}, {"init": "he_normal"}, "init"),
    "frozen": ({}, {"frozen": 2}, "frozen stages"),
    "batch size": ({"batch_size": 64}, {}, "batch size"),
    "report_at": ({"report_at": (1, 4)}, {}, "report steps"),
}


@pytest.mark.parametrize(("task_changes", "changes", "named"), OTHER.values(), ids=OTHER)
def test_a_checkpoint_of_another_trial_is_a_warning_and_the_trial_starts_over(
    task_changes, changes, named, task, make_small_task, path, watch, caplog
):
    left(task, path, {("report", 3): Killed()})
    changed = make_small_task(**task_changes) if task_changes else task
    values, last = uninterrupted(changed, **changes)
    watch.trained = 0
    seed = {"seed": changes.pop("seed")} if "seed" in changes else {}
    attempt = Attempt(path, {}, **seed)
    attempt.stored_steps = frozenset({1, 2})  # the database is not what is wrong
    run(changed, attempt, **changes)
    assert attempt.values == values
    assert watch.trained == (10 if task_changes.get("batch_size") else 20)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    (differs,) = re.findall(r"\(it differs in (.+)\): the trial starts over", caplog.text)
    assert named in differs.split(", ")
    assert set(differs.split(", ")) <= {named, "learning rates"}
    for ours, theirs in zip(weights(changed), last, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("owner", "name", "named"),
    [
        (checkpoints, "FORMAT", "format"),
        (keras, "__version__", "Keras version"),
        (checkpoints.tf, "__version__", "TensorFlow version"),
    ],
)
def test_other_versions_start_over(owner, name, named, task, path, watch, caplog, monkeypatch):
    held = left(task, path, {("report", 3): Killed()})
    monkeypatch.setattr(owner, name, "another")
    watch.trained = 0
    run(task, Attempt(path, held))
    assert f"differs in {named})" in caplog.text
    assert watch.trained == 20


def test_a_database_that_lacks_the_values_starts_the_trial_over(
    task, path, watch, caplog, uninterrupted_adam
):
    expected = uninterrupted_adam[3]
    left(task, path, {("report", 3): Killed()})
    watch.trained = 0
    assert_goes_on(task, path, {1: expected[0][1]}, expected)
    assert watch.trained == 20
    assert "the database lacks the value of step 2" in caplog.text


def test_names_excluded_from_decay_may_come_in_any_order():
    def settings(pattern):
        optimizer = keras.optimizers.AdamW(0.01)
        optimizer.exclude_from_weight_decay(var_names=["bias"])
        optimizer._exclude_from_weight_decay_pattern = re.compile(pattern)
        return training.settings_of(optimizer)

    assert settings("bias|gamma") == settings("gamma|bias") != settings("gamma")


def test_a_folder_that_cannot_be_made_is_one_warning(task, tmp_path, caplog, uninterrupted_adam):
    expected = uninterrupted_adam[3]
    (tmp_path / "trials").write_text("a file")
    assert_goes_on(task, tmp_path / "trials" / "11.npz", {}, expected)
    assert len(caplog.messages) == 1
    assert "cannot be written" in caplog.text
    assert "if this trial is interrupted" in caplog.text


def test_a_full_disk_is_one_warning_and_the_earlier_checkpoint_stays(
    task, path, watch, caplog, monkeypatch, uninterrupted_adam
):
    expected = uninterrupted_adam[3]
    held = left(task, path, {("report", 2): Killed()})

    def fill_disk(file, *arrays, **named):
        file.write(b"PK" * 1000)
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.np, "savez", fill_disk)
        with pytest.raises(interrupt.HandBack):
            run(task, Attempt(path, held, leave={("report", 4): interrupt.HandBack()}))
    assert [m for m in caplog.messages if "(No space left on device)" in m] == caplog.messages
    assert len(caplog.messages) == 1
    assert list(path.parent.iterdir()) == [path]
    watch.trained = 0
    assert_goes_on(task, path, held, expected)
    assert watch.trained == 15


def test_it_goes_on_from_a_bucket_and_starts_over_while_that_is_away(
    task, bucket, tmp_path, watch, caplog, monkeypatch, uninterrupted_adam
):
    expected = uninterrupted_adam[3]
    scratch = iter(range(9))

    def on_a_host():
        folder = tmp_path / f"host{next(scratch)}"
        folder.mkdir()
        return Artifacts(bucket.address, "mnist", "abc").checkpoint(11, folder)

    held = left(task, on_a_host(), {("report", 3): Killed()})
    there = bucket.keys
    assert there == ["a/prefix/checkpoints/mnist-abc/11.npz"]
    with monkeypatch.context() as away:
        away.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
        away.setattr(s3, "ATTEMPTS", 1)
        watch.trained = 0
        assert_goes_on(task, on_a_host(), dict(held), expected)
    assert watch.trained == 20
    said = [it.getMessage() for it in caplog.records if it.levelname == "WARNING"]
    assert ["cannot be read (Could not connect" in it for it in said] == [True, False]
    assert ["cannot be written (Could not connect" in it for it in said] == [False, True]
    assert bucket.keys == there
    watch.trained = 0
    assert_goes_on(task, on_a_host(), held, expected)
    assert watch.trained == 10


def test_writing_leaves_one_file(task, path):
    run(task, Attempt(path, {}))
    assert list(path.parent.iterdir()) == [path]
    assert header_of(path)["judged"] == 3  # none is written after the last step


def test_a_checkpoint_is_written_when_it_is_time(task, path, monkeypatch):
    now = [time.monotonic()]
    monkeypatch.setattr(checkpoints, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(checkpoints, "CHECKPOINT_SECONDS", 300.0)

    class Slow(Attempt):
        def report(self, value, step):
            super().report(value, step)
            now[0] += 200

    run(task, Slow(path, {}))
    header = header_of(path)
    assert (header["judged"], header["batch"]) == (2, 10)  # after 400 s; 600 s is too soon again


def test_a_short_trial_writes_none(task, path, monkeypatch):
    monkeypatch.setattr(checkpoints, "CHECKPOINT_SECONDS", 1e6)
    left(task, path, {("report", 4): Killed()})
    assert not path.exists()
    left(task, path, {("report", 4): interrupt.HandBack()})
    assert header_of(path)["reached"] == 4


def test_nothing_is_written_before_the_first_batch(task, path, watch):
    task.prepare()  # it trains, too
    watch.leave_at, watch.by = 0, interrupt.HandBack()
    with pytest.raises(interrupt.HandBack):
        run(task, Attempt(path, {}))
    assert not path.exists()


def test_a_pruned_trial_writes_none_after_its_last_step(task, path):
    with pytest.raises(optuna.TrialPruned):
        run(task, Attempt(path, {}, prune_at=1))
    assert not path.exists()
    with pytest.raises(optuna.TrialPruned):
        run(task, Attempt(path, {}, prune_at=2))
    assert header_of(path)["judged"] == 1


@pytest.mark.parametrize("absent", [True, False])
def test_nothing_is_written_unless_asked_for(absent, task, monkeypatch):
    written = []
    monkeypatch.setattr(cache_module, "write", lambda *arguments: written.append(arguments))
    attempt = Attempt(None, {}, leave={("report", 3): interrupt.HandBack()})
    if absent:
        del attempt.checkpoint, attempt.stored_steps
    with pytest.raises(interrupt.HandBack):
        run(task, attempt)
    assert list(attempt.reported) == [1, 2]
    assert written == []


def test_seconds_include_the_time_before_the_interruption(task, path, monkeypatch):
    class Hours(Clock):
        def __init__(self):
            super().__init__()
            self.phases |= {"train": 3600.0, "tracing": 1800.0}

    with monkeypatch.context() as patch:
        patch.setattr(task_module, "Clock", Hours)
        held = left(task, path, {("report", 3): interrupt.HandBack()})
    attempt = Attempt(path, held)
    run(task, attempt)
    seconds, reports = attempt.user_attrs["seconds"], attempt.user_attrs["report_seconds"]
    assert 3600 < seconds["train"] < 3700
    assert 1800 <= seconds["tracing"] < 1900
    assert list(reports) == [1, 2, 3, 4]
    assert list(reports.values()) == sorted(reports.values())
    assert reports[1] > 5400
    assert reports[4] == pytest.approx(sum(seconds.values()), abs=0.05)


@pytest.mark.parametrize(
    "leave", [("should_prune", 1), ("report", 1), ("report", 2), ("should_prune", 2)]
)
def test_guessing_diverges_at_the_second_report_of_the_trial_not_of_the_attempt(leave, task, path):
    guessing = {"optimizer": "sgd", "rate": 1e-9, "init": "random_normal", "frozen": 0}
    held = {}
    with contextlib.suppress(interrupt.HandBack, Diverged):
        run(task, Attempt(path, held, leave={leave: interrupt.HandBack()}), **guessing)
    again = Attempt(path, held)
    with pytest.raises(Diverged, match="step 2: no better than guessing"):
        run(task, again, **guessing)
    assert list(again.values) == [1, 2]
    assert 0.7 < again.values[1] < 1.0 == again.values[2]


def test_a_loss_that_is_not_finite_stays_so(task, path, watch):
    blown_up = {"schedule": lambda done: math.nan}
    held = left(task, path, {("report", 1): interrupt.HandBack()}, **blown_up)
    assert held == {}
    watch.trained = 0
    with pytest.raises(Diverged, match="step 1: the loss is not finite"):
        run(task, Attempt(path, held), **blown_up)
    assert held == {1: 1.0}
    assert watch.trained == 0
