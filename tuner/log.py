"""Log lines that say which study, trial and worker they are about, and how far long work is."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from tuner import wording

_context: ContextVar[dict[str, object]] = ContextVar("log context", default={})  # noqa: B039

FORMAT = "%(context)s%(message)s"

ONCE = {"once": True}
"""Give this as ``extra`` where every worker has the same to say: the first one is heard."""


# Work that nobody watches is logged: a line every so many seconds, the first after as many.
LINE_SECONDS = 10.0
# Who watches hears of it at most so often, in seconds.
WATCH_SECONDS = 0.2

Watch = Callable[[str | None, float | None], None]
"""Called with what is being done and the fraction of it that is done, 0 to 1 or None if that is not
known; and with None for both at its end."""

_watch: list[Watch] = []


def watch(told: Watch) -> None:
    """Let ``told`` hear how far `one_time_work` of this process is, instead of the log."""
    _watch[:] = [told]


@contextmanager
def one_time_work(logger: logging.Logger, text: str) -> Iterator[Callable[[float], None]]:
    """Do work within that people wait for, so that they see how far it is.

    Args:
        logger: says so now and then, where nobody watches.
        text: what is done, such as "training the base".

    Yields:
        What to call with the fraction that is done, 0 to 1, as often as you like.
    """
    began = time.monotonic()
    next_time = began + (0.0 if _watch else LINE_SECONDS)

    def tell(done: float) -> None:
        nonlocal next_time
        now = time.monotonic()
        if now < next_time:
            return
        next_time = now + (WATCH_SECONDS if _watch else LINE_SECONDS)
        if _watch:
            _watch[0](text, done)
        else:
            logger.info("%s: %s", text, wording.how_far(done, now - began))

    if _watch:
        _watch[0](text, None)
    try:
        yield tell
    finally:
        if _watch:
            _watch[0](None, None)


@contextmanager
def bound(**fields: object) -> Iterator[None]:
    """Name what the log lines within are about, for example ``trial=12``."""
    token = _context.set({**_context.get(), **fields})
    try:
        yield
    finally:
        _context.reset(token)


def quiet_libraries() -> None:
    """Keep libraries from writing to standard error what we say in a sentence."""
    # Its traceback of each connection that broke; the next attempt takes another one.
    logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)


class AddContext(logging.Filter):
    """Gives each record the attribute ``context``: ``study mnist · trial 12 · worker 1: ``."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Set the attribute; let every record pass."""
        fields = " · ".join(f"{name} {value}" for name, value in _context.get().items())
        record.context = f"{fields}: " if fields else ""
        return True
