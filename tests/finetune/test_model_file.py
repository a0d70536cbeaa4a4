"""The model that a trial leaves: whole, and of use without `tuner`."""

import dataclasses
import json
import os
import subprocess
import sys
import zipfile

import keras
import numpy as np
import optuna
import pytest
from keras import layers

from tuner import interrupt
from tuner.artifacts import MISTAKES_FILE, MODEL_FILE
from tuner.errors import UsageError
from tuner.finetune import BatchNormalization, error_of, model_file, packaged, precision
from tuner.finetune.weights import weights_hash
from tuner.outcomes import Diverged

READER = """
import json, sys
sys.modules["tuner"] = None  # importing it is an error from here on
import keras, numpy as np
digits = np.load(sys.argv[1])
for path in sys.argv[2:]:
    model = keras.saving.load_model(path)
    found = model.predict(digits["images"], batch_size=100, verbose=0)
    print(json.dumps({
        "layers": sorted({type(layer).__module__.split(".")[0] for layer in model.layers}),
        "types": sorted({layer.dtype_policy.name for layer in model.layers}),
        "trainable": all(layer.trainable for layer in model.layers),
        "error": float(np.mean(found.argmax(axis=1) != digits["labels"])),
        "outputs": found.tolist(),
    }))
"""


@pytest.fixture(scope="module")
def few(digits):
    return digits.first(640, 500)


@pytest.fixture(scope="module")
def make_small_task(make_task, few):
    """Makes the task on fewer digits: 20 batches an epoch, of 32."""

    def make(**changes):
        return make_task(**({"images": lambda: few, "batch_size": 32} | changes))

    return make


@pytest.fixture(scope="module")
def task(make_small_task):
    return make_small_task()


def asked(study, outputs=None, seed=11):
    trial = study.ask()
    trial.set_user_attr("seed", seed)
    trial.outputs = outputs
    return trial


def configuration(frozen=3, schedule=lambda done: 1.0 - 0.9 * done):
    return {
        "optimizer": keras.optimizers.Adam(3e-3),
        "init": "pretrained",
        "frozen_stages": frozen,
        "schedule": schedule,
    }


def read_without_tuner(few, tmp_path, *paths):
    """What a process finds in model files that has no `tuner`."""
    digits = tmp_path / "digits.npz"
    np.savez(digits, images=few.validation_images, labels=few.validation_labels)
    environment = {name: it for name, it in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-I", "-c", READER, digits, *paths]
    ended = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return [json.loads(line) for line in ended.stdout.splitlines()]


def test_the_file_is_the_model_that_was_validated_last_and_needs_no_tuner(
    task, make_small_task, few, study, tmp_path, monkeypatch
):
    tasks = {"float32": task, "bfloat16": make_small_task()}
    errors, outputs = {}, {}
    for name, each in tasks.items():
        monkeypatch.setenv("TUNER_PRECISION", name)
        (tmp_path / name).mkdir()
        trial = asked(study, tmp_path / name)
        errors[name] = each.run(trial, **configuration())
        assert {path.name for path in (tmp_path / name).iterdir()} == {MODEL_FILE, MISTAKES_FILE}
        assert trial.user_attrs["precision"] == name
        assert 0 < trial.user_attrs["seconds"]["save"] < 60
        saved = keras.saving.load_model(tmp_path / name / MODEL_FILE)
        assert weights_hash(saved.get_weights()) == trial.user_attrs["weights_hash"]
        outputs[name] = np.asarray(each._trainer.model(few.validation_images))
    paths = {name: tmp_path / name / MODEL_FILE for name in tasks}
    for name, found in zip(paths, read_without_tuner(few, tmp_path, *paths.values()), strict=True):
        with zipfile.ZipFile(paths[name]) as archive:
            config = archive.read("config.json").decode()
        assert "tuner" not in config
        assert "bfloat16" not in config
        assert found["layers"] == ["keras"]
        assert found["types"] == ["float32"]
        assert found["trainable"]
        assert found["error"] == error_of(paths[name], few.validation_images, few.validation_labels)
        rounding = {"float32": 1e-3, "bfloat16": 0.2}[name]
        np.testing.assert_allclose(found["outputs"], outputs[name], atol=rounding)
        may_differ = {"float32": 0, "bfloat16": 5}[name]  # images
        assert found["error"] == pytest.approx(errors[name], abs=may_differ / 500 + 1e-9)
        assert 0 < found["error"] < 0.5


def test_nothing_is_saved_unless_it_is_asked_for_nor_of_a_pruned_trial(
    task, study, tmp_path, monkeypatch
):
    saved = []
    monkeypatch.setattr(model_file, "save", lambda *arguments: saved.append(arguments))
    task.run(study.ask(), **configuration())
    task.run(asked(study, None), **configuration())
    monkeypatch.setattr(study, "pruner", optuna.pruners.ThresholdPruner(upper=0.0))
    trial = asked(study, tmp_path)
    with pytest.raises(optuna.TrialPruned, match="step 1"):
        task.run(trial, **configuration())
    assert saved == []
    assert len(trial.user_attrs["weights_hash"]) == 64


class Silent(optuna.Trial):
    """A trial that must not be reported to."""

    def report(self, value, step):
        raise AssertionError(step)

    should_prune = report


@pytest.mark.parametrize("frozen", [pytest.param(0, marks=pytest.mark.soak), 3])
def test_the_final_training_is_that_of_a_task_whose_training_images_are_all(
    frozen, task, make_small_task, few, study, tmp_path
):
    task.run(before := asked(study), **configuration(frozen))
    batches = []
    trial = Silent(study, study.ask()._trial_id)
    trial.set_user_attr("seed", 11)
    trial.outputs = tmp_path
    told = configuration(frozen, schedule=lambda done: batches.append(done) or 1.0 - 0.9 * done)
    assert task.run_final(trial, **told) is None
    assert len(batches) == (640 + 500) // 32
    facts = trial.user_attrs
    assert facts["cached_features"] == (frozen == 3)
    assert facts["base_hash"] == before.user_attrs["base_hash"]
    assert facts["seconds"]["train"] > 0
    saved = keras.saving.load_model(tmp_path / MODEL_FILE)
    assert weights_hash(saved.get_weights()) == facts["weights_hash"]

    validation = {name: getattr(few, name) for name in ("validation_images", "validation_labels")}
    whole = dataclasses.replace(few.joined(), **validation, content_hash="all of them")
    other = make_small_task(images=lambda: whole)
    other._bases["{}"] = task._base  # of the training images only
    same = asked(study)
    other.run(same, **configuration(frozen))
    assert same.user_attrs["weights_hash"] == facts["weights_hash"]

    task.run(after := asked(study), **configuration(frozen))  # the search's own trainer is its own
    assert after.user_attrs["weights_hash"] == before.user_attrs["weights_hash"]
    assert after.user_attrs["weights_hash"] != facts["weights_hash"]


def test_a_final_training_heeds_a_stop_and_diverges(task, study, tmp_path):
    with pytest.raises(Diverged, match="epoch 1: the loss is not finite"):
        task.run_final(asked(study, tmp_path), **configuration(schedule=lambda done: float("nan")))
    interrupt.request()
    with pytest.raises(interrupt.HandBack):
        task.run_final(asked(study, tmp_path), **configuration())
    assert not list(tmp_path.iterdir())


@keras.saving.register_keras_serializable(package="somebody")
class Scale(layers.Layer):
    def build(self, shape):
        self.factor = self.add_weight(shape=shape[-1:], initializer="ones")

    def call(self, inputs):
        return inputs * self.factor


class Unsaveable(layers.ReLU):
    def get_config(self):
        raise NotImplementedError("nobody knows\nits configuration")


def functional(*own):
    """A model within a model, with two paths."""
    inner = keras.Sequential(
        [keras.Input((6, 6, 4)), BatchNormalization(), layers.ReLU(), layers.GlobalMaxPooling2D()]
    )
    image = keras.Input((8, 8, 1))
    found = layers.Conv2D(4, 3, name="conv")(image)
    both = layers.Concatenate()([inner(found), layers.Flatten()(found)])
    for layer in own:
        both = layer(both)
    return keras.Model(image, layers.Dense(3)(both))


@pytest.fixture
def noise():
    return np.random.default_rng(1).integers(0, 256, (20, 8, 8, 1), dtype=np.uint8)


def test_a_model_within_a_model_is_saved_in_float32_and_built_once(noise, tmp_path, monkeypatch):
    monkeypatch.setenv("TUNER_PRECISION", "bfloat16")
    with precision.scope():
        model = functional()
    model.get_layer("conv").trainable = False
    built, build = [], keras.saving.deserialize_keras_object
    monkeypatch.setattr(
        keras.saving, "deserialize_keras_object", lambda it: built.append(it) or build(it)
    )
    path = tmp_path / "model.keras"
    for factor in (1.5, 0.5):
        for weight in model.weights:
            weight.assign(weight * factor)
        model_file.save(model, path)
        saved = keras.saving.load_model(path)
        for ours, theirs in zip(model.weights, saved.weights, strict=True):
            np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
        outputs = np.asarray(model(noise), "float32")
        np.testing.assert_allclose(saved(noise), outputs, atol=0.03 * np.abs(outputs).max())
    assert len(built) == 1
    with zipfile.ZipFile(path) as archive:
        config = archive.read("config.json").decode()
    assert "tuner" not in config
    assert "bfloat16" not in config
    assert len(saved.trainable_weights) == len(saved.weights) - 2  # moving mean and variance
    assert len(model.trainable_weights) == len(model.weights) - 4  # the model is left as it is


def test_a_model_with_layers_of_the_users_own_is_saved_as_it_is(noise, tmp_path):
    model, path = functional(Scale(name="scale")), tmp_path / "model.keras"
    model.get_layer("scale").factor.assign(np.arange(148.0))
    model_file.save(model, path)
    saved = keras.saving.load_model(path)
    assert type(saved.get_layer("scale")) is Scale
    np.testing.assert_array_equal(saved(noise), model(noise))


def test_a_model_that_cannot_be_saved_is_one_warning(tmp_path, caplog):
    model = functional(Unsaveable())
    for _ in range(2):
        model_file.save(model, tmp_path / "model.keras")
    (line,) = caplog.messages
    assert "model.keras (NotImplementedError: nobody knows)" in line
    model_file.save(functional(), tmp_path / "nowhere" / "model.keras")
    assert len(caplog.messages) == 2
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_used_is_a_sentence(noise, tmp_path):
    path, labels = tmp_path / "model.keras", np.zeros(20, int)
    with pytest.raises(UsageError, match=r"no model file .+model\.keras"):
        error_of(path, noise, labels)
    model_file.save(functional(), path)
    assert 0 <= error_of(path, noise, labels) <= 1
    content = path.read_bytes()
    for damaged in (b"", b"text", content[:-100], content[: len(content) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(UsageError, match=r"model\.keras cannot be used \(\w+: "):
            error_of(path, noise, labels)
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"model\.keras cannot be used \(\w+: "):
        error_of(path, noise[:, :5], labels)


def test_the_study_file_validates_and_tests_a_model_file(
    study_file, task, few, study, tmp_path, monkeypatch
):
    tested_images, tested_labels = packaged.mnist_test()
    assert study_file.test_images == len(tested_labels)
    task.run(asked(study, tmp_path), **configuration())
    path = tmp_path / MODEL_FILE

    def refuse():
        raise AssertionError("the test file was opened")

    monkeypatch.setattr(study_file, "mnist", lambda: few)
    monkeypatch.setattr(study_file, "mnist_test", refuse)
    expected = error_of(path, few.validation_images, few.validation_labels)
    assert study_file.validate(path) == {"validation_error": expected}
    monkeypatch.setattr(
        study_file, "mnist_test", lambda: (tested_images[:100], tested_labels[:100])
    )
    found = study_file.test(path)
    assert found == {"test_error": error_of(path, tested_images[:100], tested_labels[:100])}


def test_the_study_files_final_training_is_of_the_trials_parameters(
    study_file, task, study, tmp_path, monkeypatch
):
    monkeypatch.setattr(study_file, "task", task)
    study.enqueue_trial(
        {"learning_rate": 3e-3, "optimizer": "adam", "init": "pretrained", "frozen_layers": 3}
    )
    trial = study.ask(fixed_distributions=study_file.space)
    trial.outputs = tmp_path
    assert study_file.final(trial) is None
    assert study.trials[0].intermediate_values == {}
    assert (tmp_path / MODEL_FILE).exists()
