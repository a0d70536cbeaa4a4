"""MNIST as it ships, images of the user's own, and their splits."""

import numpy as np
import pytest

from tuner.errors import UsageError
from tuner.finetune import Images, images, mnist_test, packaged


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
    monkeypatch.setattr(packaged, "MNIST_FOLDER", tmp_path)
    if change == "damage":
        (tmp_path / "train.npz").write_bytes(b"not digits")
    with pytest.raises(UsageError, match=r"train\.npz .*[Ii]nstall the package anew"):
        packaged.mnist()


def own(n=20, classes=2, shape=(3, 4)):
    """Images whose first value is their number, and their labels in turn."""
    pictures = np.zeros((n, *shape), dtype=np.uint8)
    pictures.reshape(n, -1)[:, 0] = np.arange(n)
    return pictures, np.arange(n) % classes


def test_own_images_are_divided_once_and_for_all():
    pictures, labels = own(30, classes=3)
    divided = Images.split(pictures, labels, validation=0.2, name="own")
    assert divided.train_images.shape == (24, 3, 4, 1)
    assert divided.validation_images.shape == (6, 3, 4, 1)
    assert divided.validation_images.dtype == np.uint8
    assert divided.train_labels.dtype == divided.validation_labels.dtype == np.int32
    assert np.bincount(divided.validation_labels).tolist() == [2, 2, 2]
    assert divided.n_classes == 3
    numbers = np.concatenate([divided.train_images, divided.validation_images])[:, 0, 0, 0]
    assert sorted(numbers) == list(range(30))  # each image once
    both = np.concatenate([divided.train_labels, divided.validation_labels])
    assert (both == numbers % 3).all()  # with its own label
    # A changed split would make every stored value incomparable: these never change.
    assert divided.validation_images[:, 0, 0, 0].tolist() == [1, 3, 11, 13, 20, 21]


def test_the_content_hash_tells_every_change():
    pictures, labels = own(30, classes=3, shape=(3, 4, 3))
    hashes = [Images.split(pictures, labels, validation=0.2, name="own").content_hash]
    again = Images.split(pictures.copy(), labels.astype(np.uint8), validation=0.2, name="other")
    assert again.content_hash == hashes[0]
    changed = pictures.copy()
    changed[7, 1, 1, 1] = 1
    other_labels = labels.copy()
    other_labels[[0, 1]] = labels[[1, 0]]
    hashes += [
        Images.split(*arrays, validation=share, name="own").content_hash
        for *arrays, share in (
            (changed, labels, 0.2),
            (pictures, other_labels, 0.2),
            (pictures.reshape(30, 4, 3, 3), labels, 0.2),
            (pictures, labels, 0.3),
        )
    ]
    assert len(set(hashes)) == 5


PICTURES, LABELS = own()


@pytest.mark.parametrize(
    ("pictures", "labels", "validation", "words"),
    [
        (PICTURES / 255, LABELS, 0.2, r'type float64: bring .*astype\("uint8"\)'),
        (PICTURES * np.nan, LABELS, 0.2, "20 of the 20 images of own have NaN in them"),
        (PICTURES[0], LABELS, 0.2, r"shape \(3, 4\): give \(n, height"),
        (PICTURES[:0], LABELS[:0], 0.2, r"shape \(0, 3, 4\)"),
        (PICTURES[:, :, :0], LABELS, 0.2, r"shape \(20, 3, 0\)"),
        (np.array([PICTURES[0], None], dtype=object), LABELS[:2], 0.2, "not all of one size"),
        ([PICTURES[0], PICTURES[1, :2]], LABELS[:2], 0.2, "not all of one size"),
        (PICTURES, LABELS[:-1], 0.2, r"20 images, and labels of the shape \(19,\)"),
        (PICTURES, LABELS[:, np.newaxis], 0.2, r"shape \(20, 1\)"),
        (PICTURES, LABELS + 0.0, 0.2, r"type float64, not whole numbers: number the classes"),
        (PICTURES, np.where(LABELS, np.nan, 0), 0.2, "leave out the images whose label is NaN"),
        (PICTURES, LABELS.astype(str), 0.2, "type <U"),
        (PICTURES, LABELS == 1, 0.2, "type bool"),
        (PICTURES, LABELS - 1, 0.2, "is -1, and classes begin at 0"),
        (PICTURES, LABELS * 0, 0.2, "the label 0: there is nothing to tell apart"),
        (PICTURES, LABELS + 1, 0.2, "go up to 2, and no image has the label 0"),
        (PICTURES, LABELS * 10**9, 0.2, "go up to 1000000000, and no image has the label 1"),
        (PICTURES, LABELS, 0, "validation=0 of own is no share"),
        (PICTURES, LABELS, 20, "validation=20 of own is no share"),
        (PICTURES, LABELS, float("nan"), "validation=nan of own is no share"),
        (PICTURES, LABELS, 0.01, "has 10 images, and validation=0.01 leaves none of it to valid"),
        (PICTURES, LABELS, 0.99, "has 10 images, and validation=0.99 leaves none of it to train"),
        (PICTURES, (np.arange(20) == 5) * 1, 0.2, "Class 1 of own has one image"),
    ],
)
def test_images_that_cannot_be_used_are_one_clear_sentence(pictures, labels, validation, words):
    with pytest.raises(UsageError, match=words) as raised:
        Images.split(pictures, labels, validation=validation, name="own")
    assert "own" in str(raised.value)
    assert str(raised.value).endswith(".")
