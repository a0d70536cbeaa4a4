"""Trials on real digits: reports, outcomes, reuse, and curves equal bit for bit."""

import contextlib
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from tuner import interrupt
from tuner.artifacts import MODEL_FILE
from tuner.errors import UsageError
from tuner.finetune import packaged
from tuner.finetune.clock import PHASES
from tuner.finetune.follow import guessing_error
from tuner.finetune.training import STATISTICS_IMAGES, Plan, Trainer, compiled_loops
from tuner.finetune.weights import weights_hash
from tuner.outcomes import Diverged

from .curves import CONFIGURATIONS, curve

FACTS = {
    "seconds", "report_seconds", "device", "threads", "precision", "base_hash", "weights_hash",
    "cached_features",
}  # fmt: skip


def _run(task, trial, *, optimizer=None, init="pretrained", frozen=0, schedule=lambda done: 1.0):
    return task.run(
        trial,
        optimizer=optimizer or keras.optimizers.Adam(3e-3),
        init=init,
        frozen_stages=frozen,
        schedule=schedule,
    )


@pytest.fixture
def model(task):
    return task._trainer.model


def test_the_study_file_asks_what_it_says(study_file, study):
    assert study_file.metric == "val_error"
    assert study_file.direction == "minimize"
    assert study_file.max_step == study_file.task.report_at[-1] == 20
    trial = study.ask(fixed_distributions=study_file.space)
    assert set(trial.params) == {"learning_rate", "optimizer", "init", "frozen_layers"}


@pytest.mark.soak  # tests/e2e/test_mnist.py runs it as a command
def test_the_objective_runs_a_sampled_trial(task, study_file, study, monkeypatch):
    monkeypatch.setattr(study_file, "task", task)
    study.enqueue_trial(
        {"learning_rate": 3e-3, "optimizer": "adam", "init": "he_normal", "frozen_layers": 1}
    )
    trial = study.ask(fixed_distributions=study_file.space)
    error = study_file.objective(trial)
    stored = study.trials[0]
    assert list(stored.intermediate_values) == [1, 2, 3, 4]
    assert error == stored.intermediate_values[4] < 0.3
    assert stored.intermediate_values[1] > error  # it learns
    assert set(stored.user_attrs) == FACTS
    assert stored.user_attrs["device"] in {"CPU", "GPU"}
    assert stored.user_attrs["precision"] == "float32"
    assert set(stored.user_attrs["seconds"]) == set(PHASES)
    assert stored.user_attrs["seconds"]["train"] > 0
    after = list(stored.user_attrs["report_seconds"].values())
    assert after == sorted(after)
    assert after[-1] == pytest.approx(sum(stored.user_attrs["seconds"].values()), abs=0.05)
    assert len(stored.user_attrs["base_hash"]) == 64
    last = [weight.numpy() for weight in task._trainer.model.weights]
    assert stored.user_attrs["weights_hash"] == weights_hash(last)


def test_plain_optuna_can_optimize(task, study):
    def objective(trial):
        rate = trial.suggest_float("learning_rate", 1e-2, 2e-2)
        return _run(task, trial, optimizer=keras.optimizers.Adam(rate), frozen=4)

    study.optimize(objective, n_trials=2)
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 2


def test_a_search_never_opens_the_test_file(make_task, study, monkeypatch, tmp_path):
    for name in ("train.npz", "README.md"):
        (tmp_path / name).write_bytes((packaged.MNIST_FOLDER / name).read_bytes())
    monkeypatch.setattr(packaged, "MNIST_FOLDER", tmp_path)
    task = make_task(images=lambda: packaged.mnist().first(640, 500))
    assert 0 < _run(task, study.ask(), frozen=3) < 1
    with pytest.raises(UsageError, match=r"test\.npz"):
        packaged.mnist_test()


@pytest.mark.parametrize(
    "frozen", [0, 2, *(pytest.param(it, marks=pytest.mark.soak) for it in (1, 3, 4))]
)
def test_frozen_stages_keep_weights_and_statistics_and_the_others_change(
    frozen, task, study, model, study_file
):
    with contextlib.suppress(Diverged):  # so few batches may not beat guessing, but they train
        _run(task, study.ask(), init="pretrained", frozen=frozen)
    for weight, base in zip(model.weights, task._base.weights, strict=True):
        stage = weight.path.split("/")[1].split("_")[0]
        kept = np.array_equal(weight.numpy(), base)
        assert kept == (stage in study_file.STAGES[:frozen]), weight.path


def test_a_trial_that_is_pruned_ends_there(task):
    class Second(optuna.pruners.BasePruner):
        def prune(self, study, trial):
            return trial.last_step >= 2

    study = optuna.create_study(pruner=Second())
    study.optimize(lambda trial: _run(task, trial), n_trials=1)
    assert study.trials[0].state == TrialState.PRUNED
    assert list(study.trials[0].intermediate_values) == [1, 2]
    assert set(study.trials[0].user_attrs) == FACTS


def test_a_trial_trained_to_its_end_is_not_pruned_then(task):
    class Last(optuna.pruners.BasePruner):
        def prune(self, study, trial):
            return trial.last_step >= 4

    study = optuna.create_study(pruner=Last())
    study.optimize(lambda trial: _run(task, trial), n_trials=1)
    assert study.trials[0].state == TrialState.COMPLETE


def test_a_loss_that_is_not_finite_diverges_at_the_next_report(task, study):
    def blow_up(done):
        return math.nan if done > 0.3 else 1.0  # within the second step

    trial = study.ask()
    with pytest.raises(Diverged, match="step 2: the loss is not finite"):
        _run(task, trial, schedule=blow_up)
    assert study.trials[0].intermediate_values[2] == 1.0
    assert list(study.trials[0].intermediate_values) == [1, 2]
    assert set(study.trials[0].user_attrs) == FACTS


def test_guessing_diverges_from_the_second_report_on(task, study):
    trial = study.ask()
    with pytest.raises(Diverged, match="step 2: no better than guessing"):
        _run(task, trial, optimizer=keras.optimizers.SGD(1e-9), init="random_normal")
    first, second = study.trials[0].intermediate_values.values()
    assert 0.7 < first < 1.0
    assert second == 1.0


def test_the_error_of_guessing():
    labels = np.repeat([0, 1], [36, 64])
    assert guessing_error(labels, 2) == pytest.approx(1 - 0.5 - 3 * 0.5 / 10)
    labels = np.repeat([0, 1], [10, 90])  # half of the largest class's error is worth a lot
    assert guessing_error(labels, 2) == pytest.approx(0.1)


def test_a_request_to_stop_hands_back_without_a_trace(task, study):
    class StopAfterFirst(optuna.pruners.BasePruner):
        def prune(self, study, trial):
            interrupt.request()
            return False

    study.pruner = StopAfterFirst()
    trial = study.ask()
    with pytest.raises(interrupt.HandBack):
        _run(task, trial)
    assert list(study.trials[0].intermediate_values) == [1]
    assert study.trials[0].user_attrs == {}


def test_the_schedule_is_asked_once_a_batch_from_0_to_1(task, study):
    asked = []
    _run(task, study.ask(), frozen=4, schedule=lambda done: asked.append(done) or 1.0)
    assert asked == pytest.approx((np.arange(20) + 0.5) / 20)  # 2560 images, batches of 128


def test_the_rate_of_a_batch_is_the_peak_times_the_schedule(task):
    # One step of plain SGD is linear in the rate: half the rate moves each weight half as far.
    def moved(rate, fraction):
        plan = Plan(np.arange(128), 1, 128, keras.optimizers.SGD(rate), lambda _: fraction, (), 3)
        run = task._trainer.start(task._base.weights, plan)
        run.train_to(1)
        kernels = [w for w in task._trainer.model.weights if w.path.endswith("kernel")]
        bases = [b for b in task._base.weights if b.ndim > 1]
        return [w.numpy() - b for w, b in zip(kernels, bases, strict=True)]

    for full, half in zip(moved(0.1, 1.0), moved(0.1, 0.5), strict=True):
        assert np.abs(full).max() > 1e-4
        np.testing.assert_allclose(full, 2 * half, atol=2e-6)


@pytest.mark.parametrize("frozen", [0, 1])
def test_validation_takes_the_statistics_of_the_present_weights(frozen, task, study_file, digits):
    # By hand: the mean of the first stage's convolution over 640 training images.
    trainer, stages = task._trainer, study_file.STAGES[:frozen]
    rows = np.arange(2560)
    run = trainer.start(
        task._base.weights,
        Plan(rows, 1, 128, keras.optimizers.Adam(0.01), lambda _: 1.0, stages, 3),
    )
    run.train_to(5)
    lagging = trainer.model.get_layer("conv1_norm").moving_mean.numpy()
    run.validation_error()
    taken = trainer.model.get_layer("conv1_norm").moving_mean.numpy()
    chosen = digits.train_images[np.linspace(0, 2559, STATISTICS_IMAGES).astype(int)]
    kernel = trainer.model.get_layer("conv1").kernel.numpy()
    by_hand = keras.ops.conv(chosen / np.float32(255), kernel, padding="same")
    expected = lagging if frozen else np.mean(by_hand, axis=(0, 1, 2))
    np.testing.assert_allclose(taken, expected, rtol=1e-4, atol=1e-6)
    assert frozen or np.abs(taken - lagging).max() > 1e-3


def test_wrong_arguments_are_sentences(task, study, make_task):
    with pytest.raises(UsageError, match="frozen_stages=5 is not from 0 to 4"):
        _run(task, study.ask(), frozen=5)
    with pytest.raises(UsageError, match="Did you mean 'he_normal'"):
        _run(task, study.ask(), init="he_normall", frozen=4)
    rate = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)
    with pytest.raises(UsageError, match="a schedule as its learning rate"):
        _run(task, study.ask(), optimizer=keras.optimizers.SGD(rate))
    with pytest.raises(UsageError, match="batch_size=9999 is more than the 2560"):
        make_task(batch_size=9999).prepare()
    with pytest.raises(UsageError, match="end with 8"):
        make_task(epochs=2)
    with pytest.raises(UsageError, match="rising steps"):
        make_task(report_at=(2, 1, 4))


@pytest.mark.soak
def test_curves_are_equal_bit_for_bit_when_reused(task, study_file, tmp_path):
    first = [curve(task, study_file, configuration) for configuration in CONFIGURATIONS]
    # These leave other state behind, one of them by being saved.
    curve(task, study_file, ("adam", 0.01, "he_normal", 0), seed=5, outputs=tmp_path)
    curve(task, study_file, ("adagrad", 0.1, "he_normal", 1), seed=6)
    again = [curve(task, study_file, configuration) for configuration in CONFIGURATIONS]
    assert again == first
    assert (tmp_path / MODEL_FILE).exists()
    assert all(1.0 not in values for values in first)  # none diverged


@pytest.mark.soak
def test_curves_are_equal_bit_for_bit_in_fresh_processes(task, study_file, cache):
    processes = [_start_curves(threads) for threads in (1, 2, 2)]
    here = [curve(task, study_file, configuration) for configuration in CONFIGURATIONS]
    one_thread, two_threads, two_again = [_curves_of(process) for process in processes]
    assert one_thread == here
    assert two_threads == two_again


def _start_curves(threads):
    root = Path(__file__).parents[2]
    environment = os.environ | {"TUNER_THREADS": str(threads), "PYTHONPATH": str(root)}
    command = [sys.executable, str(Path(__file__).with_name("curves.py"))]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def _curves_of(process):
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    return json.loads(output)


@pytest.mark.parametrize("optimizer", ["adagrad", "adam", "rmsprop", "nesterov"])
def test_a_reused_trial_is_a_fresh_one(optimizer, task, make_task, study_file):
    # On the weights themselves: equal curves could hide a difference that flips no digit.
    for seed in (1, 2):
        curve(task, study_file, (optimizer, 0.01, "he_normal", 3), seed=seed)
    fresh = make_task()
    curve(fresh, study_file, (optimizer, 0.01, "he_normal", 3), seed=2)
    for ours, theirs in zip(task._trainer.model.weights, fresh._trainer.model.weights, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())


def test_trials_that_differ_in_rate_init_and_seed_share_a_compiled_loop(task, study_file):
    curve(task, study_file, ("adamw", 0.01, "he_normal", 3), seed=1)
    before = compiled_loops()
    curve(task, study_file, ("adamw", 0.02, "pretrained", 3), seed=2)
    assert compiled_loops() == before
    curve(task, study_file, ("adamw", 0.02, "pretrained", 2), seed=2)
    assert compiled_loops() == before + 1


def test_dropout_and_order_depend_on_the_seed(task, study_file):
    one = curve(task, study_file, ("adam", 1e-3, "pretrained", 3), seed=1)
    other = curve(task, study_file, ("adam", 1e-3, "pretrained", 3), seed=2)
    assert one != other


def test_a_regulariser_counts_as_in_keras(digits):
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Flatten(),
            keras.layers.Dense(10, kernel_regularizer=keras.regularizers.L2(0.1), name="logits"),
        ]
    )
    other = keras.models.clone_model(model)
    other.set_weights(model.get_weights())
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    other.compile(keras.optimizers.SGD(0.5), loss)
    few = digits.first(128, 100)
    expected = other.train_on_batch(few.train_images, few.train_labels)
    trainer = Trainer(lambda: model, few)
    rows = np.arange(128)
    plan = Plan(rows, 1, 128, keras.optimizers.SGD(0.5), lambda _: 1.0, (), 1)
    run = trainer.start(model.get_weights(), plan)
    total = run.loop.train(
        (run.reads.train_images, trainer.train_labels),
        *(np.array([rows], np.int32), run.rates, (np.zeros(2, np.int64), np.int64(0))),
        run._told(),
    )
    assert float(total) == pytest.approx(float(expected), rel=1e-5)
    for ours, keras_own in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(ours, keras_own, rtol=1e-4, atol=1e-6)


def test_optimizers_that_exclude_weights_from_decay_do_not_share_a_loop(task):
    counts = []
    for pattern in (None, ["kernel"]):
        optimizer = keras.optimizers.AdamW(0.01, weight_decay=0.1)
        if pattern:
            optimizer.exclude_from_weight_decay(var_names=pattern)
        plan = Plan(np.arange(2560), 1, 128, optimizer, lambda _: 1.0, (), 1)
        task._trainer.start(task._base.weights, plan)
        counts.append(compiled_loops())
    assert counts[1] == counts[0] + 1


def test_the_footprint_is_what_is_then_on_the_disk(make_task, tmp_path, monkeypatch, study):
    monkeypatch.setenv("TUNER_CACHE_DIR", str(tmp_path))
    task = make_task()
    before = {kept.what: kept for kept in task.footprint()}
    assert not list(tmp_path.iterdir())
    assert list(before) == [
        "the pretrained base",
        "features behind conv2",
        "features behind conv3",
        "features behind dense",
        "checkpoints",
    ]
    assert not any(kept.there for kept in before.values())
    task.run(
        study.ask(), optimizer=keras.optimizers.Adam(0.001), init="pretrained", frozen_stages=3,
        schedule=lambda _done: 1.0,
    )  # fmt: skip
    after = {kept.what: kept for kept in make_task().footprint()}
    assert [kept.what for kept in after.values() if kept.there] == [
        "the pretrained base",
        "features behind conv3",
    ]
    (base,) = tmp_path.glob("base-*.npz")
    (features,) = tmp_path.glob("features-*.npy")
    assert base.stat().st_size == pytest.approx(after["the pretrained base"].size, rel=0.01)
    assert features.stat().st_size == pytest.approx(after["features behind conv3"].size, rel=0.01)
