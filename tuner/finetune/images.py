"""The images a study trains on and validates with, and how they are checked and split."""

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tuner.errors import UsageError
from tuner.finetune import checks, readers
from tuner.finetune.checks import Array

VALIDATION_SHARE = 0.2
"""Of images of the user's own: enough of few thousands to tell good from bad."""

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
        class_names: what people call the classes, (n_classes,); empty: by their numbers.
    """

    train_images: Array
    train_labels: Array
    validation_images: Array
    validation_labels: Array
    n_classes: int
    content_hash: str
    class_names: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one image: (height, width, channels)."""
        return self.train_images.shape[1:]

    @staticmethod
    def from_npz(path: str | Path, *, validation: float = VALIDATION_SHARE) -> "Images":
        """Images and labels in a NumPy file, as `tuner.finetune.read_npz` reads its training part.

        Args:
            path: of the file.
            validation: share of the images to validate with, see `split`.

        Raises:
            UsageError: the file cannot be read, or its images cannot be used.
        """
        images, labels = readers.read_npz(path)
        return Images.split(images, labels, validation=validation, name=Path(path).name)

    @staticmethod
    def from_idx(folder: str | Path, *, validation: float = VALIDATION_SHARE) -> "Images":
        """The training files of a folder in MNIST's own format, see `tuner.finetune.read_idx`.

        Args:
            folder: with the files of images and of labels.
            validation: share of the images to validate with, see `split`.

        Raises:
            UsageError: the files cannot be read, or their images cannot be used.
        """
        images, labels = readers.read_idx(folder)
        return Images.split(images, labels, validation=validation, name=Path(folder).name)

    @staticmethod
    def from_directory(
        folder: str | Path,
        *,
        size: tuple[int, int] | None = None,
        channels: int | None = None,
        validation: float = VALIDATION_SHARE,
    ) -> "Images":
        """Pictures in a folder for each class, see `tuner.finetune.read_directory`.

        Args:
            folder: with a subfolder for each class; their names are the classes' names.
            size: height and width that pictures are brought to; without it all must have one size.
            channels: 1 for grey, 3 for colour, whatever the pictures are; None: grey if all are.
            validation: share of the images to validate with, see `split`.

        Raises:
            UsageError: a picture cannot be read, or the images cannot be used.
        """
        names = readers.classes_of(folder)
        images, labels = readers.read_directory(folder, size=size, channels=channels)
        name = Path(folder).name
        return Images.split(images, labels, validation=validation, name=name, class_names=names)

    @staticmethod
    def from_keras(name: str, *, validation: float = VALIDATION_SHARE) -> "Images":
        """The training images of one of Keras's data sets, see `tuner.finetune.read_keras`.

        Args:
            name: such as ``"cifar10"``.
            validation: share of the images to validate with, see `split`.

        Raises:
            UsageError: Keras has no such images, or they cannot be fetched.
        """
        images, labels = readers.read_keras(name)
        return Images.split(images, labels, validation=validation, name=name)

    @staticmethod
    def split(
        images: Array,
        labels: Array,
        *,
        validation: float,
        name: str,
        class_names: Sequence[str] = (),
    ) -> "Images":
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
            class_names: what people call the classes, one for each, in the order of their numbers.

        Raises:
            UsageError: images, labels or share cannot be used.
        """
        labels = np.asarray(labels)
        images = checks.as_images(images, name)
        checks.check_labels(labels, len(images), name)
        if class_names and len(class_names) != labels.max() + 1:
            raise UsageError(
                f"{name} has {labels.max() + 1} classes, and {len(class_names)} class names: give "
                "one for each."
            )
        if not 0.0 < validation < 1.0:
            raise UsageError(
                f"validation={validation!r} of {name} is no share between 0 and 1: write 0.2 to "
                "validate with a fifth of the images."
            )
        size = round(len(labels) * validation)
        held_out = stratified(labels, size, np.random.default_rng(SPLIT_SEED))
        checks.check_parts(labels, held_out, validation, name, class_names)
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
            class_names=tuple(class_names),
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
