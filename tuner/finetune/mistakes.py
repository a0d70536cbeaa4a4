"""What a trained model gets wrong, as a small file beside the model: confusions, worst images.

The file (`tuner.artifacts.MISTAKES_FILE`) is JSON that any study file may leave likewise; who reads
it is `tuner.report.mistakes`, where its fields are told.
"""

import base64
import dataclasses
import json
import logging
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tuner.finetune.compiled import VALIDATION_BATCH
from tuner.finetune.images import Images
from tuner.finetune.training import Inputs

logger = logging.getLogger("tuner.finetune")

WORST = 24
"""Images that are kept: as many as a page shows."""

PICTURE_PIXELS = 64
"""Larger pictures are scaled down until neither side is longer: 24 take 0.3 MB at most."""

MOST_CLASSES, CONFUSED_CLASSES = 50, 20
"""With more classes than the first, confusions are kept between so many of them: the most often
confused ones."""

LONGEST_NAME = 80
"""Letters of a class's name that are kept; longer ones would leave a figure no room."""

_compiled: weakref.WeakKeyDictionary[Inputs, Callable[..., Any]] = weakref.WeakKeyDictionary()
"""What answers for all validation images, compiled once: its memory never comes back."""

_failed: list[bool] = []
"""Not empty once it was said that the file cannot be made."""


@dataclasses.dataclass(frozen=True, eq=False)
class Answers:
    """What a model says of the validation images.

    Attributes:
        labels: the true classes, (n,).
        said: the classes that it names, (n,).
        p_said: the probability that it gives to these, (n,).
        p_true: the probability that it gives to the true ones, (n,).
    """

    labels: npt.NDArray[Any]
    said: npt.NDArray[Any]
    p_said: npt.NDArray[Any]
    p_true: npt.NDArray[Any]


def save(reads: Inputs, images: Images, path: Path) -> None:
    """Write what the model gets wrong now; if that cannot be made, say so once.

    Args:
        reads: what the model validates with; its batch statistics are those of the last validation.
        images: the validation images as they are, in the same order.
        path: of the file.
    """
    try:
        content = describe(answers_of(reads), images.validation_images, class_names_of(images))
        path.write_text(json.dumps(content), encoding="utf-8")
    except Exception as error:  # noqa: BLE001 - the trial has ended well, and this is for people
        if not _failed:
            logger.warning(
                "what the model gets wrong cannot be kept as %s (%s: %s): the trial has its "
                "values, but no confusion matrix",
                path.name,
                type(error).__name__,
                str(error).partition("\n")[0],
            )
        _failed[:] = [True]
        path.unlink(missing_ok=True)


def answers_of(reads: Inputs) -> Answers:
    """Let the model answer for all validation images, with the weights that it has now.

    The same operations as in `tuner.finetune.compiled.compile_validation`, so that as many answers
    are wrong as that counts.
    """
    if reads not in _compiled:
        _compiled[reads] = _compile(reads.model, reads.validation_images)
    labels = np.asarray(reads.validation_labels)
    said, p_said, p_true = _compiled[reads](reads.validation_images, tf.constant(labels, tf.int32))
    return Answers(labels, said.numpy(), p_said.numpy(), p_true.numpy())


def _compile(model: Any, images: Any) -> Callable[..., Any]:
    """Compile ``(images, labels) -> said, p_said, p_true``; see `Answers`."""
    size = len(images)

    def answers(images: Any, labels: Any) -> Any:
        def body(start: Any, said: Any, p_said: Any, p_true: Any) -> Any:
            logits = model(images[start : start + VALIDATION_BATCH], training=False)
            named = tf.argmax(logits, 1, tf.int32)
            true = labels[start : start + VALIDATION_BATCH]
            shares = tf.nn.softmax(tf.cast(logits, tf.float32))
            place = start // VALIDATION_BATCH
            return (
                start + VALIDATION_BATCH,
                said.write(place, named),
                p_said.write(place, tf.gather(shares, named, axis=1, batch_dims=1)),
                p_true.write(place, tf.gather(shares, true, axis=1, batch_dims=1)),
            )

        batches = -(-size // VALIDATION_BATCH)
        arrays = [
            tf.TensorArray(kind, batches, infer_shape=False, element_shape=(None,))
            for kind in (tf.int32, tf.float32, tf.float32)
        ]
        found = tf.while_loop(lambda start, *_: start < size, body, (0, *arrays))
        return [array.concat() for array in found[1:]]

    signature = [tf.TensorSpec(images.shape, images.dtype), tf.TensorSpec((size,), tf.int32)]
    function = tf.function(answers, signature, autograph=False, jit_compile=False)
    compiled: Callable[..., Any] = function.get_concrete_function()
    return compiled


def class_names_of(images: Images) -> Sequence[str]:
    """What people call the classes: their names, or else their numbers."""
    names = images.class_names or [str(number) for number in range(images.n_classes)]
    return [name[:LONGEST_NAME] for name in names]


def describe(
    answers: Answers, pictures: npt.NDArray[np.uint8], class_names: Sequence[str]
) -> dict[str, Any]:
    """The content of the file, as JSON's kinds.

    Args:
        answers: of the model.
        pictures: the validation images, (n, height, width, channels).
        class_names: what people call the classes, (n_classes,).
    """
    wrong = np.flatnonzero(answers.said != answers.labels)
    # The surest first; of equally sure ones those that think least of the truth.
    worst = wrong[np.lexsort((wrong, answers.p_true[wrong], -answers.p_said[wrong]))][:WORST]
    kept = _kept_classes(answers, wrong, len(class_names))
    return {
        "images": len(answers.labels),
        "wrong": len(wrong),
        "n_classes": len(class_names),
        "classes": [class_names[it] for it in kept],
        "confusion": _confusion(answers, kept).tolist(),
        "worst": [
            {
                "index": int(it),
                "true": class_names[answers.labels[it]],
                "said": class_names[answers.said[it]],
                "p_said": _probability(answers.p_said[it]),
                "p_true": _probability(answers.p_true[it]),
                "png": base64.b64encode(_png(pictures[it])).decode(),
            }
            for it in worst
        ],
    }


def _kept_classes(answers: Answers, wrong: npt.NDArray[Any], n_classes: int) -> npt.NDArray[Any]:
    """The classes between which confusions are kept, rising."""
    if n_classes <= MOST_CLASSES:
        return np.arange(n_classes)
    mistakes = sum(
        np.bincount(side[wrong], minlength=n_classes) for side in (answers.labels, answers.said)
    )
    return np.sort(np.argsort(-mistakes, kind="stable")[:CONFUSED_CLASSES])


def _confusion(answers: Answers, kept: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """How often which class (row) is taken for which (column): ``(len(kept), len(kept))``."""
    count = len(kept)
    rows, columns = (np.searchsorted(kept, side) for side in (answers.labels, answers.said))
    inside = np.isin(answers.labels, kept) & np.isin(answers.said, kept)
    cells = np.bincount(rows[inside] * count + columns[inside], minlength=count * count)
    return cells.reshape(count, count)


def _probability(value: Any) -> float:
    return float(f"{np.nan_to_num(value):.6g}")


def _png(picture: npt.NDArray[np.uint8]) -> bytes:
    """A picture (height, width, channels) as PNG, scaled down if it is large."""
    if picture.shape[-1] not in {1, 3, 4}:  # PNG has no such picture: the mean, in grey
        picture = picture.mean(axis=-1, keepdims=True).astype(np.uint8)
    longest = max(picture.shape[:2])
    if longest > PICTURE_PIXELS:
        sides = [max(1, round(side * PICTURE_PIXELS / longest)) for side in picture.shape[:2]]
        small = tf.image.resize(picture, sides, method="area")
        picture = np.clip(np.rint(small), 0, 255).astype(np.uint8)
    png: bytes = tf.io.encode_png(picture).numpy()
    return png
