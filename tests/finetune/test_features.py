"""Features of frozen stages: exactly what the frozen model computes, kept within bounds."""

import dataclasses
import errno
import os
import time

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tuner import cache
from tuner.errors import UsageError
from tuner.finetune import BatchNormalization, features
from tuner.finetune.stages import freeze, stage_of
from tuner.finetune.training import Plan, Trainer

SEED = 5
STAGES = ("conv1", "conv2", "conv3", "dense")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TUNER_CACHE_DIR", str(tmp_path))
    return tmp_path


@pytest.fixture(scope="module")
def weights(task):
    """The base's, from the session's cache: made before a test takes a folder of its own."""
    return task._base.weights


@pytest.fixture(scope="module")
def few(digits):
    return digits.first(1290, 510)  # no multiple of a batch, nor of 64


def plan(frozen, optimizer=None):
    rows = np.arange(1290)
    chosen = optimizer or keras.optimizers.Adam(0.003)
    return Plan(rows, 1, 128, chosen, lambda done: 1.0 - done, frozen, SEED)


def losses_and_errors(trainer, weights, frozen):
    """The sum of losses of each piece and the validation error after it, bit for bit."""
    run = trainer.start(weights, plan(frozen))
    train, losses, errors = run.loop.train, [], []

    def spy(*arguments):
        losses.append(float(train(*arguments)))
        return losses[-1]

    run.loop = dataclasses.replace(run.loop, train=spy)
    for batch in (1, 2, 5, 10):
        assert run.train_to(batch)
        errors.append(run.validation_error())
    return losses, errors, run


def same_bits_anywhere(model, count, images):
    """Whether this processor computes an image's features alike at every place of a batch."""
    frozen = [stage_of(layer) in STAGES[:count] for layer in model.layers]
    last = len(frozen) - 1 - frozen[::-1].index(True)
    head = keras.Sequential([keras.Input((28, 28, 1)), *model.layers[: last + 1]])
    batch = images.train_images[:128]
    there, back = head(batch, training=False), head(batch[::-1], training=False)
    return np.array_equal(tf.cast(there, "float32"), tf.cast(back, "float32")[::-1])


@pytest.mark.parametrize(
    ("precision", "count"),
    [("float32", 2), ("float32", 3), ("float32", 4),
     ("bfloat16", 3),  # slow where the processor only emulates it, the others even more
     *(pytest.param("bfloat16", it, marks=pytest.mark.soak) for it in (1, 2, 4))],
)  # fmt: skip
def test_training_on_features_is_training_behind_frozen_stages(
    precision, count, weights, study_file, few, folder, monkeypatch
):
    monkeypatch.setenv("TUNER_PRECISION", precision)
    stages = study_file.STAGES[:count]
    with_features = Trainer(study_file.build_model, few)
    cached = losses_and_errors(with_features, weights, stages)
    assert len(list(folder.glob("features-*.npy"))) == 1
    monkeypatch.setattr(features, "load_or_compute", lambda *_: None)
    without = Trainer(study_file.build_model, few)
    plain = losses_and_errors(without, weights, stages)
    assert cached[2].reads.model is not with_features.model
    assert plain[2].reads is without.whole
    pairs = list(zip(with_features.model.weights, without.model.weights, strict=True))
    if same_bits_anywhere(with_features.model, count, few):
        assert cached[0] == plain[0]
        assert cached[1] == plain[1]
        for one, other in pairs:
            np.testing.assert_array_equal(one.numpy(), other.numpy())
    else:  # as without AVX-512: a convolution's rounding depends on the image's place in the batch
        np.testing.assert_allclose(cached[0], plain[0], rtol=1e-3)
        np.testing.assert_allclose(cached[1], plain[1], atol=2.5 / 510)
        for one, other in pairs:
            np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=1e-2, atol=5e-3)


def test_features_are_computed_once_and_then_mapped(
    weights, study_file, few, folder, caplog, monkeypatch
):
    watched = []
    monkeypatch.setattr("tuner.log._watch", [lambda text, done: watched.append((text, done))])
    monkeypatch.setattr("tuner.log.WATCH_SECONDS", 0.0)
    caplog.set_level("INFO", logger="tuner.finetune")
    stages = study_file.STAGES[:3]
    for _ in range(2):
        Trainer(study_file.build_model, few).start(weights, plan(stages))
    said = (
        "computing features of the frozen stages conv1, conv2, conv3, once for this machine (23 MB)"
    )
    assert caplog.text.count(said) == 1
    whats, fractions = zip(*watched, strict=True)
    assert set(whats) == {"computing features behind conv3", None}
    assert [it for it in fractions if it is not None][-1] == 1.0
    other = [weight + 0.01 for weight in weights]
    Trainer(study_file.build_model, few).start(other, plan(stages))
    assert caplog.text.count("computing features") == 2
    assert len(list(folder.glob("features-*.npy"))) == 2
    assert not list(folder.glob("*.tmp"))


def test_each_precision_has_features_of_its_own(weights, study_file, few, folder, monkeypatch):
    stages = study_file.STAGES[:3]
    for _ in range(2):
        for name in ("float32", "bfloat16"):
            monkeypatch.setenv("TUNER_PRECISION", name)
            Trainer(study_file.build_model, few).start(weights, plan(stages))
    one, other = sorted(folder.glob("features-*.npy"), key=lambda path: path.stat().st_size)
    assert other.stat().st_size == pytest.approx(2 * one.stat().st_size, rel=0.01)


def test_a_bound_of_zero_switches_features_off(weights, study_file, few, folder, monkeypatch):
    stages = study_file.STAGES[:3]
    Trainer(study_file.build_model, few).start(weights, plan(stages))
    monkeypatch.setenv("TUNER_CACHE_GB", "0")
    trainer = Trainer(study_file.build_model, few)
    assert trainer.start(weights, plan(stages)).reads is trainer.whole


@pytest.mark.parametrize(
    "damage",
    ["truncated", *(pytest.param(it, marks=pytest.mark.soak) for it in ("empty", "another shape"))],
)
def test_damaged_features_are_computed_again(damage, weights, study_file, few, folder, caplog):
    stages = study_file.STAGES[:2]
    good = losses_and_errors(Trainer(study_file.build_model, few), weights, stages)
    (path,) = folder.glob("features-*.npy")
    content = path.read_bytes()
    if damage == "another shape":
        np.save(path, np.zeros((3, 7, 7, 64), np.float32))
    else:
        path.write_bytes(content[: len(content) // 2] if damage == "truncated" else b"")
    again = losses_and_errors(Trainer(study_file.build_model, few), weights, stages)
    assert "computed again" in caplog.text
    assert path.read_bytes() == content
    assert again[:2] == good[:2]


def test_the_longest_unused_features_go_when_the_bound_is_reached(folder, monkeypatch):
    monkeypatch.setenv("TUNER_CACHE_GB", "0.000003")  # 3 kB
    for age, name in enumerate(("new", "middle", "old")):
        file = folder / f"features-{name}.npy"
        file.write_bytes(b"x" * 1000)
        os.utime(file, (time.time() - 100 * age,) * 2)
    (folder / "base-1.npz").write_bytes(b"x" * 5000)
    (folder / "features-killed.123.tmp").write_bytes(b"x" * 5000)
    assert cache.make_room("features-*.npy", 1500)
    assert {file.name for file in folder.iterdir()} == {"features-new.npy", "base-1.npz"}
    assert not cache.make_room("features-*.npy", 3001)
    assert (folder / "features-new.npy").exists()


def test_without_room_the_training_goes_on_without_features(
    weights, study_file, few, folder, monkeypatch, caplog
):
    caplog.set_level("INFO", logger="tuner.finetune")
    monkeypatch.setenv("TUNER_CACHE_GB", "0.001")
    trainer = Trainer(study_file.build_model, few)
    run = trainer.start(weights, plan(study_file.STAGES[:3]))
    assert run.reads is trainer.whole
    assert "TUNER_CACHE_GB" in caplog.text
    assert not list(folder.glob("features-*.npy"))


def test_a_full_disk_is_a_warning(weights, study_file, few, folder, monkeypatch, caplog):
    def full(*_arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np.lib.format, "write_array_header_1_0", full)
    trainer = Trainer(study_file.build_model, few)
    assert trainer.start(weights, plan(study_file.STAGES[:3])).reads is trainer.whole
    assert "No space left on device" in caplog.text
    assert {file.suffix for file in folder.iterdir()} == {".lock"}


@pytest.mark.parametrize("text", ["much", "-1", "nan", "inf"])
def test_a_wrong_bound_is_a_sentence(text, monkeypatch):
    monkeypatch.setenv("TUNER_CACHE_GB", text)
    with pytest.raises(UsageError, match="TUNER_CACHE_GB"):
        cache.bound_bytes()


class Noisy(layers.Conv2D):
    """A user's layer: what it does is not known."""


def a_model(*between):
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(4, 3, name="conv1"),
            *between,
            layers.Conv2D(4, 3, name="conv2"),
            layers.ReLU(name="conv2_relu"),
            layers.Flatten(name="flatten"),
            layers.Dense(2, name="logits"),
        ]
    )


@pytest.mark.parametrize(
    ("between", "cut"),
    [
        ([], 3),
        ([BatchNormalization(name="conv1_norm")], 4),
        ([layers.MaxPooling2D(name="pool")], 4),
        ([layers.Dropout(0.1, name="conv1_dropout")], None),
        ([layers.RandomFlip(name="flip")], None),
        ([layers.BatchNormalization(name="norm")], None),  # of no stage: it trains
        ([Noisy(4, 1, name="conv1_noisy")], None),
        ([layers.Conv2D(4, 1, activation=lambda x: x + 1, name="conv1_own")], None),
        ([layers.Conv2D(4, 1, kernel_regularizer="l2", name="conv1_l2")], 4),  # frozen: no loss
        ([layers.Conv2D(4, 1, activity_regularizer="l2", name="conv1_act")], None),
    ],
)
def test_only_still_stages_are_replaced(between, cut):
    model = a_model(*between)
    freeze(model, ("conv1", "conv2"))
    assert features.count_still_layers(model, ("conv1", "conv2")) == cut
    assert features.count_still_layers(model, ("conv1",)) is None


def test_a_model_that_is_no_chain_is_left_alone():
    chain = a_model()
    model = keras.Model(chain.inputs, chain.outputs)
    freeze(model, ("conv1", "conv2"))
    assert features.count_still_layers(model, ("conv1", "conv2")) is None
