"""What the best trial's model gets wrong, from the file that the trial left.

The file (`tuner.artifacts.MISTAKES_FILE`) is one JSON object that any study file may leave in
``trial.outputs``::

    {"images": 10000, "wrong": 66, "n_classes": 10,
     "classes": ["0", "1", ...],               of the confusions; with many classes not all
     "confusion": [[980, 0, ...], ...],        rows: the true class; columns: what was said
     "worst": [{"index": 4711, "true": "4", "said": "9", "p_said": 0.98, "p_true": 0.01,
                "png": "iVBORw0..."}, ...]}    base64

It comes from a store that others may write, so nothing in it is believed before it is checked.
"""

import base64
import binascii
import json
import math
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

# Bounds of what is read: of the file, of the classes in it and their names, of the worst images.
MOST_BYTES = 4_000_000
MOST_CLASSES, LONGEST_NAME = 50, 80
MOST_WORST, MOST_PNG_BYTES, MOST_PIXELS = 24, 100_000, 512
_MOST_IMAGES = 2**53  # a greater whole number is none in JSON
_PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"


class BadMistakes(Exception):  # noqa: N818 - an answer: the page says it in the figure's place
    """The file cannot be used; the message says why."""


@dataclass(frozen=True)
class Mistake:
    """One validation image that the model gets wrong.

    Attributes:
        index: of the image among the validation images.
        true: its class.
        said: what the model takes it for.
        p_said, p_true: the probabilities that the model gives to the two, 0 to 1.
        png: the picture.
    """

    index: int
    true: str
    said: str
    p_said: float
    p_true: float
    png: bytes

    @property
    def uri(self) -> str:
        """The picture as a data URI."""
        return f"data:image/png;base64,{base64.b64encode(self.png).decode()}"


@dataclass(frozen=True, eq=False)
class Mistakes:
    """What a model gets wrong on the validation images.

    Attributes:
        images: how many there are.
        wrong: how many of them it gets wrong.
        n_classes: how many classes there are.
        classes: those of the confusions.
        confusion: how often which (row) is taken for which (column), (n, n) for n ``classes``.
        worst: the images at which it was surest of a wrong class, the surest first.
    """

    images: int
    wrong: int
    n_classes: int
    classes: list[str]
    confusion: npt.NDArray[np.int64]
    worst: list[Mistake]


def parsed(content: bytes) -> Mistakes:
    """Read the file.

    Raises:
        BadMistakes: it is damaged, or not such a file.
    """
    if len(content) > MOST_BYTES:
        raise BadMistakes(f"it has {len(content):,} bytes, more than {MOST_BYTES:,}")
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise BadMistakes("it is no JSON") from error
    try:
        return _mistakes(found)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        what = f"{error.args[0]} is missing" if isinstance(error, KeyError) else str(error)
        raise BadMistakes(what) from error


def _mistakes(found: Any) -> Mistakes:
    images = _whole(found["images"], "images", 1)
    wrong = _whole(found["wrong"], "wrong", 0, images)
    classes = [_name(it) for it in _list(found["classes"], "classes", MOST_CLASSES)]
    if len(set(classes)) != len(classes) or not classes:
        raise ValueError("classes names none, or one twice")
    n_classes = _whole(found.get("n_classes", len(classes)), "n_classes", len(classes))
    rows = _list(found["confusion"], "confusion", len(classes))
    cells = [
        [_whole(it, "confusion", 0, images) for it in _list(row, "confusion", len(classes))]
        for row in rows
    ]
    if len(cells) != len(classes) or any(len(row) != len(classes) for row in cells):
        raise ValueError(f"confusion is not {len(classes)} rows of as many counts")
    confusion = np.array(cells, dtype=np.int64)
    everything = n_classes == len(classes)
    counted, off = int(confusion.sum()), int(confusion.sum() - np.trace(confusion))
    if counted > images or off > wrong or (everything and (counted, off) != (images, wrong)):
        raise ValueError("confusion does not add up to images and wrong")
    worst = [_mistake(it) for it in _list(found["worst"], "worst", MOST_WORST, cut=True)]
    worst.sort(key=lambda it: -it.p_said)
    if len(worst) > wrong:
        raise ValueError("worst has more images than are wrong")
    return Mistakes(images, wrong, n_classes, classes, confusion, worst)


def _mistake(found: Any) -> Mistake:
    return Mistake(
        index=_whole(found["index"], "index", 0),
        true=_name(found["true"]),
        said=_name(found["said"]),
        p_said=_share(found["p_said"]),
        p_true=_share(found["p_true"]),
        png=_png(found["png"]),
    )


def _whole(value: Any, name: str, least: int, most: int = _MOST_IMAGES) -> int:
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"{name} has something that is no whole number from {least} on, or larger")
    return value


def _list(value: Any, name: str, most: int, *, cut: bool = False) -> list[Any]:
    if not isinstance(value, list) or (len(value) > most and not cut):
        raise ValueError(f"{name} is no list of at most {most}")
    return value[:most]


def _name(value: Any) -> str:
    """A class's name, in one line of bounded length."""
    if not isinstance(value, str):
        raise TypeError("a class's name is no text")
    return " ".join(value.split())[:LONGEST_NAME] or "(no name)"


def _share(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError("a probability is no number")
    if not (math.isfinite(value) and 0 <= value <= 1):
        raise ValueError("a probability is not from 0 to 1")
    return float(value)


def _png(text: Any) -> bytes:
    """A picture that no browser takes long to show."""
    if not isinstance(text, str) or len(text) > 4 * MOST_PNG_BYTES // 3 + 4:
        raise ValueError(f"a picture is no text, or has more than {MOST_PNG_BYTES:,} bytes")
    try:
        png = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError("a picture is no base64") from error
    if not png.startswith(_PNG) or len(png) < len(_PNG) + 8:
        raise ValueError("a picture is no PNG")
    sides = struct.unpack(">II", png[len(_PNG) : len(_PNG) + 8])
    if not all(1 <= side <= MOST_PIXELS for side in sides):
        raise ValueError(f"a picture is larger than {MOST_PIXELS} pixels")
    return png
