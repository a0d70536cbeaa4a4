"""Loading a study file in a process of its own, to see what it declares: nothing is written.

The process is ``python -m tuner.look EVENT_FD STUDY_FILE``; it answers with one line of JSON.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from tuner.cache import Kept
from tuner.errors import TunerError, UsageError
from tuner.log import quiet_libraries
from tuner.study import Snapshot, load


@dataclass(frozen=True)
class Look:
    """What a study file declares, and what it keeps on the disk."""

    snapshot: Snapshot
    footprint: list[Kept]


def look(study_file: Path, variables: Mapping[str, str]) -> Look:
    """Load a study file in another process.

    Args:
        study_file: its path.
        variables: environment variables for that process.

    Raises:
        UsageError: the file is wrong, or it ends its process.
    """
    read_end, write_end = os.pipe()
    # -B: not even compiled Python is left behind.
    command = [sys.executable, "-B", "-m", "tuner.look", str(write_end), str(study_file)]
    with subprocess.Popen(  # noqa: S603 - our own module
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        pass_fds=(write_end,),
        env={"TF_CPP_MIN_LOG_LEVEL": "2", **os.environ, **_unwritten_keras(), **variables},
        text=True,
        errors="replace",
    ) as process:
        os.close(write_end)
        output, _ = process.communicate()
    with os.fdopen(read_end, encoding="utf-8") as answers:
        answer = json.loads(answers.readline() or "null")
    if answer is None:
        code = process.returncode
        end = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        words = " | ".join(output.strip().splitlines()[-2:]) or "nothing"
        raise UsageError(
            f"The study file {study_file} ended its process while it was loaded ({end}); it "
            f"wrote: {words}. Mend it and run again."
        )
    if "error" in answer:
        raise UsageError(answer["error"])
    return Look(
        Snapshot.from_json(answer["snapshot"]), [Kept(**kept) for kept in answer["footprint"]]
    )


def _unwritten_keras() -> dict[str, str]:
    """Where it has no settings file yet, Keras writes one as it is imported; here it cannot."""
    home = os.environ.get("KERAS_HOME") or os.path.join(os.path.expanduser("~"), ".keras")  # noqa: PTH111, PTH118
    return {} if Path(home, "keras.json").exists() else {"KERAS_HOME": f"{os.devnull}/keras"}


def main(answer_fd: int, study_file: Path) -> None:
    """Load the study file of this process, and answer."""
    quiet_libraries()
    try:
        definition = load(study_file)
        answer: dict[str, object] = {
            "snapshot": definition.snapshot.to_json(),
            "footprint": [asdict(kept) for kept in definition.footprint()],
        }
    except TunerError as error:
        answer = {"error": str(error)}
    with os.fdopen(answer_fd, "w", encoding="utf-8") as answers:
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
    sys.stdout.flush()
    os._exit(0)  # TensorFlow's threads make an ordinary exit slow
