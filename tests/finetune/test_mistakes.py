"""The file of a model's mistakes: it counts what the trial reported, and holds real pictures."""

import base64
import dataclasses
import json
import logging

import keras
import numpy as np
import pytest
import tensorflow as tf

from tuner.artifacts import MISTAKES_FILE, MODEL_FILE
from tuner.finetune import mistakes
from tuner.finetune.mistakes import (
    CONFUSED_CLASSES,
    LONGEST_NAME,
    PICTURE_PIXELS,
    WORST,
    Answers,
    class_names_of,
    describe,
)
from tuner.report.mistakes import parsed


@pytest.fixture(scope="module")
def few(digits):
    return digits.first(640, 500)


@pytest.mark.parametrize("precision", ["float32", pytest.param("bfloat16", marks=pytest.mark.soak)])
def test_as_many_are_wrong_as_the_trial_reports(
    precision, make_task, few, study, tmp_path, monkeypatch
):
    monkeypatch.setenv("TUNER_PRECISION", precision)
    task = make_task(images=lambda: few, batch_size=32)
    for frozen in (0, 3):  # from the images, and from stored features
        folder = tmp_path / str(frozen)
        folder.mkdir()
        trial = study.ask()
        trial.outputs = folder
        error = task.run(
            trial,
            optimizer=keras.optimizers.Adam(3e-3),
            init="pretrained",
            frozen_stages=frozen,
            schedule=lambda done: 1.0 - 0.9 * done,
        )
        assert trial.user_attrs["cached_features"] == (frozen > 0)
        assert {path.name for path in folder.iterdir()} == {MISTAKES_FILE, MODEL_FILE}
        found = json.loads((folder / MISTAKES_FILE).read_text())
        assert 1 - (found["images"] - found["wrong"]) / found["images"] == error  # to the last bit
        confusion = np.array(found["confusion"])
        assert confusion.sum() - np.trace(confusion) == found["wrong"] > 0
        assert confusion.sum(axis=1).tolist() == np.bincount(few.validation_labels).tolist()
        assert found["classes"] == [str(digit) for digit in range(10)]
        assert len(found["worst"]) == min(WORST, found["wrong"])
        for it in found["worst"]:
            assert few.validation_labels[it["index"]] == int(it["true"]) != int(it["said"])
            assert 1 >= it["p_said"] > it["p_true"] >= 0
            picture = tf.io.decode_png(base64.b64decode(it["png"]))
            np.testing.assert_array_equal(picture, few.validation_images[it["index"]])
        sure = [it["p_said"] for it in found["worst"]]
        assert sure == sorted(sure, reverse=True)
        assert parsed((folder / MISTAKES_FILE).read_bytes()).wrong == found["wrong"]  # as read


NUMBERS = [str(number) for number in range(200)]


def test_many_classes_and_large_colour_pictures():
    generator = np.random.default_rng(0)
    labels = generator.integers(200, size=3000)
    said = np.where(generator.random(3000) < 0.9, labels, generator.integers(200, size=3000))
    said[labels == 7] = 8  # the most often confused ones
    shares = generator.random(3000).astype(np.float32)
    pictures = generator.integers(256, size=(3000, 30, 100, 3)).astype(np.uint8)
    found = describe(Answers(labels, said, shares, shares / 2), pictures, NUMBERS)
    assert (found["images"], found["n_classes"]) == (3000, 200)
    assert found["wrong"] == (labels != said).sum()
    kept = [int(it) for it in found["classes"]]
    assert len(kept) == CONFUSED_CLASSES
    assert {7, 8} <= set(kept)
    assert kept == sorted(kept)
    for row, true in enumerate(kept):
        for column, named in enumerate(kept):
            count = ((labels == true) & (said == named)).sum()
            assert found["confusion"][row][column] == count
    for it in found["worst"]:
        png = base64.b64decode(it["png"])
        assert tf.io.decode_png(png).shape == (19, PICTURE_PIXELS, 3)
    assert len(json.dumps(found)) < 300_000
    two_channels = describe(Answers(labels, said, shares, shares), pictures[..., :2], NUMBERS)
    png = base64.b64decode(two_channels["worst"][0]["png"])
    assert tf.io.decode_png(png).shape == (19, PICTURE_PIXELS, 1)
    right = describe(Answers(labels, labels, shares, shares), pictures, NUMBERS)
    assert (right["wrong"], right["worst"]) == (0, [])


def test_classes_have_the_names_that_people_gave_them(few):
    named = dataclasses.replace(few, class_names=("zero", *"bcdefghi", "x" * 100))
    assert class_names_of(few) == [*"0123456789"]
    names = class_names_of(named)
    assert (names[0], len(names[9])) == ("zero", LONGEST_NAME)
    labels = np.array([0, 1, 2])
    shares = np.full(3, 0.5, np.float32)
    found = describe(Answers(labels, labels[::-1], shares, shares), few.validation_images, names)
    assert [(it["true"], it["said"]) for it in found["worst"]] == [("zero", "c"), ("c", "zero")]
    assert found["classes"][:2] == ["zero", "b"]


def test_a_file_that_cannot_be_made_costs_nothing(few, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(mistakes, "_failed", [])
    monkeypatch.setattr(logging.getLogger("tuner"), "propagate", True)  # a command turns it off
    for _ in range(2):
        mistakes.save(None, few, tmp_path / MISTAKES_FILE)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "no confusion matrix" in caplog.text
    assert not (tmp_path / MISTAKES_FILE).exists()
