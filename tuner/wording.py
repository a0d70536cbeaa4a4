"""How numbers, durations and settings are written for people: one way everywhere."""

import difflib
import math
import re
from collections.abc import Iterable, Mapping, Sequence

# In scheme://user:SECRET@host, within one word of a sentence.
_PASSWORD = re.compile(r"(?P<head>://[^\s/@:]{0,100}:)\S{0,500}@")
# In a value: up to its last @, whatever a slip has put into it; and without an @, where what
# follows the colon is no port.
_PASSWORD_IN_VALUE = re.compile(r"(?P<head>:)(?!//).*@", re.DOTALL)
_PASSWORD_AT_END = re.compile(r"(?P<head>://[^/@:]*:)(?!\d*(?:[/?'\"]|$)).*", re.DOTALL)
_PASSWORD_OPTION = re.compile(r"(?P<head>\b\w{0,20}passw(?:or)?d=)[^&\s]*", re.IGNORECASE)
# Of what a process wrote, so many lines are told, each cut at so many characters.
LAST_LINES, LONGEST_LINE = 3, 200
# A name that no disk takes is told with so many characters.
LONGEST_VALUE = 60
# A range within so many times its middle, to each side, is told as one number.
_NARROW = 1.15
_ASCII = str.maketrans({"·": "-", "…": "~", "¼": ".25", "½": ".5", "¾": ".75"})


def duration(seconds: float) -> str:
    """Seconds in words: ``8 s``, ``2 min 05 s``, ``3 h 10 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def size(amount: float) -> str:
    """Bytes in words: ``340 kB``, ``2.2 MB``, ``1.5 GB``."""
    for unit, bytes_each in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if amount >= bytes_each:
            return f"{amount / bytes_each:.3g} {unit}"
    return f"{amount:.0f} bytes"


def time_left(low: float, high: float) -> str:
    """A range of seconds in words, rounded outwards: ``5 to 12 min left``."""
    if high < 10:
        return "a few seconds left"
    unit, name, step = 1.0, "s", 5.0
    if high >= 90 * 60:
        unit, name, step = 3600.0, "h", 0.5 if high < 10 * 3600 else 1.0
    elif high >= 90:
        unit, name, step = 60.0, "min", 1.0
    if high <= low * _NARROW**2:
        middle = step * round((low + high) / 2 / unit / step)
        return f"about {max(middle, step):g} {name} left"
    below = step * math.floor(low / unit / step)
    above = step * math.ceil(high / unit / step)
    return f"{below:g} to {above:g} {name} left" if below else f"up to {above:g} {name} left"


def how_far(done: float, seconds: float, ago: float = 0.0) -> str:
    """How far work is: ``34 %, about 12 s left``.

    Args:
        done: the fraction that is done, 0 to 1.
        seconds: that took so long.
        ago: it was so far so many seconds ago.
    """
    percent = f"{100 * done:.0f} %"
    if not 0.02 < done < 1 or seconds < 1:  # too early to say
        return percent
    return f"{percent}, about {duration(max(1.0, seconds * (1 - done) / done - ago))} left"


def progress_of(step: int, max_step: int | None, steps_per_epoch: int | None) -> str:
    """How far a trial is: ``epoch 1¼/5``, or ``step 8/20`` where a step is no part of an epoch."""
    if steps_per_epoch is None:
        return f"step {step}" + (f"/{max_step}" if max_step else "")
    whole = f"/{_epochs(max_step, steps_per_epoch)}" if max_step else ""
    return f"epoch {_epochs(step, steps_per_epoch)}{whole}"


def _epochs(steps: int, steps_per_epoch: int) -> str:
    whole, rest = divmod(steps, steps_per_epoch)
    if not rest:
        return str(whole)
    quarters, odd = divmod(4 * rest, steps_per_epoch)
    if odd:
        return f"{steps / steps_per_epoch:.1f}"
    return f"{whole or ''}{'¼½¾'[quarters - 1]}"


def in_ascii(text: str) -> str:
    """The text for a terminal that has only ASCII: ``epoch 1.25/5``."""
    return text.translate(_ASCII).encode("ascii", "replace").decode("ascii")


def number(value: object) -> str:
    """A value in few characters: floats with four significant digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def params(values: Mapping[str, object]) -> str:
    """Parameters as ``learning_rate=0.0012 optimizer=adam``."""
    return " ".join(f"{name}={number(value)}" for name, value in values.items())


def count(amount: int, noun: str) -> str:
    """``1 trial``, ``2 trials``."""
    return f"{amount:,} {noun}" + ("" if amount == 1 else "s")


def times(amount: int) -> str:
    """``once``, ``twice``, ``3 times``."""
    return {1: "once", 2: "twice"}.get(amount, f"{amount} times")


def cut(text: str) -> str:
    """A text that may be far too long, as far as it is of use."""
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}..."


def last_words(lines: Sequence[str]) -> str:
    """The end of what a process wrote, in one line of bounded length."""
    last = [line.strip() for line in lines[-LAST_LINES:] if line.strip()]
    cut = [line if len(line) <= LONGEST_LINE else f"{line[: LONGEST_LINE - 3]}..." for line in last]
    return " | ".join(cut) or "nothing"


def closest(name: str, known: Iterable[str]) -> str:
    """What to say about an unknown name: the closest known one, or all of them."""
    names = list(known)
    near = closest_name(name, names)
    return f"choose one of: {', '.join(names)}." if near is None else f"did you mean {near!r}?"


def closest_name(name: str, known: Iterable[str]) -> str | None:
    """The known name that was meant, or None if none is close."""
    return next(iter(difflib.get_close_matches(name, list(known), n=1)), None)


def redact(text: str) -> str:
    """A sentence, with every password of a URL in it replaced by ``***``."""
    text = _PASSWORD.sub(r"\g<head>***@", text)
    return _PASSWORD_OPTION.sub(r"\g<head>***", text)


def redact_value(text: str) -> str:
    """A value that somebody gave, perhaps a URL with slips, without anything like a password."""
    text = _PASSWORD_IN_VALUE.sub(r"\g<head>***@", text)
    if "***@" not in text:
        text = _PASSWORD_AT_END.sub(r"\g<head>***", text)
    return _PASSWORD_OPTION.sub(r"\g<head>***", text)
