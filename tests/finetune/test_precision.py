"""Precision: what layers compute in, chosen by a variable, the processor, or the study file."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tuner.errors import UsageError
from tuner.finetune import device, precision
from tuner.finetune.training import Plan, Trainer


@pytest.fixture
def asked(monkeypatch):
    """Set what the user asks for, on a CPU that has or has not bfloat16."""

    def ask(name, *, has_bfloat16=True):
        monkeypatch.setenv("TUNER_PRECISION", name)
        monkeypatch.setattr(device, "kind", lambda: "CPU")
        monkeypatch.setattr(precision, "has_bfloat16", lambda: has_bfloat16)

    return ask


@pytest.mark.parametrize(
    ("name", "has_bfloat16", "chosen"),
    [
        ("auto", True, "bfloat16"),
        ("auto", False, "float32"),
        ("", True, "bfloat16"),
        ("float32", True, "float32"),
        ("bfloat16", False, "bfloat16"),
    ],
)
def test_the_choice(name, has_bfloat16, chosen, asked):
    asked(name, has_bfloat16=has_bfloat16)
    assert precision.chosen() == chosen


def test_a_policy_of_the_study_file_is_kept_by_auto_alone(asked):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        for name, policy in (("auto", "mixed_float16"), ("float32", "float32")):
            asked(name)
            with precision.scope():
                assert keras.config.dtype_policy().name == policy
            assert keras.config.dtype_policy().name == "mixed_float16"
    finally:
        keras.config.set_dtype_policy("float32")


def test_an_unknown_precision_is_a_sentence(asked):
    asked("half")
    with pytest.raises(UsageError, match=r"TUNER_PRECISION='half'.*auto, float32, bfloat16"):
        precision.chosen()


@pytest.mark.parametrize(("capability", "has"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_a_gpu_has_bfloat16_from_capability_8(capability, has, monkeypatch):
    details = {"compute_capability": capability}
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda _: ["a GPU"])
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda _: details)
    assert device.gpu_has_bfloat16() == has


@pytest.fixture
def trainer(asked, study_file, digits):
    asked("bfloat16")
    return Trainer(study_file.build_model, digits.first(2560, 1000))


def test_layers_compute_in_bfloat16_with_weights_and_logits_in_float32(trainer):
    *inner, last = trainer.model.layers
    assert {layer.compute_dtype for layer in inner} == {"bfloat16"}
    assert last.compute_dtype == "float32"
    assert {weight.dtype for weight in trainer.model.weights} == {"float32"}
    logits = trainer.model(trainer.whole.validation_images[:2])
    assert logits.dtype == tf.float32
    assert np.any(logits != tf.cast(tf.cast(logits, tf.bfloat16), tf.float32))  # finer than that
    assert keras.config.dtype_policy().name == "float32"  # the study's other models are its own


@pytest.mark.soak
def test_training_in_bfloat16_learns_what_float32_learns(trainer, asked, study_file, digits):
    asked("float32")
    exact = Trainer(study_file.build_model, digits.first(2560, 1000))
    errors = []
    for each in (exact, trainer):
        plan = Plan(
            np.arange(2560), 2, 128, keras.optimizers.Adam(1e-3), study_file.schedule, (), seed=3
        )
        run = each.start(each.template, plan)
        assert run.train_to(40)
        errors.append(run.validation_error())
        assert {weight.dtype for weight in run.loop.optimizer.variables[1:]} <= {"float32", "int64"}
    assert errors[0] < 0.15
    assert errors[1] == pytest.approx(errors[0], abs=0.03)  # 1,000 images


def test_losses_of_layers_join_the_loss(asked, study_file, digits):
    asked("bfloat16")

    def build():
        return keras.Sequential(
            [
                keras.Input((28, 28, 1)),
                layers.Rescaling(1 / 255, dtype="float32", name="scale"),
                layers.Flatten(name="flatten"),
                layers.Dense(16, activity_regularizer="l2", name="dense"),
                layers.Dense(10, name="logits"),
            ]
        )

    few = Trainer(build, digits.first(2560, 1000))
    assert precision.of_model(few.model) == "bfloat16"  # of what has weights
    plan = Plan(np.arange(2560), 1, 128, keras.optimizers.SGD(0.1), study_file.schedule, (), seed=3)
    assert few.start(few.template, plan).train_to(5)


def test_a_model_within_a_model_may_make_the_logits(asked):
    asked("bfloat16")
    with precision.scope():
        inner = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
        model = keras.Sequential([keras.Input((4,)), inner])
    precision.keep_logits_exact(model)  # leaves it alone
    assert model(np.ones((1, 4))).dtype == tf.bfloat16


@pytest.mark.parametrize(("has_bfloat16", "warned"), [(True, False), (False, True)])
def test_what_is_said(has_bfloat16, warned, trainer, asked, caplog):
    caplog.set_level("INFO", logger="tuner.finetune")
    asked("bfloat16", has_bfloat16=has_bfloat16)
    precision.tell(trainer.model)
    assert "training in bfloat16" in caplog.text
    assert ("float32 is likely faster" in caplog.text) == warned
