"""The error tree, and the exit code that each error gives a command.

::

    TunerError            1    the command ended before its target for another reason
    ├── Stopped           1    somebody else paused, stopped or closed the study
    ├── Different         1    a trial that was run again did not give the same
    ├── UsageError        2    a flag, a name or a study file is wrong
    ├── StorageError      3    the database, or a bucket of artifacts, cannot be used
    │   ├── NoDatabase    3    there is nothing yet at the place that was named
    │   └── StudyGone     3    the study was deleted while it was being worked on
    ├── TooManyFailures   4    workers died at their start again and again
    │   └── TooManyFailed 4    more trials failed than ``--max-failures`` allows
    ├── TimedOut          5    ``--timeout`` passed before the study reached its target
    └── Interrupted     130    Ctrl-C, or another signal to end

A message is one sentence, or two, that names the value, the cause and the remedy. Commands print it
and exit; they never show a traceback for a user's mistake.
"""


class TunerError(Exception):
    """A mistake or a state of the world that the user can mend."""

    exit_code = 1


class UsageError(TunerError):
    """A flag, a name or a study file is wrong."""

    exit_code = 2


class StorageError(TunerError):
    """The database cannot be reached, is not ours, or refuses to be written; or a bucket does."""

    exit_code = 3


class NoDatabase(StorageError):  # noqa: N818
    """There is nothing yet at the place that was named; a run would make it."""


class StudyGone(StorageError):  # noqa: N818
    """The study was deleted while it was being worked on."""


class TooManyFailures(TunerError):  # noqa: N818 - the outcome's name, as in the exit code table
    """Workers died at their start again and again, or more trials failed than allowed."""

    exit_code = 4


class TooManyFailed(TooManyFailures):
    """More trials failed since the command started than ``--max-failures`` allows."""


class Stopped(TunerError):  # noqa: N818
    """Somebody else paused, stopped or closed the study that was being worked on."""


class Different(TunerError):  # noqa: N818
    """A trial that was run again did not give the same."""


class TimedOut(TunerError):  # noqa: N818
    """``--timeout`` passed before the study reached its target."""

    exit_code = 5


class Interrupted(TunerError):  # noqa: N818
    """A signal ended what had more to do: Ctrl-C, or a scheduler's SIGTERM."""

    exit_code = 130
