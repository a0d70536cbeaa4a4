"""What an artifact store does: the same few things, in a folder (here) or a bucket (`tuner.s3`).

Names are told from the store's root, with slashes, see `tuner.artifacts`. What a store cannot do,
because its disk is full or its server is away, is an `OSError` in both.
"""

import contextlib
import logging
import os
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

from tuner import cache
from tuner.errors import TunerError

if TYPE_CHECKING:
    from optuna.artifacts._protocol import ArtifactStore

# What the names begin with of the files that trials leave (an Optuna artifact store), and of
# checkpoints.
FILES, CHECKPOINTS = "files", "checkpoints"

# A checkpoint that could not be saved is not tried again for so long, in seconds.
AGAIN_SECONDS = 10.0
# The name of the file that tells one store from another.
IDENTITY = "id"

logger = logging.getLogger(__name__)


def new_identity() -> str:
    """For a store that has none yet."""
    return secrets.token_hex(6)


@dataclass(frozen=True)
class Stored:
    """Something in a store.

    Attributes:
        name: from the store's root.
        size: in bytes.
        age: seconds since it was written, by the store's clock as far as it tells it.
    """

    name: str
    size: int
    age: float

    @property
    def last(self) -> str:
        """The last part of its name."""
        return self.name.rpartition("/")[2]


class Checkpoint(Protocol):
    """Where an objective keeps the state of one trial, to go on from it after an interruption."""

    def load(self) -> Path:
        """A file with what was saved last, to be read at once.

        Raises:
            FileNotFoundError: nothing was saved.
            OSError: it cannot be read.
        """

    def save(self, write: Callable[[Path], None]) -> None:
        """Keep what ``write`` writes to the path that it is given, in place of what was there.

        Raises:
            OSError: it cannot be kept; what was there before still is.
        """

    def discard(self) -> None:
        """Remove what was saved, as far as that can be done now; a sweep tries again."""


class Store(Protocol):
    """A store of files by name.

    Attributes:
        address: as in the settings.
    """

    address: str

    @property
    def files(self) -> "ArtifactStore":
        """Optuna's own artifact store of what is below `FILES`."""

    def check(self) -> None:
        """Do nothing if the store can be used, or made.

        Raises:
            StorageError: it cannot be reached, or refuses us.
        """

    def is_there(self) -> bool:
        """Whether it is there and can be read, so that it doesn't look empty when it is not.

        Raises:
            TunerError: it is there, and cannot be read.
        """

    def find(self, pattern: str) -> list[Stored]:
        """What is there, by name.

        Args:
            pattern: of a name; a ``*`` stands for any part of it without a slash.

        Raises:
            OSError: that cannot be told.
        """

    def remove(self, names: Iterable[str]) -> dict[str, str]:
        """Remove files, if they are there; returns those that could not be removed, and why."""

    def tidy(self, folder: str) -> None:
        """Remove a folder, if it is empty."""

    def checkpoint(self, name: str, scratch: Path) -> Checkpoint:
        """A checkpoint under a name.

        Args:
            name: of its file.
            scratch: a folder for a local copy; it goes with the trial.
        """

    def identity(self) -> str | None:
        """The store's own mark, made if it has none; None if it can have none."""


class Forgiving:
    """A checkpoint whose store may fail: that is a warning, and doesn't cost the trial.

    Args:
        kept: the checkpoint itself.
    """

    def __init__(self, kept: Checkpoint) -> None:
        self._kept = kept
        self._failed: float | None = None  # when saving did last, by time.monotonic

    def __str__(self) -> str:
        return str(self._kept)

    def load(self) -> Path:
        """A file with what was saved last, to be read at once.

        Raises:
            FileNotFoundError: nothing was saved; or it cannot be read, which is a warning.
        """
        try:
            return self._kept.load()
        except FileNotFoundError:
            raise
        except NotADirectoryError as error:
            raise FileNotFoundError(str(error)) from error
        except OSError as error:  # it may be good, and its server be away
            reason = error.strerror or error
            logger.warning(
                "the checkpoint %s cannot be read (%s): the trial starts over", self, reason
            )
            raise FileNotFoundError(str(error)) from error

    def save(self, write: Callable[[Path], None]) -> None:
        """Keep what ``write`` writes to the path that it is given, as far as that can be done.

        The first failure is a warning. Right after one nothing is tried: who waits for a server
        that does not answer, twice, would be late to hand its trial back.
        """
        if self._failed is not None and time.monotonic() - self._failed < AGAIN_SECONDS:
            return
        try:
            self._kept.save(write)
        except OSError as error:
            if self._failed is None:
                logger.warning(
                    "the checkpoint %s cannot be written (%s): if this trial is interrupted, it "
                    "starts over or goes on from an earlier one",
                    self,
                    error.strerror or error,
                )
            self._failed = time.monotonic()

    def discard(self) -> None:
        """See `Checkpoint.discard`."""
        self._kept.discard()


class FolderStore:
    """A store that is a folder, made when something is stored."""

    def __init__(self, root: Path) -> None:
        self.address = str(root)
        self._root = root

    @cached_property
    def files(self) -> "ArtifactStore":
        """See `Store.files`."""
        return _FolderOfFiles(self._root / FILES)

    def check(self) -> None:
        """Whether it can be written shows when it is, and costs no trial."""

    def is_there(self) -> bool:
        """Whether the folder is."""
        for folder in (self._root, self._root / FILES, self._root / CHECKPOINTS):
            try:
                with os.scandir(folder):
                    pass
            except FileNotFoundError:
                if folder == self._root:
                    return False
            except OSError as error:
                raise TunerError(
                    f"{folder} cannot be read ({error.strerror}), so nothing was removed; check "
                    "its permissions and run again."
                ) from error
        return True

    def find(self, pattern: str) -> list[Stored]:
        """See `Store.find`."""
        found, now = [], time.time()
        for path in sorted(self._root.glob(pattern)):
            name = path.relative_to(self._root).as_posix()
            try:
                stat = path.stat()
            except OSError:  # it has just gone, or is none of our business: it counts as new
                found.append(Stored(name, 0, 0.0))
            else:
                found.append(Stored(name, stat.st_size, now - stat.st_mtime))
        return found

    def remove(self, names: Iterable[str]) -> dict[str, str]:
        """See `Store.remove`."""
        failed = {}
        for name in names:
            try:
                (self._root / name).unlink(missing_ok=True)
            except OSError as error:
                failed[name] = error.strerror or str(error)
        return failed

    def tidy(self, folder: str) -> None:
        """See `Store.tidy`."""
        with contextlib.suppress(OSError):  # it is not there, or not empty
            (self._root / folder).rmdir()

    def checkpoint(self, name: str, scratch: Path) -> Checkpoint:  # noqa: ARG002 - see `Store`
        """See `Store.checkpoint`; it is read and written in place."""
        return FileCheckpoint(self._root / name)

    def identity(self) -> str | None:
        """See `Store.identity`; a full or read-only disk, or one without links, lets it have none.

        The file gets its name by a link: of two hosts that make it at once, one is refused, and
        neither ever reads half of it.
        """
        path, fresh = self._root / IDENTITY, new_identity()
        with contextlib.suppress(OSError):
            if not path.exists():
                self._root.mkdir(parents=True, exist_ok=True)
                temporary = path.with_suffix(f".{fresh}.tmp")
                try:
                    temporary.write_text(fresh)
                    path.hardlink_to(temporary)
                finally:
                    temporary.unlink(missing_ok=True)
        with contextlib.suppress(OSError, UnicodeDecodeError):
            return path.read_text().strip() or None
        return None


class _FolderOfFiles:
    """Optuna's store, whose folder is made when something is written."""

    def __init__(self, folder: Path) -> None:
        # Imported here: it imports boto3, where that is installed, and few processes need it.
        from optuna.artifacts import FileSystemArtifactStore  # noqa: PLC0415

        self._folder, self._store = folder, FileSystemArtifactStore(folder)

    def open_reader(self, artifact_id: str) -> BinaryIO:
        return self._store.open_reader(artifact_id)

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._store.write(artifact_id, content_body)

    def remove(self, artifact_id: str) -> None:
        self._store.remove(artifact_id)


class FileCheckpoint:
    """A checkpoint that is a file in a folder, which is made when it is needed."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __str__(self) -> str:
        return str(self._path)

    def load(self) -> Path:
        """See `Checkpoint.load`."""
        self._path.stat()
        return self._path

    def save(self, write: Callable[[Path], None]) -> None:
        """See `Checkpoint.save`: a temporary file beside it, which then gets its name."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        cache.write(self._path, write)

    def discard(self) -> None:
        """See `Checkpoint.discard`; what a killed writer has left beside it goes, too."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)
            for path in self._path.parent.glob(f"{self._path.stem}.*.tmp"):
                path.unlink(missing_ok=True)
