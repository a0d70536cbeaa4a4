"""After a command that ran trials: the study's page in optuna-dashboard is brought up to date.

Imported by every run, so light: pandas and Plotly wait until there is something to show.
"""

import contextlib
import logging
import signal
from collections.abc import Iterator

from rich.console import Console

from tuner.errors import TunerError
from tuner.storage import Address

_log = logging.getLogger(__name__)


def keep_up(study: str, storage: str | Address, artifacts: str, console: Console) -> None:
    """Publish a study; trouble is a warning, as the command has done what it was asked for.

    Args:
        study: its name in the database.
        storage: the database.
        artifacts: the artifact store with the best trial's files.
        console: says on a terminal what is waited for.
    """
    reason = ""
    try:
        with _interruptible(), _saying(study, console):
            from tuner.report.publishing import publish_study  # noqa: PLC0415

            publish_study(study, storage, artifacts)
    except KeyboardInterrupt:
        reason = "interrupted"
    except TunerError as error:
        reason = str(error)
    except Exception as error:  # noqa: BLE001 - the trials are done, whatever is wrong with a page
        _log.debug("publishing failed", exc_info=True)
        reason = f"{type(error).__name__}: {error}"
    if reason:
        _log.warning(
            "the page of %s in optuna-dashboard is not up to date (%s); later: "
            "python -m tuner.report --study NAME --publish",
            study,
            " ".join(reason.split()).removesuffix("."),
        )


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM ends the block as Ctrl-C does, and not the process: its work is done."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _saying(study: str, console: Console) -> Iterator[None]:
    """On a terminal, a line that goes when it is done: it takes a few seconds."""
    if not console.is_interactive:
        yield
        return
    with console.status(f"updating the page of {study} in optuna-dashboard ...", spinner="dots"):
        yield
