"""Log lines that say which study, trial and worker they are about."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_context: ContextVar[dict[str, object]] = ContextVar("log context", default={})  # noqa: B039

FORMAT = "%(context)s%(message)s"

ONCE = {"once": True}
"""Give this as ``extra`` where every worker has the same to say: the first one is heard."""


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
