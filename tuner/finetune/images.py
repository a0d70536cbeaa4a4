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

    @staticmethod
    def split(images: Array, labels: Array, *, validation: float, name: str) -> "Images":
        """Divide images of your own into those to train on and those to validate with.

        The division follows from the labels and the share alone: it is the same in every process,
        each class in its own share. The content hash covers all values, so that a base that was
        trained on other images is never taken for these images' own.

        Args:
            images: uint8 (n, height, width) or (n, height, width, channels).
            labels: whole numbers (n,), from 0 to the number of classes - 1; each class must have an
                image in either part.
            validation: share of the images to validate with, between 0 and 1.
            name: what errors call these images.

        Raises:
            UsageError: images, labels or share cannot be used.
        """
        labels = np.asarray(labels)
        images = _as_images(images, name)
        _check_labels(labels, len(images), name)
        if not 0.0 < validation < 1.0:
            raise UsageError(
                f"validation={validation!r} of {name} is no share between 0 and 1: write 0.2 to "
                "validate with a fifth of the images."
            )
        size = round(len(labels) * validation)
        held_out = stratified(labels, size, np.random.default_rng(SPLIT_SEED))
        _check_parts(labels, held_out, validation, name)
        labels = labels.astype(np.int32)
        digest = hashlib.sha256(f"{images.shape} {validation!r} {SPLIT_SEED}".encode())
        digest.update(images.data)
        digest.update(labels.data)
        return Images(
            train_images=images[~held_out],
            train_labels=labels[~held_out],
            validation_images=images[held_out],
            validation_labels=labels[held_out],
            n_classes=int(labels.max()) + 1,
            content_hash=f"images-{digest.hexdigest()}",
        )

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


def _as_images(images: Any, name: str) -> Array:
    """Images as one array (n, height, width, channels), if that is what they are.

    Raises:
        UsageError: another type or shape, or no image at all.
    """
    sizes = (
        f"The images of {name} are not all of one size: scale or crop them to one height and width "
        "before."
    )
    try:
        images = np.asarray(images)
    except ValueError:  # a list of arrays that make no array
        raise UsageError(sizes) from None
    if images.dtype == object:
        raise UsageError(sizes)
    if images.ndim not in {3, 4} or 0 in images.shape:
        raise UsageError(
            f"The images of {name} have the shape {images.shape}: give (n, height, width) or (n, "
            "height, width, channels), none of them 0."
        )
    if images.dtype != np.uint8:
        raise UsageError(
            f"The images of {name} have the type {images.dtype}: bring their values to 0 to 255, "
            'without NaN, and write images.astype("uint8").'
        )
    return np.ascontiguousarray(images if images.ndim == 4 else images[..., np.newaxis])


def _check_labels(labels: Array, n_images: int, name: str) -> None:
    """Refuse what are no classes 0, 1, 2 ... of as many images.

    Raises:
        UsageError: another type, shape or range, or a class between others without an image.
    """
    if labels.shape != (n_images,):
        raise UsageError(
            f"{name} has {n_images} images, and labels of the shape {labels.shape}: give one label "
            f"an image, ({n_images},)."
        )
    numbered = "number the classes by numpy.unique(labels, return_inverse=True)[1]"
    if labels.dtype.kind not in "iu":
        nan = labels.dtype.kind == "f" and np.isnan(labels).any()
        raise UsageError(
            f"The labels of {name} have the type {labels.dtype}, not whole numbers: "
            + ("leave out the images whose label is NaN, and " if nan else "")
            + f"{numbered}."
        )
    classes = np.unique(labels)
    if classes[0] < 0:
        raise UsageError(
            f"A label of {name} is {classes[0]}, and classes begin at 0: leave out images without "
            f"a class, and {numbered}."
        )
    if len(classes) < 2:
        raise UsageError(
            f"All images of {name} have the label {classes[0]}: there is nothing to tell apart; "
            "give two classes or more."
        )
    if classes[-1] != len(classes) - 1:
        absent = int(np.flatnonzero(classes != np.arange(len(classes)))[0])
        raise UsageError(
            f"The labels of {name} go up to {classes[-1]}, and no image has the label {absent}: "
            f"{numbered}."
        )


def _check_parts(labels: Array, held_out: Array, validation: float, name: str) -> None:
    """Refuse a split that leaves a class out of one of its parts.

    Raises:
        UsageError: a class has no image to train on, or none to validate with.
    """
    for mask, purpose in ((~held_out, "train on"), (held_out, "validate with")):
        absent = np.setdiff1d(labels, labels[mask])
        if len(absent):
            times = int(np.count_nonzero(labels == absent[0]))
            count = "one image" if times == 1 else f"{times} images"
            raise UsageError(
                f"Class {absent[0]} of {name} has {count}, and validation={validation:g} leaves "
                f"none of it to {purpose}: give more images of it, or another share."
            )


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
