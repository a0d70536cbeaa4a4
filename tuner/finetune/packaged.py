"""MNIST, which comes with the package, in two files: the search opens the training file only."""

import hashlib
import io
from pathlib import Path

import numpy as np

from tuner.errors import UsageError
from tuner.finetune.checks import Array
from tuner.finetune.images import SPLIT_SEED, Images, stratified

MNIST_FOLDER = Path(__file__).parent / "mnist"
MNIST_SHA256 = {
    "train.npz": "33e9753a8d3ed06561a816bf46d6d686b20801696e497f092853c1634577f43f",
    "test.npz": "af5595f05f0cc260498196e07655cfa443d2d96874d5ba0dcfeaea06defbda81",
}
MNIST_CLASSES = 10
MNIST_VALIDATION = 10_000
"""Digits held out of the 60,000 training digits; as many as the test set has."""


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
