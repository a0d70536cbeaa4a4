"""The artifact store: a folder for what is too large for the database.

::

    ROOT/checkpoints/STUDY-ID/NUMBER.npz      the state of a trial that is not finished
                              NUMBER.*.tmp    one that is being written, or was when it was killed
    ROOT/files/ID-UUID                        what a completed trial left: an Optuna artifact

A folder that all hosts share lets a trial go on anywhere; without one it starts over on a host that
does not have its checkpoint. ``ROOT/files`` is an Optuna artifact store of files, which
``optuna-dashboard --artifact-dir`` shows; the ID at the beginning of a name is the study's own, so
that several databases can share the folder.
"""

import contextlib
import json
import re
import uuid
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from optuna.artifacts import FileSystemArtifactStore
from optuna.artifacts._upload import ARTIFACTS_ATTR_PREFIX, DEFAULT_MIME_TYPE, ArtifactMeta

# The trained model among the files that a trial leaves.
MODEL_FILE = "model.keras"

FILES, CHECKPOINTS = "files", "checkpoints"  # folders of the store

# Longer names of studies are cut: a file system takes 255 bytes.
LONGEST_NAME = 80


class Artifacts:
    """The artifacts of one study.

    Args:
        root: the folder; it is made when something is stored.
        study: the study's name, for people.
        uid: the study's own mark: another study of the same name has another one.
    """

    def __init__(self, root: Path, study: str, uid: str) -> None:
        name = re.sub(r"[^\w.-]+", "_", study)[:LONGEST_NAME]
        self._checkpoints = root / CHECKPOINTS / f"{name}-{uid}"
        self._files = root / FILES
        self._store = FileSystemArtifactStore(self._files)
        self._uid = uid

    def checkpoint(self, number: int) -> Path:
        """The file of a trial's checkpoint."""
        return self._checkpoints / f"{number}.npz"

    def discard_checkpoint(self, number: int) -> None:
        """Remove the checkpoint of a trial that has ended, if there is one and it can be."""
        with contextlib.suppress(OSError):  # the next sweep tries again, and says so
            for path in self._checkpoints.glob(f"{number}.*"):
                path.unlink(missing_ok=True)

    def sweep_checkpoints(self, unfinished: Callable[[], set[int]]) -> None:
        """Remove checkpoints of trials that have ended: a killed worker leaves them.

        Args:
            unfinished: the numbers of the trials that have not, asked after the folder was read, so
                that no trial begins and stores its checkpoint in between.
        """
        there = list(self._checkpoints.glob("*"))
        if there:
            living = unfinished()
            for path in there:
                number = path.name.partition(".")[0]
                if not (number.isdigit() and int(number) in living):
                    path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # it is not there, or not empty
            self._checkpoints.rmdir()

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
                meta = ArtifactMeta(
                    f"{self._uid}-{uuid.uuid4()}", path.name, DEFAULT_MIME_TYPE, None
                )
                attrs[ARTIFACTS_ATTR_PREFIX + meta.artifact_id] = json.dumps(asdict(meta))
                self._files.mkdir(parents=True, exist_ok=True)
                with path.open("rb") as content:
                    self._store.write(meta.artifact_id, content)
        except OSError:
            self.discard(attrs)
            raise
        return attrs

    def discard(self, attrs: dict[str, str]) -> None:
        """Remove files that `upload` has just stored, as far as they are there."""
        for name in attrs:
            with contextlib.suppress(OSError):
                self.path_of(name.removeprefix(ARTIFACTS_ATTR_PREFIX)).unlink()

    def files(self) -> list[Path]:
        """What trials of the study have left here, named by a trial or not."""
        return sorted(self._files.glob(f"{self._uid}-*"))

    def checkpoints(self) -> list[Path]:
        """The checkpoints that are here, and what was left of them."""
        return sorted(self._checkpoints.glob("*"))

    @staticmethod
    def all_files(root: Path) -> list[Path]:
        """What trials of any study have left in a store."""
        return sorted((root / FILES).glob("*"))

    @staticmethod
    def all_checkpoints(root: Path) -> list[Path]:
        """The checkpoints of all studies in a store."""
        return sorted((root / CHECKPOINTS).glob("*/*"))

    def path_of(self, artifact_id: str) -> Path:
        """Where an artifact is, which another host may hold or `tuner gc` have removed."""
        return self._files / artifact_id

    def find(self, system_attrs: dict[str, str], name: str) -> Path | None:
        """A file of a trial by its name, or None if it is not in this store.

        Args:
            system_attrs: the trial's.
            name: such as `MODEL_FILE`.
        """
        for artifact_id, stored_name in named(system_attrs):
            path = self.path_of(artifact_id)
            if stored_name == name and path.is_file():
                return path
        return None


def named(system_attrs: dict[str, str]) -> list[tuple[str, str]]:
    """The id and the name of each artifact that a trial's system attributes tell of."""
    found = []
    for key, text in system_attrs.items():
        meta = json.loads(text) if key.startswith(ARTIFACTS_ATTR_PREFIX) and text else None
        if isinstance(meta, dict):  # the dashboard writes null for one that was deleted there
            found.append((str(meta["artifact_id"]), str(meta["filename"])))
    return found
