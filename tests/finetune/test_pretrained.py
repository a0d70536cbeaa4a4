"""The pretrained base: trained once, kept, made again when its file is damaged."""

import dataclasses
import logging
import multiprocessing
import threading

import filelock
import keras
import numpy as np
import pytest

from tuner import cache, interrupt
from tuner.errors import UsageError
from tuner.finetune import Recipe, pretrained, training
from tuner.finetune.training import Plan, Trainer

RECIPE = Recipe(epochs=1)
CLASSES = range(5)


@pytest.fixture(scope="module")
def few(digits):
    return digits.first(640, 1000)


@pytest.fixture(scope="module")
def trainer(study_file, few):
    return Trainer(study_file.build_model, few)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TUNER_CACHE_DIR", str(tmp_path))
    return tmp_path


@pytest.fixture
def watched(monkeypatch):
    """What who watches hears of one-time work."""
    heard = []
    monkeypatch.setattr("tuner.log._watch", [lambda text, done: heard.append((text, done))])
    return heard


@pytest.fixture
def log(caplog):
    caplog.set_level(logging.INFO, logger="tuner.finetune")
    return caplog


def test_trained_once_then_loaded(trainer, few, folder, log):
    made = pretrained.load_or_train(trainer, few, CLASSES, RECIPE)
    assert "training the base on classes 0, 1, 2, 3, 4, once" in log.text
    assert f"hash {made.hash[:12]}" in log.text
    log.clear()
    loaded = pretrained.load_or_train(trainer, few, CLASSES, RECIPE)
    assert log.text == ""
    assert loaded.hash == made.hash
    for one, other in zip(made.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(one, other)
    assert len(list(folder.glob("base-*.npz"))) == 1
    assert not list(folder.glob("*.tmp"))


@pytest.mark.parametrize(
    ("classes", "size", "words"),
    [
        (CLASSES, 641, "which fill no batch of 641: give base_recipe=Recipe"),
        ((10, 11), 16, "would learn from 0 images"),
    ],
)
def test_a_base_that_learns_nothing_is_refused(classes, size, words, trainer, few, folder):
    with pytest.raises(UsageError, match=words):
        pretrained.load_or_train(trainer, few, classes, Recipe(batch_size=size))
    assert not list(folder.glob("base-*.npz"))


@pytest.mark.soak
def test_the_studys_base_knows_its_digits(study_file, digits, cache, log):
    trainer = Trainer(study_file.build_model, digits)
    made = pretrained.load_or_train(trainer, digits, CLASSES, pretrained.DEFAULT_RECIPE)
    for weight, value in zip(trainer.model.weights, made.weights, strict=True):
        weight.assign(value)
    among = np.isin(digits.validation_labels, CLASSES)
    error = trainer.whole.validation_error(among)
    assert error <= 0.01
    assert f"right on {100 * (1 - error):.2f} % of the validation images" in log.text


def test_the_pieces_of_the_base_are_told_and_change_nothing(trainer, few, folder, monkeypatch):
    monkeypatch.setattr(training, "PIECE_IMAGES", 1)
    told, once = [], []
    for tell in (told.append, None):
        plan = Plan(np.arange(300), 2, 128, keras.optimizers.Adam(), lambda _: 1.0, (), 0)
        run = trainer.start(trainer.template, plan)
        run.train_to(len(run.rates), tell)
        once.append([weight.numpy() for weight in trainer.model.weights])
    assert told == [0.25, 0.5, 0.75, 1.0]
    for one, other in zip(*once, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("damage", ["truncate", "empty", "replace", "other model"])
def test_a_damaged_file_is_made_again(damage, trainer, few, folder, log):
    made = pretrained.load_or_train(trainer, few, CLASSES, RECIPE)
    path = next(folder.glob("base-*.npz"))
    if damage == "truncate":
        path.write_bytes(path.read_bytes()[:-5000])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "replace":
        path.write_bytes(b"no archive at all")
    else:
        with path.open("wb") as file:
            np.savez(file, *[np.zeros(3) for _ in made.weights])
    again = pretrained.load_or_train(trainer, few, CLASSES, RECIPE)
    assert again.hash == made.hash
    assert [record.levelname for record in log.records].count("WARNING") == 1
    assert "trained again" in log.text
    assert pretrained.load_or_train(trainer, few, CLASSES, RECIPE).hash == made.hash


def test_a_folder_that_cannot_be_written_is_one_sentence(trainer, few, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("TUNER_CACHE_DIR", str(tmp_path / "file" / "cache"))
    with pytest.raises(UsageError, match=r"cannot be kept in .*TUNER_CACHE_DIR"):
        pretrained.load_or_train(trainer, few, CLASSES, RECIPE)


def test_the_hash_depends_on_everything_that_decides_the_weights(trainer, few, digits, study_file):
    def hash_of(model=trainer.model, images=few, classes=CLASSES, recipe=RECIPE):
        return pretrained.recipe_hash(model, images, classes, recipe)

    assert hash_of() == hash_of(model=study_file.build_model())  # names of unnamed layers differ
    unnamed = [
        keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Flatten(), keras.layers.Dense(10)])
        for _ in range(2)
    ]
    assert hash_of(model=unnamed[0]) == hash_of(model=unnamed[1]) != hash_of()
    wider = study_file.build_model()
    wider.get_layer("dropout").rate = 0.4
    different = [
        hash_of(model=wider),
        hash_of(images=digits),
        hash_of(classes=range(4)),
        hash_of(recipe=dataclasses.replace(RECIPE, epochs=2)),
    ]
    assert len({hash_of(), *different}) == 5


def _hold(path, held, release):
    with filelock.FileLock(path):
        held.set()
        release.wait(30)


@pytest.fixture
def locked(trainer, few, folder):
    """Another process holds the base's lock until the event is set."""
    name = f"base-{pretrained.recipe_hash(trainer.model, few, CLASSES, RECIPE)}.lock"
    context = multiprocessing.get_context("spawn")
    held, release = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(folder / name, held, release))
    process.start()
    assert held.wait(60)
    yield release
    release.set()
    process.join(30)


@pytest.mark.soak
def test_waits_for_another_process_and_says_so(trainer, few, locked, log, watched):
    timer = threading.Timer(1.0, locked.set)
    timer.start()
    pretrained.load_or_train(trainer, few, CLASSES, RECIPE)
    assert log.messages[0] == "another process is making the base: waiting for it ..."
    assert watched[0] == ("waiting for the base", None)
    assert watched[1:3] == [(None, None), ("training the base", None)]
    assert watched[-1] == (None, None)


@pytest.mark.soak
def test_ctrl_c_ends_the_wait(trainer, few, locked):
    interrupt.request()
    with pytest.raises(interrupt.HandBack):
        pretrained.load_or_train(trainer, few, CLASSES, RECIPE)


def test_the_cache_folder_follows_xdg(monkeypatch, tmp_path):
    monkeypatch.delenv("TUNER_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.folder() == tmp_path / "tuner"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.folder() == tmp_path / ".cache" / "tuner"
