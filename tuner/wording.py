"""How numbers, durations and settings are written for people: one way everywhere."""

import difflib
import re
from collections.abc import Iterable, Mapping

_PASSWORD = re.compile(r"(?P<head>[a-z][a-z0-9+.-]*://[^:/@\s]*:)[^\s]*@", re.IGNORECASE)
_PASSWORD_OPTION = re.compile(r"(?P<head>[?&]\w*passw(?:or)?d=)[^&\s]*", re.IGNORECASE)


def duration(seconds: float) -> str:
    """Seconds in words: ``8 s``, ``2 min 05 s``, ``3 h 10 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def number(value: object) -> str:
    """A value in few characters: floats with four significant digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def params(values: Mapping[str, object]) -> str:
    """Parameters as ``learning_rate=0.0012 optimizer=adam``."""
    return " ".join(f"{name}={number(value)}" for name, value in values.items())


def count(amount: int, noun: str) -> str:
    """``1 trial``, ``2 trials``."""
    return f"{amount:,} {noun}" + ("" if amount == 1 else "s")


def closest(name: str, known: Iterable[str]) -> str:
    """What to say about an unknown name: the closest known one, or all of them."""
    names = list(known)
    close = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {close[0]!r}?" if close else f"choose one of: {', '.join(names)}."


def redact(text: str) -> str:
    """The text with every password of a URL in it replaced by ``***``."""
    return _PASSWORD_OPTION.sub(r"\g<head>***", _PASSWORD.sub(r"\g<head>***@", text))
