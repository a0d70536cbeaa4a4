"""The artifact store: a folder for what is too large for the database.

::

    ROOT/checkpoints/STUDY-ID/NUMBER.npz      the state of a trial that is not finished
                              NUMBER.*.tmp    one that is being written, or was when it was killed

A folder that all hosts share lets a trial go on anywhere; without one it starts over on a host that
does not have its checkpoint.
"""

import contextlib
import re
from collections.abc import Callable
from pathlib import Path

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
        self._checkpoints = root / "checkpoints" / f"{name}-{uid}"

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
