"""Augmentations: each training image is seen a little changed, by the trial's seed and the batch.

=================  ================================================================================
``none``           as it is
``shift``          moved by up to a fourteenth of its sides, each way (2 pixels of 28)
``shift_rotate``   turned by up to 10 degrees about its middle, and moved likewise
``elastic``        every pixel moved by a smooth random field (Simard et al. 2003, "Best practices
                   for convolutional neural networks", section 2; here of a 5 x 5 grid of arrows,
                   0.04 of a side on average, joined by cubic interpolation)
=================  ================================================================================

What comes in from outside is 0. Values between pixels are interpolated linearly.
"""

import math
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tuner.errors import UsageError

SHIFT = 1 / 14
"""Of a side; MNIST's digits keep 4 free pixels of 28 round them."""

TURN_DEGREES = 10.0
"""A 6 that is turned further begins to look like another digit."""

GRID, STRETCH = 5, 0.04
"""Arrows a side of `elastic`, and the standard deviation of each, in sides of the image."""

NONE = "none"

Augmentation = Callable[[Any, Any], Any]
"""``(images float32 (n, height, width, channels), seed int32 (2,)) -> images`` of the same kind."""


def shift(images: Any, seed: Any) -> Any:
    """Move each image by whole pixels."""
    n, height, width, _ = _shape(images)
    offsets = [
        tf.round(_uniform(seed, axis, n) * SHIFT * tf.cast(side, tf.float32))
        for axis, side in enumerate((height, width))
    ]
    return _transformed(images, _matrices(tf.zeros(n), *offsets))


def shift_rotate(images: Any, seed: Any) -> Any:
    """Turn each image about its middle, and move it."""
    n, height, width, _ = _shape(images)
    sides = (height, width)
    down, right = (
        _uniform(seed, axis, n) * SHIFT * tf.cast(side, tf.float32)
        for axis, side in enumerate(sides)
    )
    angles = _uniform(seed, 2, n) * TURN_DEGREES * (math.pi / 180.0)
    middle = [(tf.cast(side, tf.float32) - 1.0) / 2.0 for side in sides]
    cosine, sine = tf.cos(angles), tf.sin(angles)
    # Where a pixel (right, down) of the new image comes from: turned about the middle.
    from_right = middle[1] - cosine * middle[1] + sine * middle[0] - right
    from_down = middle[0] - sine * middle[1] - cosine * middle[0] - down
    return _transformed(images, _matrices(angles, -from_down, -from_right))


def elastic(images: Any, seed: Any) -> Any:
    """Move every pixel by a smooth random field."""
    n, height, width, channels = _shape(images)
    arrows = tf.random.stateless_normal((n, GRID, GRID, 2), seed) * STRETCH
    field = tf.image.resize(arrows, (height, width), method="bicubic")
    sides = tf.cast(tf.stack([height, width]), tf.float32)
    places = tf.stack(tf.meshgrid(tf.range(height), tf.range(width), indexing="ij"), axis=-1)
    wanted = tf.cast(places, tf.float32) + field * sides
    padded = tf.pad(images, [[0, 0], [1, 1], [1, 1], [0, 0]])  # what is outside is 0
    wanted = tf.clip_by_value(wanted + 1.0, 0.0, sides + 1.0)
    low = tf.minimum(tf.floor(wanted), sides)
    share = wanted - low
    corner = tf.cast(low, tf.int32)
    flat = tf.reshape(padded, (n, (height + 2) * (width + 2), channels))

    def values(down: int, right: int) -> Any:
        index = (corner[..., 0] + down) * (width + 2) + corner[..., 1] + right
        found = tf.gather(flat, tf.reshape(index, (n, height * width)), axis=1, batch_dims=1)
        return tf.reshape(found, (n, height, width, channels))

    vertical, horizontal = share[..., :1], share[..., 1:]
    top = values(0, 0) * (1.0 - horizontal) + values(0, 1) * horizontal
    bottom = values(1, 0) * (1.0 - horizontal) + values(1, 1) * horizontal
    return top * (1.0 - vertical) + bottom * vertical


AUGMENTATIONS: dict[str, Augmentation | None] = {
    NONE: None,
    "shift": shift,
    "shift_rotate": shift_rotate,
    "elastic": elastic,
}
"""By name, to be sampled."""


def augmentation_of(name: str) -> Augmentation | None:
    """The augmentation of this name, None for ``"none"``.

    Raises:
        UsageError: there is none of this name.
    """
    if not isinstance(name, str) or name not in AUGMENTATIONS:
        raise UsageError(f"augmentation={name!r} is none of {', '.join(AUGMENTATIONS)}.")
    return AUGMENTATIONS[name]


def _shape(images: Any) -> tuple[Any, int, int, int]:
    """How many images, and their height, width and channels, which the graph knows."""
    _, height, width, channels = images.shape
    return tf.shape(images)[0], height, width, channels


def _uniform(seed: Any, use: int, n: Any) -> Any:
    """A number from -1 to 1 for each image; ``use`` tells several apart."""
    own = seed + tf.constant([use, 0], seed.dtype)
    return tf.random.stateless_uniform((n,), own, -1.0, 1.0)


def _matrices(angles: Any, down: Any, right: Any) -> Any:
    """Turn by ``angles`` about the first pixel, then move by ``down`` and ``right`` pixels.

    Returns:
        The eight numbers by which TensorFlow says where pixels come from, (n, 8).
    """
    cosine, sine, zero = tf.cos(angles), tf.sin(angles), tf.zeros_like(angles)
    return tf.stack([cosine, -sine, -right, sine, cosine, -down, zero, zero], axis=1)


def _transformed(images: Any, matrices: Any) -> Any:
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=matrices,
        output_shape=tf.shape(images)[1:3],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )
