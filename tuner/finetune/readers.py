"""Images of your own, read from where people keep them: NumPy files, IDX files, folders, Keras.

Each function reads one part: what a search trains on and validates with (`tuner.finetune.Images`
divides it), or the test images, which only a confirmation opens. They give arrays that are images
and labels, or a sentence that says why not.
"""

import concurrent.futures
import contextlib
import functools
import gzip
import logging
import math
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import PIL.Image
import PIL.ImageOps

from tuner import cache, interrupt, wording
from tuner.errors import UsageError
from tuner.finetune import device
from tuner.finetune.checks import Array, as_images, check_shape_of_labels
from tuner.log import one_time_work
from tuner.machine import memory_bytes

logger = logging.getLogger("tuner.finetune")

NPZ_NAMES = {
    "train": (("images", "labels"), ("x_train", "y_train"), ("x", "y")),
    "test": (("x_test", "y_test"),),
}
"""What arrays of images and labels are called in a file, for each part; the first pair counts. A
test file of its own has the names of the first: it is no part."""

IDX_PREFIX = {"train": "train", "test": "t10k"}
"""How MNIST's own files of a part begin."""
IDX_UBYTE = 0x08
"""The only kind of number that pictures are kept in."""

PICTURE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""Files that are pictures; others in a class's folder are left alone."""

_UNREADABLE = (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error,
               struct.error)  # fmt: skip
"""What a damaged, foreign, encrypted or forbidden file raises (NotImplementedError is one)."""

KERAS_DATASETS = ("cifar10", "cifar100", "fashion_mnist", "mnist")

PIECE_PICTURES = 256
"""Pictures that are read between two looks at Ctrl-C."""

MEMORY_SHARE = 0.25
"""Pictures that take more of the memory would leave too little for workers."""


def read_npz(path: str | Path, part: str = "train") -> tuple[Array, Array]:
    """Read images and labels from a file of `numpy.savez`.

    Args:
        path: of the file. The arrays are ``images`` and ``labels``, ``x`` and ``y``, or as in
            Keras's own files ``x_train`` and ``y_train``.
        part: ``"train"``, or ``"test"``: ``x_test`` and ``y_test`` of such a file. A file of test
            images alone is read without it.

    Returns:
        Images uint8 (n, height, width, channels) and labels int32 (n,).

    Raises:
        UsageError: the file cannot be read, has other arrays, or they cannot be used.
    """
    path, names = Path(path), _known(part, NPZ_NAMES)
    with _readable(path, f"make it by numpy.savez({path.name!r}, images=..., labels=...)"):
        path = path.expanduser()
        with path.open("rb") as opened:
            if not zipfile.is_zipfile(opened):
                raise ValueError("it is no .npz file, or is damaged")
        with np.load(path) as file:
            pair = next((pair for pair in names if set(pair) <= set(file)), None)
            if pair is None:
                raise UsageError(
                    f"{path} has {_listed(file) or 'no arrays'}, and no {' and '.join(names[0])}: "
                    "save images and labels under these names."
                )
            images, labels = (_array_of(file, name, path) for name in pair)
    return _checked(images, labels, path.name)


def read_idx(folder: str | Path, part: str = "train") -> tuple[Array, Array]:
    """Read images and labels in the format of MNIST's own files, gzipped or not.

    Args:
        folder: with ``train-images-idx3-ubyte`` and ``train-labels-idx1-ubyte``, or the same with
            ``t10k``; MNIST, Fashion-MNIST and KMNIST come so.
            http://yann.lecun.com/exdb/mnist/ tells the format.
        part: ``"train"`` or ``"test"``.

    Returns:
        Images uint8 (n, height, width, channels) and labels int32 (n,).

    Raises:
        UsageError: a file is missing, truncated or of another kind, or the images cannot be used.
    """
    folder, prefix = _folder(folder), _known(part, IDX_PREFIX)
    images, labels = (
        _read_idx_file(_idx_file(folder, prefix, what)) for what in ("images", "labels")
    )
    return _checked(images, labels, folder.name)


def read_directory(
    folder: str | Path,
    *,
    size: tuple[int, int] | None = None,
    classes: Sequence[str] | None = None,
    channels: int | None = None,
) -> tuple[Array, Array]:
    """Read pictures from a folder that has a subfolder for each class.

    Pictures are grey if all are, else in colour; what is transparent is white. Turned pictures are
    turned back as their EXIF data say.

    Args:
        folder: with a subfolder for each class.
        size: height and width in pixels: what is longer of a picture is cut off evenly, and the
            rest scaled. Without it all pictures must have one size.
        classes: the classes' folders in the order of their numbers; without it all folders by name.
            For test pictures, those of the training pictures, in case that a class has none.
        channels: 1 for grey, 3 for colour, whatever the pictures are; None: grey if all are.

    Returns:
        Images uint8 (n, height, width, 1 or 3) and labels int32 (n,).

    Raises:
        UsageError: there are no pictures, one cannot be read, or they have several sizes.
        HandBack: somebody asked this process to stop.
    """
    _check_size(size)
    if channels not in {None, 1, 3}:
        raise UsageError(f"channels={channels!r} is neither 1 (grey) nor 3 (colour) nor None.")
    folder = _folder(folder)
    found = classes_of(folder)
    unknown = sorted(set(found) - set(classes or found))
    if unknown:
        raise UsageError(
            f"{folder} has a folder {unknown[0]!r}, which is none of the classes "
            f"{', '.join(classes or ())}: move it away."
        )
    files, labels = [], []
    for number, name in enumerate(classes or found):
        pictures = _pictures_in(folder / name)
        if not pictures and classes is None:
            raise UsageError(
                f"{folder / name} has no pictures ({', '.join(PICTURE_SUFFIXES)}): each folder of "
                f"{folder} is a class; fill it or move it away."
            )
        files += pictures
        labels += [number] * len(pictures)
    if not files:
        raise UsageError(f"{folder} has no pictures in the folders of its classes.")
    return _decoded(files, size, channels, folder), np.array(labels, dtype=np.int32)


def classes_of(folder: str | Path) -> tuple[str, ...]:
    """The names of a folder's classes: of its subfolders, sorted.

    Raises:
        UsageError: the folder is not there, or has no folder in it.
    """
    folder = _folder(folder)
    names = sorted(it.name for it in folder.iterdir() if it.is_dir() and it.name[0] != ".")
    if not names:
        raise UsageError(
            f"{folder} has no folders: make one for each class, named after it, and put the "
            "class's pictures into it."
        )
    return tuple(names)


def read_keras(name: str, part: str = "train") -> tuple[Array, Array]:
    """Read one of Keras's own data sets; it is fetched once and kept by Keras (``~/.keras``).

    Args:
        name: one of `KERAS_DATASETS`.
        part: ``"train"`` or ``"test"``.

    Returns:
        Images uint8 (n, height, width, channels) and labels int32 (n,).

    Raises:
        UsageError: Keras has no such images, or they cannot be fetched.
        HandBack: somebody asked this process to stop.
    """
    if name not in KERAS_DATASETS:
        raise UsageError(f"Keras has no images {name!r}; it has {', '.join(KERAS_DATASETS)}.")
    place = _known(part, {"train": 0, "test": 1})
    folder = cache.folder()
    with _readable(folder, "name another by --cache-dir"):
        folder.mkdir(parents=True, exist_ok=True)
    # Keras itself has no lock: two workers would unpack into one folder at once.
    with (
        _readable(folder, "name another by --cache-dir"),
        cache.locked(folder / f"keras-{name}", f"the images {name}"),
    ):
        try:
            parts = getattr(keras.datasets, name).load_data()
        except Exception as error:  # Keras raises a bare Exception where it cannot fetch
            raise UsageError(
                f"The images {name} are not on this machine and cannot be fetched "
                f"({_first_line(error)}). Without a network, put Keras's file into "
                "~/.keras/datasets by hand, or read a file of your own by Images.from_npz."
            ) from error
    images, labels = parts[place]
    return _checked(images, np.squeeze(labels), name)


def _checked(images: Any, labels: Any, name: str) -> tuple[Array, Array]:
    """Images with channels, and labels as int32 where they are whole numbers."""
    images = as_images(images, name)
    labels = np.asarray(labels)
    check_shape_of_labels(labels, len(images), name)
    return images, labels.astype(np.int32) if labels.dtype.kind in "iu" else labels


def _known(part: str, parts: dict[str, Any]) -> Any:
    if part not in parts:
        raise UsageError(f"part={part!r} is none of {', '.join(map(repr, parts))}.")
    return parts[part]


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0].strip() or type(error).__name__


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


def _folder(folder: str | Path) -> Path:
    path = Path(folder)
    with _readable(path, "give a folder that you may read"):
        path = path.expanduser()
        if path.is_dir():
            next(path.iterdir(), None)
    if not path.is_dir():
        there = "is a file" if path.exists() else "is not there"
        raise UsageError(
            f"The folder {path} {there} (looked for in {Path.cwd()}): give the folder of the "
            "images; Path(__file__).parent is that of the study file."
        )
    return path


@contextlib.contextmanager
def _readable(path: Path, remedy: str) -> Iterator[None]:
    """Reading a file: whatever is wrong with it is one sentence.

    Raises:
        UsageError: the file is missing, is not what it should be, or cannot be opened.
    """
    try:
        yield
    except FileNotFoundError:
        raise UsageError(
            f"{path} is not there (looked for in {Path.cwd()}): {remedy}, or give its whole path; "
            "Path(__file__).parent is the folder of the study file."
        ) from None
    except MemoryError:
        raise UsageError(f"{path} has more in it than this machine's memory: give less.") from None
    except _UNREADABLE as error:
        reason = (isinstance(error, OSError) and error.strerror) or _first_line(error)
        raise UsageError(f"{path} cannot be read ({reason}): {remedy}.") from error


def _array_of(file: Any, name: str, path: Path) -> Array:
    """An array of the file, which is asked for nothing but numbers."""
    try:
        array: Array = file[name]
    except ValueError as error:
        if "pickle" not in str(error):
            raise
        raise UsageError(
            f"The array {name} of {path} holds Python objects, which are not opened: save plain "
            "numbers. Images of several sizes make no array of these; scale or crop them before."
        ) from None
    return array


def _idx_file(folder: Path, prefix: str, what: str) -> Path:
    """The one file of a part's images or labels."""
    pattern = f"*{prefix}-{what}*ubyte*"
    found = sorted(folder.glob(pattern))
    names = ", ".join(path.name for path in found or sorted(folder.iterdir())[:8])
    if not found:
        raise UsageError(
            f"{folder} has no file {prefix}-{what}-idx{3 if what == 'images' else 1}-ubyte, with "
            f"or without .gz; it has {names or 'nothing'}. Put it there."
        )
    if len({path.name.removesuffix(".gz") for path in found}) > 1:
        raise UsageError(
            f"{folder} has several files of {what} ({names}): give a folder for each data set."
        )
    return found[0]


def _read_idx_file(path: Path) -> Array:
    """The array of an IDX file: two zeros, kind, number of axes, their lengths, the values."""
    with _readable(path, "fetch it again"):
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
        zeros, kind, n_axes = struct.unpack_from(">HBB", content)
        if zeros or kind != IDX_UBYTE:
            raise ValueError(f"it begins with {content[:4].hex()}, which no IDX file of bytes does")
        shape = struct.unpack_from(f">{n_axes}I", content, 4)
        values = np.frombuffer(content, np.uint8, offset=4 + 4 * n_axes)
        if len(values) != math.prod(shape):
            raise ValueError(f"it has {len(values):,} values and should have {shape}")
    return values.reshape(shape)


def _pictures_in(folder: Path) -> list[Path]:
    """Pictures of a class, by name, in folders below it, too."""
    if not folder.is_dir():
        return []
    with _readable(folder, "give folders that you may read"):
        files = [path for path in folder.rglob("*") if path.suffix.lower() in PICTURE_SUFFIXES]
        hidden = {
            path for path in files for part in path.relative_to(folder).parts if part[0] == "."
        }
        return sorted(path for path in files if path not in hidden and path.is_file())


def _check_size(size: Any) -> None:
    whole = isinstance(size, tuple | list) and all(isinstance(it, int) and it > 0 for it in size)
    if size is not None and not (whole and len(size) == 2):
        raise UsageError(f"size={size!r} is no height and width in pixels: write size=(64, 64).")


def _decoded(
    files: list[Path], size: tuple[int, int] | None, channels: int | None, folder: Path
) -> Array:
    """All pictures as one array, (n, height, width, 1 or 3)."""
    height, width, n_channels = _picture(files[0], size, channels).shape

    def room(n_channels: int) -> tuple[int, int, int, int]:
        needed = len(files) * height * width * n_channels
        if needed > memory_bytes() * MEMORY_SHARE:
            raise UsageError(
                f"The {len(files):,} pictures of {folder} at {height} x {width} take "
                f"{wording.size(needed)}, more than a quarter of this machine's memory: give a "
                "smaller size=(height, width)."
            )
        return len(files), height, width, n_channels

    images = np.empty(room(n_channels), np.uint8)
    with (
        one_time_work(logger, f"reading {len(files):,} pictures of {folder.name}") as tell,
        concurrent.futures.ThreadPoolExecutor(device.threads()) as pool,
    ):
        for start in range(0, len(files), PIECE_PICTURES):
            interrupt.check()
            piece = files[start : start + PIECE_PICTURES]
            pictures = list(
                pool.map(functools.partial(_picture, size=size, channels=channels), piece)
            )
            for path, picture in zip(piece, pictures, strict=True):
                if picture.shape[:2] != (height, width):
                    raise UsageError(
                        f"The pictures of {folder} have several sizes ({files[0].name} {height} x "
                        f"{width}, {path.name} {picture.shape[0]} x {picture.shape[1]}): give "
                        f"size=({height}, {width}), to which each is cut and scaled."
                    )
            if images.shape[3] == 1 and any(picture.shape[2] == 3 for picture in pictures):
                grey, images = images, np.empty(room(3), np.uint8)
                images[:] = grey  # in each of the three channels
                del grey
            for number, picture in enumerate(pictures, start):
                images[number] = picture
            tell((start + len(piece)) / len(files))
    return images


def _picture(path: Path, size: tuple[int, int] | None, channels: int | None = None) -> Array:
    """One picture, uint8 (height, width, 1 or 3)."""
    with _readable(path, "mend it or move it away"):
        try:
            with PIL.Image.open(path) as opened:
                picture = _plain(PIL.ImageOps.exif_transpose(opened))
        except PIL.UnidentifiedImageError:
            raise ValueError("it is no picture, whatever its name says") from None
        except (PIL.Image.DecompressionBombError, SyntaxError) as error:
            raise ValueError(_first_line(error)) from error
    if channels is not None:
        picture = picture.convert("L" if channels == 1 else "RGB")
    if size is not None:
        height, width = size
        picture = PIL.ImageOps.fit(picture, (width, height), PIL.Image.Resampling.BILINEAR)
    values = np.asarray(picture, np.uint8)
    return values if values.ndim == 3 else values[..., np.newaxis]


def _plain(picture: PIL.Image.Image) -> PIL.Image.Image:
    """The picture in grey or in red, green and blue, 8 bits each, on white."""
    if picture.mode.startswith("I;16"):
        return PIL.Image.fromarray((np.asarray(picture, np.uint32) // 257).astype(np.uint8))
    if picture.mode in {"I", "F"}:
        raise ValueError(f"its values are not of 8 or 16 bits (mode {picture.mode})")
    palette = picture.getpalette("RGB") if picture.mode == "P" else None
    grey = picture.mode in {"1", "L", "LA", "La"} or (
        palette is not None and palette[::3] == palette[1::3] == palette[2::3]
    )
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = PIL.Image.new("RGBA", picture.size, "white")
        picture = PIL.Image.alpha_composite(white, picture)
    return picture.convert("L" if grey else "RGB")
