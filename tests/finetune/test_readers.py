"""Images of one's own in one line: what is read, and the sentence for what cannot be."""

import gzip
import pickle
import struct

import keras
import numpy as np
import PIL.Image
import pytest
from keras.src.datasets import cifar10

from tuner.errors import UsageError
from tuner.finetune import Images, read_directory, read_idx, read_keras, read_npz, readers

N = 20
PICTURES = np.random.default_rng(0).integers(0, 256, (N, 5, 4), dtype=np.uint8)
LABELS = np.arange(N) % 2


def idx(values):
    """The bytes of an IDX file."""
    header = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
    return header + values.astype(np.uint8).tobytes()


def write_idx(folder, prefix="train", images=PICTURES, labels=LABELS, *, packed=True):
    for what, values, n_axes in (("images", images, 3), ("labels", labels, 1)):
        name = folder / f"{prefix}-{what}-idx{n_axes}-ubyte"
        if packed:
            name.with_name(f"{name.name}.gz").write_bytes(gzip.compress(idx(values)))
        else:
            name.write_bytes(idx(values))


def write_pictures(folder, pictures=PICTURES, labels=LABELS, names=("cat", "dog"), suffix="png"):
    for number, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        place = folder / names[label]
        place.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(picture).save(place / f"{number:03}.{suffix}")


def all_of(divided):
    """Images and labels of both parts, in the order of the images' bytes."""
    images = np.concatenate([divided.train_images, divided.validation_images])
    labels = np.concatenate([divided.train_labels, divided.validation_labels])
    order = sorted(range(len(images)), key=lambda index: images[index].tobytes())
    return images[order], labels[order]


def expected():
    order = sorted(range(N), key=lambda index: PICTURES[index].tobytes())
    return PICTURES[order][..., np.newaxis], LABELS[order]


def test_the_same_images_come_from_every_kind_of_place(tmp_path):
    np.savez(tmp_path / "own.npz", images=PICTURES, labels=LABELS)
    (tmp_path / "idx").mkdir()
    write_idx(tmp_path / "idx")
    write_pictures(tmp_path / "folders")
    found = [
        Images.from_npz(tmp_path / "own.npz"),
        Images.from_idx(tmp_path / "idx"),
        Images.from_directory(tmp_path / "folders"),
    ]
    for divided in found:
        images, labels = all_of(divided)
        assert (images == expected()[0]).all()
        assert (labels == expected()[1]).all()
        assert (len(divided.train_labels), len(divided.validation_labels)) == (16, 4)
        assert divided.n_classes == 2
    assert found[0].content_hash == found[1].content_hash  # in the same order, too
    assert [divided.class_names for divided in found] == [(), (), ("cat", "dog")]


@pytest.mark.parametrize("names", [("x", "y"), ("x_train", "y_train")])
def test_keras_names_of_arrays_are_known(names, tmp_path):
    arrays = dict(zip(names, (PICTURES, LABELS), strict=True))
    np.savez(tmp_path / "own.npz", **arrays, x_test=PICTURES[:4], y_test=LABELS[:4])
    assert len(read_npz(tmp_path / "own.npz")[0]) == N
    images, labels = read_npz(tmp_path / "own.npz", "test")
    assert (images[..., 0] == PICTURES[:4]).all()
    assert labels.dtype == np.int32
    np.savez(tmp_path / "own.npz", **arrays)
    with pytest.raises(UsageError, match=r"has .*, and no x_test and y_test"):
        read_npz(tmp_path / "own.npz", "test")  # never the training images in their place


def test_the_test_part_is_another_file(tmp_path):
    write_idx(tmp_path, packed=False)
    write_idx(tmp_path, "t10k", PICTURES[:6], LABELS[:6])
    images, labels = read_idx(tmp_path, "test")
    assert (images == PICTURES[:6, ..., np.newaxis]).all()
    assert (labels == LABELS[:6]).all()
    assert len(read_idx(tmp_path)[0]) == N


def test_colour_is_kept_and_grey_joins_it(tmp_path):
    colours = np.random.default_rng(1).integers(0, 256, (N, 5, 4, 3), dtype=np.uint8)
    write_pictures(tmp_path, colours)
    images, _ = read_directory(tmp_path)
    assert sorted(map(bytes, images)) == sorted(map(bytes, colours))
    PIL.Image.fromarray(PICTURES[0]).save(tmp_path / "cat" / "000.png")  # the first one is grey
    images, labels = read_directory(tmp_path)
    assert images.shape == (N, 5, 4, 3)
    assert (images[0] == PICTURES[0][..., np.newaxis]).all()
    assert sorted(labels.tolist()) == sorted(LABELS.tolist())


@pytest.mark.parametrize(
    ("mode", "value", "shown"),
    [("RGBA", (10, 20, 30, 0), (255, 255, 255)), ("LA", (10, 0), (255,)), ("LA", (9, 255), (9,)),
     ("P", 0, (0,)), ("1", 1, (255,)), ("CMYK", (0, 0, 0, 0), (255, 255, 255)),
     ("I;16", 65_535, (255,)), ("I;16", 2_570, (10,))],
)  # fmt: skip
def test_every_kind_of_picture_is_grey_or_in_colour(mode, value, shown, tmp_path):
    suffix = "tif" if mode == "CMYK" else "png"
    PIL.Image.new(mode, (4, 5), value).save(tmp_path / f"it.{suffix}")
    picture = readers._picture(tmp_path / f"it.{suffix}", None)
    assert picture.shape == (5, 4, len(shown))
    assert picture[2, 2].tolist() == list(shown)


def test_pictures_are_turned_as_their_camera_says(tmp_path):
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # turned to the right
    PIL.Image.fromarray(PICTURES[0]).save(tmp_path / "it.jpg", exif=exif)
    assert readers._picture(tmp_path / "it.jpg", None).shape == (4, 5, 1)


def test_size_cuts_what_is_longer_and_scales_the_rest(tmp_path):
    wide = np.zeros((10, 40), np.uint8)
    wide[:, 12:28] = 200  # the square in the middle
    PIL.Image.fromarray(wide).save(tmp_path / "it.png")
    picture = readers._picture(tmp_path / "it.png", (5, 5))
    assert picture.shape == (5, 5, 1)
    assert (picture == 200).all()


def test_channels_may_be_told(tmp_path):
    colours = np.random.default_rng(1).integers(0, 256, (N, 5, 4, 3), dtype=np.uint8)
    write_pictures(tmp_path / "colour", colours)
    write_pictures(tmp_path / "grey")
    assert read_directory(tmp_path / "colour", channels=1)[0].shape == (N, 5, 4, 1)
    assert read_directory(tmp_path / "grey", channels=3)[0].shape == (N, 5, 4, 3)
    with pytest.raises(UsageError, match=r"channels=4 is neither 1 \(grey\) nor 3"):
        read_directory(tmp_path / "grey", channels=4)


def test_a_palette_of_greys_is_grey(tmp_path):
    picture = PIL.Image.new("P", (4, 5), 1)
    picture.putpalette([0, 0, 0, 7, 7, 7])
    picture.save(tmp_path / "it.png")
    assert (readers._picture(tmp_path / "it.png", None) == np.full((5, 4, 1), 7)).all()


@pytest.mark.parametrize("size", [64, (64,), (64.0, 64.0), (0, 5), "64"])
def test_a_size_that_is_none_is_refused(size, tmp_path):
    write_pictures(tmp_path)
    with pytest.raises(
        UsageError, match=r"is no height and width in pixels: write size=\(64, 64\)"
    ):
        read_directory(tmp_path, size=size)


def test_folders_below_a_class_belong_to_it_and_other_files_are_left_alone(tmp_path):
    write_pictures(tmp_path)
    (tmp_path / "cat" / "more").mkdir()
    (tmp_path / "cat" / "000.png").rename(tmp_path / "cat" / "more" / "a.PNG")
    (tmp_path / "cat" / "notes.txt").write_text("not a picture")
    (tmp_path / "cat" / "._002.png").write_bytes(b"left by another system")
    (tmp_path / ".git").mkdir()
    (tmp_path / "cat" / ".thumbnails").mkdir()
    PIL.Image.fromarray(PICTURES[0]).save(tmp_path / "cat" / ".thumbnails" / "a.png")
    assert len(read_directory(tmp_path)[0]) == N


def test_test_pictures_take_the_numbers_of_the_training_pictures(tmp_path):
    write_pictures(tmp_path / "test", labels=np.ones(N, int))
    _, labels = read_directory(tmp_path / "test", classes=("cat", "dog"))
    assert labels.tolist() == [1] * N
    with pytest.raises(UsageError, match="'dog', which is none of the classes cat, owl"):
        read_directory(tmp_path / "test", classes=("cat", "owl"))


def test_keras_own_images_are_read_by_its_loader(tmp_path, monkeypatch):
    # As Keras unpacks it; without a network only the fetching itself is replaced.
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    values = np.arange(10_000 * 3072, dtype=np.uint32).reshape(10_000, 3072) % 251
    content = {b"data": values.astype(np.uint8), b"labels": [it % 10 for it in range(10_000)]}
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        (folder / name).write_bytes(pickle.dumps(content))
    monkeypatch.setattr(cifar10, "get_file", lambda *_, **__: str(tmp_path))
    monkeypatch.setenv("TUNER_CACHE_DIR", str(tmp_path / "cache"))
    images, labels = read_keras("cifar10", "test")
    assert images.shape == (10_000, 32, 32, 3)
    assert labels.shape == (10_000,)
    assert labels[:11].tolist() == [*range(10), 0]


def test_keras_images_that_cannot_be_fetched_are_one_sentence(tmp_path, monkeypatch):
    def fetch():
        raise Exception(  # noqa: TRY002 - as Keras does
            "URL fetch failure on https://example.com: None -- no network"
        )

    monkeypatch.setattr(keras.datasets.cifar10, "load_data", fetch)
    monkeypatch.setenv("TUNER_CACHE_DIR", str(tmp_path / "cache"))
    with pytest.raises(UsageError, match=r"cifar10 are not on this machine .*no network.*by hand"):
        Images.from_keras("cifar10")
    with pytest.raises(UsageError, match="Keras has no images 'imagenet'; it has cifar10, "):
        Images.from_keras("imagenet")


def spoilt_npz(path, **arrays):
    np.savez(path / "own.npz", **arrays)
    return lambda: Images.from_npz(path / "own.npz")


def spoilt_text(path):
    (path / "own.npz").write_text("images, labels")
    return lambda: Images.from_npz(path / "own.npz")


def cut_npz(path):
    np.savez(path / "own.npz", images=PICTURES, labels=LABELS)
    content = (path / "own.npz").read_bytes()
    (path / "own.npz").write_bytes(content[: len(content) // 2])
    return lambda: Images.from_npz(path / "own.npz")


def several_sizes_in_one_array(path):
    ragged = np.array([PICTURES[0], PICTURES[1, :2]], dtype=object)
    return spoilt_npz(path, images=ragged, labels=LABELS[:2])


def cut_idx(path):
    write_idx(path, packed=False)
    file = path / "train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:-1])
    return lambda: Images.from_idx(path)


def not_packed(path):
    write_idx(path)
    (path / "train-labels-idx1-ubyte.gz").write_bytes(b"\x1f\x8b, but no more")
    return lambda: Images.from_idx(path)


def not_idx(path):
    write_idx(path, packed=False)
    (path / "train-labels-idx1-ubyte").write_bytes(b"0, 1, 0, 1")
    return lambda: Images.from_idx(path)


def no_idx_labels(path):
    write_idx(path, packed=False)
    (path / "train-labels-idx1-ubyte").unlink()
    return lambda: Images.from_idx(path)


def two_idx_sets(path):
    write_idx(path)
    write_idx(path, "emnist-train")
    return lambda: Images.from_idx(path)


def folders(path, *, spoil=lambda _: None, **pictures):
    write_pictures(path / "pets", **pictures)
    spoil(path / "pets")
    return lambda: Images.from_directory(path / "pets")


def broken_picture(folder):
    content = (folder / "dog" / "001.png").read_bytes()
    (folder / "dog" / "001.png").write_bytes(content[: len(content) // 2])


def no_picture(folder):
    (folder / "dog" / "001.png").write_text("<html>404</html>")


def another_size(folder):
    PIL.Image.fromarray(PICTURES[0, :3]).save(folder / "dog" / "001.png")


def empty_class(folder):
    (folder / "owl").mkdir()


def no_classes(path):
    PIL.Image.fromarray(PICTURES[0]).save(path / "001.png")
    return lambda: Images.from_directory(path)


MALFORMED = {
    "missing file": (
        lambda path: lambda: Images.from_npz(path / "own.npz"),
        r"own\.npz is not there \(looked for in ",
    ),
    "unreadable": (spoilt_text, r"own\.npz cannot be read \(it is no \.npz file, or is damaged\)"),
    "truncated": (cut_npz, r"own\.npz cannot be read \(it is no \.npz file, or is damaged\)"),
    "missing labels": (
        lambda path: spoilt_npz(path, images=PICTURES),
        r"own\.npz has images, and no images and labels: save",
    ),
    "wrong shape": (
        lambda path: spoilt_npz(path, images=PICTURES[0], labels=LABELS),
        r"images of own\.npz have the shape \(5, 4\)",
    ),
    "labels of another shape": (
        lambda path: spoilt_npz(path, images=PICTURES, labels=LABELS[:3]),
        r"own\.npz has 20 images, and labels of the shape \(3,\)",
    ),
    "NaN": (
        lambda path: spoilt_npz(
            path, images=np.where(np.arange(N)[:, None, None] < 18, PICTURES, np.nan), labels=LABELS
        ),
        r"2 of the 20 images of own\.npz have NaN in them, the first one being image 18",
    ),
    "a class that occurs once": (
        lambda path: folders(path, labels=(np.arange(N) == 4) * 1),
        r"Class 1 \(dog\) of pets has one image",
    ),
    "one class": (lambda path: folders(path, labels=LABELS * 0), "there is nothing to tell apart"),
    "empty": (
        lambda path: spoilt_npz(path, images=PICTURES[:0], labels=LABELS[:0]),
        r"shape \(0, 5, 4\)",
    ),
    "empty class": (
        lambda path: folders(path, spoil=empty_class),
        r"owl has no pictures \(\.bmp, .* fill it or move it away",
    ),
    "no classes": (no_classes, "has no folders: make one for each class"),
    "no folder": (
        lambda path: lambda: Images.from_directory(path / "pets"),
        r"The folder .*pets is not there \(looked for in",
    ),
    "mixed sizes in an array": (
        several_sizes_in_one_array,
        r"array images of .*own\.npz holds Python obj",
    ),
    "mixed sizes": (
        lambda path: folders(path, spoil=another_size),
        r"several sizes \(000\.png 5 x 4, 001\.png 3 x 4\): give size=\(5, 4\)",
    ),
    "unreadable picture": (
        lambda path: folders(path, spoil=broken_picture),
        r"001\.png cannot be read \(.*\): mend it or move it away",
    ),
    "no picture": (
        lambda path: folders(path, spoil=no_picture),
        r"001\.png cannot be read \(it is no picture, whatever its name says\)",
    ),
    "IDX truncated": (cut_idx, r"ubyte cannot be read \(it has 399 values and should have \(20, 5"),
    "IDX not packed": (not_packed, r"labels-idx1-ubyte\.gz cannot be read \("),
    "IDX of another kind": (not_idx, "begins with 302c2031, which no IDX file of bytes does"),
    "IDX without labels": (no_idx_labels, r"no file train-labels-idx1-ubyte, with or without"),
    "IDX twice": (two_idx_sets, "several files of images .*: give a folder for each data set"),
}


@pytest.mark.parametrize("kind", MALFORMED)
def test_malformed_images_are_one_clear_sentence(kind, tmp_path):
    spoil, words = MALFORMED[kind]
    read = spoil(tmp_path)
    with pytest.raises(UsageError, match=words) as raised:
        read()
    assert "\n" not in str(raised.value)
    assert str(raised.value).endswith(".")


def test_too_many_pictures_for_the_memory_are_refused_before_they_are_read(tmp_path, monkeypatch):
    write_pictures(tmp_path)
    monkeypatch.setattr(readers, "memory_bytes", lambda: 1000)
    with pytest.raises(UsageError, match=r"20 pictures .* at 5 x 4 take .* smaller size="):
        read_directory(tmp_path)


def test_an_unknown_part_is_refused(tmp_path):
    with pytest.raises(UsageError, match="part='tset' is none of 'train', 'test'"):
        read_idx(tmp_path, "tset")
