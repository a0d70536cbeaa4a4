"""The images a study trains on and validates with; MNIST comes with the package."""

import dataclasses
import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tuner.errors import UsageError

Array = npt.NDArray[Any]

MNIST_FOLDER = Path(__file__).parent / "mnist"
MNIST_SHA256 = {
    "train.npz": "33e9753a8d3ed06561a816bf46d6d686b20801696e497f092853c1634577f43f",
    "test.npz": "af5595f05f0cc260498196e07655cfa443d2d96874d5ba0dcfeaea06defbda81",
}
MNIST_CLASSES = 10
MNIST_VALIDATION = 10_000
"""Digits held out of the 60,000 training digits; as many as the test set has."""
SPLIT_SEED = 0
"""Never change it: every trial of every study would validate with other digits."""


@dataclasses.dataclass(frozen=True, eq=False)
class Images:
    """Images with their labels, split once and for all studies.

    Attributes:
        train_images: uint8 (n_train, height, width, channels).
        train_labels: int32 (n_train,), from 0 to ``n_classes - 1``.
        validation_images: uint8 (n_validation, height, width, channels).
        validation_labels: int32 (n_validation,).
        n_classes: number of classes.
        content_hash: tells these images from others; part of the name of a cached base.
    """

    train_images: Array
    train_labels: Array
    validation_images: Array
    validation_labels: Array
    n_classes: int
    content_hash: str

    def first(self, train: int, validation: int) -> "Images":
        """The first ``train`` and ``validation`` images only: for a quick look, and for tests."""
        return dataclasses.replace(
            self,
            train_images=self.train_images[:train],
            train_labels=self.train_labels[:train],
            validation_images=self.validation_images[:validation],
            validation_labels=self.validation_labels[:validation],
            content_hash=f"{self.content_hash}[:{train},:{validation}]",
        )

    def joined(self) -> "Images":
        """All of them to train on, the validation images last, and none to validate with."""
        return dataclasses.replace(
            self,
            train_images=np.concatenate([self.train_images, self.validation_images]),
            train_labels=np.concatenate([self.train_labels, self.validation_labels]),
            validation_images=self.validation_images[:0],
            validation_labels=self.validation_labels[:0],
            content_hash=f"{self.content_hash}[joined]",
        )


def mnist() -> Images:
    """MNIST's training file: 50,000 digits to train on, 10,000 to validate with.

    Raises:
        UsageError: the file is missing or not the one this package was made with.
    """
    images, labels = _read("train.npz")
    held_out = stratified(labels, MNIST_VALIDATION, np.random.default_rng(SPLIT_SEED))
    return Images(
        train_images=images[~held_out],
        train_labels=labels[~held_out],
        validation_images=images[held_out],
        validation_labels=labels[held_out],
        n_classes=MNIST_CLASSES,
        content_hash=f"mnist-{MNIST_SHA256['train.npz']}-{SPLIT_SEED}",
    )


def mnist_test() -> tuple[Array, Array]:
    """MNIST's test file, which no search opens.

    Returns:
        Images uint8 (10000, 28, 28, 1) and labels int32 (10000,).

    Raises:
        UsageError: the file is missing or not the one this package was made with.
    """
    return _read("test.npz")


def stratified(labels: Array, size: int, generator: np.random.Generator) -> Array:
    """Choose ``size`` items with each class in its own share.

    A class gives its share of ``size`` rounded down; the classes with the largest remainders give
    one more each, so that the sum is exact.

    Args:
        labels: class of each item, (n,).
        size: how many to choose, 0 to n.
        generator: decides which items of a class are chosen.

    Returns:
        A mask (n,) with ``size`` items True.
    """
    classes, counts = np.unique(labels, return_counts=True)
    quota, remainder = np.divmod(counts * size, len(labels))
    largest = np.argsort(-remainder, kind="stable")[: size - int(quota.sum())]
    quota[largest] += 1
    draw = generator.random(len(labels))
    chosen = np.zeros(len(labels), dtype=bool)
    for label, count in zip(classes, quota, strict=True):
        members = np.flatnonzero(labels == label)
        chosen[members[np.argsort(draw[members], kind="stable")[:count]]] = True
    return chosen


def _read(name: str) -> tuple[Array, Array]:
    """Read one of MNIST's two files, if it is the file this package was made with."""
    path = MNIST_FOLDER / name
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read ({error.strerror}): install the package anew."
        ) from None
    digest = hashlib.sha256(content).hexdigest()
    if digest != MNIST_SHA256[name]:
        raise UsageError(
            f"{path} has the SHA-256 {digest[:12]}..., not {MNIST_SHA256[name][:12]}...: the file "
            "is damaged or was replaced. Install the package anew."
        )
    with np.load(io.BytesIO(content)) as file:
        return file["images"][..., np.newaxis], file["labels"].astype(np.int32)
