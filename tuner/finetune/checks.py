"""Whether arrays are images and labels that can be trained on, said in a sentence if not."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tuner.errors import UsageError

Array = npt.NDArray[Any]


def as_images(images: Any, name: str) -> Array:
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
    if images.dtype.kind == "f" and np.isnan(images).any():
        flat = np.isnan(images).reshape(len(images), -1).any(axis=1)
        raise UsageError(
            f"{np.count_nonzero(flat):,} of the {len(images):,} images of {name} have NaN in them, "
            f"the first one being image {flat.argmax()}: mend them or leave them out."
        )
    if images.dtype != np.uint8:
        raise UsageError(
            f"The images of {name} have the type {images.dtype}: bring their values to 0 to 255, "
            'and write images.astype("uint8").'
        )
    return np.ascontiguousarray(images if images.ndim == 4 else images[..., np.newaxis])


def check_shape_of_labels(labels: Array, n_images: int, name: str) -> None:
    """Refuse anything but one label an image.

    Raises:
        UsageError: another shape.
    """
    if labels.shape != (n_images,):
        raise UsageError(
            f"{name} has {n_images} images, and labels of the shape {labels.shape}: give one label "
            f"an image, ({n_images},)."
        )


def check_labels(labels: Array, n_images: int, name: str) -> None:
    """Refuse what are no classes 0, 1, 2 ... of as many images.

    Raises:
        UsageError: another type, shape or range, or a class between others without an image.
    """
    check_shape_of_labels(labels, n_images, name)
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


def check_parts(
    labels: Array, held_out: Array, validation: float, name: str, class_names: Sequence[str]
) -> None:
    """Refuse a split that leaves a class out of one of its parts.

    Raises:
        UsageError: a class has no image to train on, or none to validate with.
    """
    for mask, purpose in ((~held_out, "train on"), (held_out, "validate with")):
        absent = np.setdiff1d(labels, labels[mask])
        if len(absent):
            times = int(np.count_nonzero(labels == absent[0]))
            count = "one image" if times == 1 else f"{times} images"
            called = f" ({class_names[absent[0]]})" if class_names else ""
            raise UsageError(
                f"Class {absent[0]}{called} of {name} has {count}, and validation={validation:g} "
                f"leaves none of it to {purpose}: give more images of it, or another share."
            )
