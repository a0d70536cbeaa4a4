"""Loading a study file in a process of its own, to see what it declares: nothing is written.

The process is ``python -m tuner.look EVENT_FD STUDY_FILE [FUNCTION MODEL_FILE]``; it answers with
one line of JSON: what the file declares, or what its function says of a model file.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tuner.cache import Kept
from tuner.errors import TunerError, UsageError
from tuner.log import quiet_libraries
from tuner.study import Snapshot, load
from tuner.wording import last_words


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
    answer = _ask(study_file, [], variables)
    return Look(
        Snapshot.from_json(answer["snapshot"]), [Kept(**kept) for kept in answer["footprint"]]
    )


def measure(
    study_file: Path, function: str, model_file: Path, variables: Mapping[str, str]
) -> dict[str, float]:
    """What the study file's ``validate`` or ``test`` says of a model, in another process.

    Args:
        study_file: its path.
        function: its name.
        model_file: the model's path.
        variables: environment variables for that process.

    Raises:
        UsageError: the file is wrong, the function fails, or it ends its process.
    """
    answer = _ask(study_file, [function, str(model_file)], variables)
    return dict(answer["measured"])


def _ask(study_file: Path, more: list[str], variables: Mapping[str, str]) -> dict[str, Any]:
    read_end, write_end = os.pipe()
    # -B: not even compiled Python is left behind.
    command = [sys.executable, "-B", "-m", "tuner.look", str(write_end), str(study_file), *more]
    with tempfile.TemporaryFile() as written, os.fdopen(read_end, encoding="utf-8") as answers:
        process = subprocess.Popen(  # noqa: S603 - our own module
            command,
            stdin=subprocess.PIPE,  # its end of file tells the process that we died
            stdout=written,
            stderr=subprocess.STDOUT,
            pass_fds=(write_end,),
            process_group=0,
            env={"TF_CPP_MIN_LOG_LEVEL": "2", **os.environ, **_unwritten_keras(), **variables},
        )
        os.close(write_end)
        try:
            answer = json.loads(answers.readline() or "null")
            if answer is None:
                process.wait()
        finally:
            _end(process)  # with all that it started
        written.seek(0)
        output = written.read().decode(errors="replace").splitlines()
    if answer is None:
        code = process.returncode
        end = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        when = f"in {more[0]}()" if more else "while it was loaded"
        raise UsageError(
            f"The study file {study_file} ended its process {when} ({end}); it "
            f"wrote: {last_words(output)}. Mend it and run again."
        )
    if "error" in answer:
        raise UsageError(answer["error"])
    return dict(answer)


def _end(process: "subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def _unwritten_keras() -> dict[str, str]:
    """Where it has no settings file yet, Keras writes one as it is imported; here it cannot."""
    home = os.environ.get("KERAS_HOME") or os.path.join(os.path.expanduser("~"), ".keras")  # noqa: PTH111, PTH118
    return {} if Path(home, "keras.json").exists() else {"KERAS_HOME": f"{os.devnull}/keras"}


def main(answer_fd: int, study_file: Path, function: str = "", model_file: str = "") -> None:
    """Load the study file of this process, and answer."""
    lifeline = os.dup(0)
    with open(os.devnull) as nothing:  # noqa: PTH123 - the study's code must not read our pipe
        os.dup2(nothing.fileno(), 0)
    threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()
    quiet_libraries()
    try:
        definition = load(study_file)
        answer: dict[str, object] = {}
        if function:
            answer = {"measured": definition.measure(function, Path(model_file))}
        else:
            answer = {
                "snapshot": definition.snapshot.to_json(),
                "footprint": [asdict(kept) for kept in definition.footprint()],
            }
    except TunerError as error:
        answer = {"error": str(error)}
    with os.fdopen(answer_fd, "w", encoding="utf-8") as answers:
        answers.write(json.dumps(answer) + "\n")


def _end_with(lifeline: int) -> None:
    """End this process, and all that the study has started, when its parent has ended."""
    os.read(lifeline, 1)
    os.killpg(os.getpgrp(), signal.SIGKILL)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
    sys.stdout.flush()
    os._exit(0)  # TensorFlow's threads make an ordinary exit slow
