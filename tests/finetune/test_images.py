"""MNIST as it ships, and its split."""

import numpy as np
import pytest

from tuner.errors import UsageError
from tuner.finetune import images, mnist_test


def test_mnist_is_split_into_50000_and_10000_stratified(digits):
    assert digits.train_images.shape == (50_000, 28, 28, 1)
    assert digits.validation_images.shape == (10_000, 28, 28, 1)
    assert digits.train_images.dtype == np.uint8
    assert digits.train_labels.dtype == digits.validation_labels.dtype == np.int32
    held_out = np.bincount(digits.validation_labels)
    share = (held_out + np.bincount(digits.train_labels)) / 6
    assert np.abs(held_out - share).max() < 1.0


def test_the_split_is_the_same_for_ever(digits):
    # A changed split would make every stored value incomparable: these labels never change.
    assert digits.validation_labels[:12].tolist() == [4, 1, 5, 6, 4, 0, 6, 9, 4, 8, 1, 6]
    assert int(digits.validation_images.astype(np.int64).sum()) == 260_940_136


def test_stratified_gives_an_exact_size_by_largest_remainder():
    labels = np.repeat([0, 1, 2], [5, 3, 2])
    chosen = images.stratified(labels, 4, np.random.default_rng(0))
    # Shares 2.0, 1.2, 0.8: the third class has the largest remainder.
    assert np.bincount(labels[chosen], minlength=3).tolist() == [2, 1, 1]


def test_the_test_set_has_10000_digits():
    test_images, labels = mnist_test()
    assert test_images.shape == (10_000, 28, 28, 1)
    assert labels.shape == (10_000,)


@pytest.mark.parametrize("change", ["damage", "remove"])
def test_a_damaged_or_missing_file_is_one_clear_sentence(change, tmp_path, monkeypatch):
    monkeypatch.setattr(images, "MNIST_FOLDER", tmp_path)
    if change == "damage":
        (tmp_path / "train.npz").write_bytes(b"not digits")
    with pytest.raises(UsageError, match=r"train\.npz .*[Ii]nstall the package anew"):
        images.mnist()
