"""The artifact store: a folder or a bucket for what is too large for the database.

::

    checkpoints/STUDY-ID/NUMBER.npz      the state of a trial that is not finished
                         NUMBER.*.tmp    one that is being written to a folder, or was when killed
    files/ID-UUID                        what a completed trial left: an Optuna artifact
    id                                   tells this store from another

A store that all hosts share lets a trial go on anywhere; without one it starts over on a host that
does not have its checkpoint. ``files`` is an Optuna artifact store, which ``tuner dashboard``
shows; the ID at the beginning of a name is the study's own, so that several databases can share the
store.
"""

import json
import re
import shutil
import uuid
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from tuner.stores import CHECKPOINTS, FILES, Checkpoint, FolderStore, Forgiving, Store, Stored

if TYPE_CHECKING:
    from optuna.artifacts._protocol import ArtifactStore

# The trained model among the files that a trial leaves.
MODEL_FILE = "model.keras"
# What it gets wrong on the validation images, see `tuner.report.mistakes`.
MISTAKES_FILE = "mistakes.json"

# As Optuna has them: its room of artifacts imports boto3, where that is installed, which makes
# every process start a fifth of a second later. A test compares.
ARTIFACTS_ATTR_PREFIX = "artifacts:"
MIME_TYPE = "application/octet-stream"

# What an id may be: it comes from a database that others may write, and becomes a file's name.
ARTIFACT_ID = re.compile(r"[0-9a-fA-F-]{1,200}")

BUCKET_SCHEME = "s3://"  # how the address of a bucket begins; any other is a folder

# The id of a file that a worker of ours stored: its study's own mark, and one for the file. Those
# of other programs are a UUID alone.
OUR_FILE = re.compile(r"[0-9a-f]{12}-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

# Longer names of studies are cut: a file system takes 255 bytes.
LONGEST_NAME = 80


def open_store(address: str) -> Store:
    """The store at an address; nothing is made or reached yet.

    Args:
        address: an absolute folder, or ``s3://BUCKET`` or ``s3://BUCKET/PREFIX``.

    Raises:
        StorageError: boto3 cannot be used as its variables say.
    """
    if not address.startswith(BUCKET_SCHEME):
        return FolderStore(Path(address))
    # Imported here: boto3 is only there where somebody wants a bucket.
    from tuner.s3 import S3Store  # noqa: PLC0415

    return S3Store(address)


def store_of(address: str) -> "ArtifactStore":
    """The Optuna artifact store of the files, by the ids that trials' attributes hold.

    Args:
        address: see `open_store`.
    """
    return open_store(address).files


class Artifacts:
    """The artifacts of one study.

    Args:
        where: the store, or its address, see `open_store`.
        study: the study's name, for people.
        uid: the study's own mark: another study of the same name has another one.
    """

    def __init__(self, where: str | Store, study: str, uid: str) -> None:
        self._store = open_store(where) if isinstance(where, str) else where
        name = re.sub(r"[^\w.-]+", "_", study)[:LONGEST_NAME]
        self._checkpoints = f"{CHECKPOINTS}/{name}-{uid}"
        self._uid = uid

    def checkpoint(self, number: int, scratch: Path) -> Checkpoint:
        """A trial's checkpoint; what its store cannot do is a warning.

        Args:
            number: the trial's.
            scratch: a folder for local files that goes with the trial.
        """
        return Forgiving(self._store.checkpoint(f"{self._checkpoints}/{number}.npz", scratch))

    def sweep_checkpoints(self, unfinished: Callable[[], set[int]]) -> None:
        """Remove checkpoints of trials that have ended: a killed worker leaves them.

        Args:
            unfinished: the numbers of the trials that have not, asked after the store was read, so
                that no trial begins and stores its checkpoint in between.

        Raises:
            OSError: one cannot be removed, or the store not be read.
        """
        there = self.checkpoints()
        if there:
            living = {str(number) for number in unfinished()}
            ended = [it.name for it in there if it.last.partition(".")[0] not in living]
            if failed := self._store.remove(ended):
                raise OSError(next(iter(failed.values())))
        self._store.tidy(self._checkpoints)

    def upload(self, folder: Path) -> dict[str, str]:
        """Store every file of a folder.

        The trial knows them once its system attributes are written, in the transaction that ends
        it: until then they belong to nobody, and `tuner gc` removes them when they are old.

        Returns:
            The system attributes by which Optuna and its dashboard find the files.

        Raises:
            OSError: a file cannot be stored; nothing is left of the others.
        """
        attrs: dict[str, str] = {}
        try:
            for path in sorted(it for it in folder.iterdir() if it.is_file()):
                artifact_id = f"{self._uid}-{uuid.uuid4()}"
                meta = {
                    "artifact_id": artifact_id,
                    "filename": path.name,
                    "mimetype": MIME_TYPE,
                    "encoding": None,
                }
                attrs[ARTIFACTS_ATTR_PREFIX + artifact_id] = json.dumps(meta)
                with path.open("rb") as content:
                    self._store.files.write(artifact_id, content)
        except OSError:
            self.discard(attrs)
            raise
        return attrs

    def discard(self, attrs: dict[str, str]) -> None:
        """Remove files that `upload` has just stored, as far as that can be done now."""
        self._store.remove(f"{FILES}/{name.removeprefix(ARTIFACTS_ATTR_PREFIX)}" for name in attrs)

    def files(self) -> list[Stored]:
        """What trials of the study have left here, named by a trial or not."""
        return self._store.find(f"{FILES}/{self._uid}-*")

    def checkpoints(self) -> list[Stored]:
        """The checkpoints that are here, and what was left of them."""
        return self._store.find(f"{self._checkpoints}/*")

    def identity(self) -> str | None:
        """What tells the store from another one, made if it has nothing yet, or None."""
        return self._store.identity()

    def fetch(self, system_attrs: dict[str, Any], name: str, to: Path) -> bool:
        """Copy a trial's file by its name to a path; False if it is not in this store.

        Args:
            system_attrs: the trial's.
            name: such as `MODEL_FILE`.
            to: the path.

        Raises:
            OSError: the store cannot be read, or the path not be written.
        """
        reader = self._open(system_attrs, name)
        if reader is None:
            return False
        with closing(reader), to.open("wb") as file:
            shutil.copyfileobj(reader, file)
        return True

    def _open(self, system_attrs: dict[str, Any], name: str) -> BinaryIO | None:
        from optuna.artifacts.exceptions import ArtifactNotFound  # noqa: PLC0415 - see `MIME_TYPE`

        for artifact_id, stored_name in named(system_attrs):
            if stored_name == name and ARTIFACT_ID.fullmatch(artifact_id):
                try:
                    return self._store.files.open_reader(artifact_id)
                except ArtifactNotFound:  # another host holds it, or `tuner gc` has removed it
                    continue
        return None


def named(system_attrs: dict[str, Any]) -> list[tuple[str, str]]:
    """The id and the name of each artifact that a trial's system attributes tell of."""
    found = []
    for key, text in system_attrs.items():
        meta = json.loads(text) if key.startswith(ARTIFACTS_ATTR_PREFIX) and text else None
        if isinstance(meta, dict):  # the dashboard writes null for one that was deleted there
            found.append((str(meta["artifact_id"]), str(meta["filename"])))
    return found
