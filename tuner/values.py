"""What an option's value may be: functions that read the command line, environment and TOML alike.

Their errors go on after the name of the flag, variable or key: "--workers" "is 'x'; give ...".
"""

import math
from collections.abc import Callable
from typing import Any, NoReturn

import click

from tuner.wording import closest, cut, redact_value

MOST_WHOLE = 2**31 - 1  # what every database's integer holds
MOST_AMOUNT = 1e9

_SWITCH_WORDS = {
    **dict.fromkeys(("1", "true", "yes", "on"), True),
    **dict.fromkeys(("0", "false", "no", "off"), False),
}


def text(value: Any) -> str:
    """Any text that is not empty."""
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        _refuse(value, "give a text")
    return value


def whole(least: int, otherwise: str = "") -> Callable[[Any], int]:
    """A whole number from ``least`` on.

    Args:
        least: the smallest that is allowed.
        otherwise: words for the end of the remedy.
    """

    def read(value: Any) -> int:
        try:
            number = int(value) if isinstance(value, str) else value
        except ValueError:
            number = None
        if type(number) is not int or number < least:
            _refuse(value, f"give a whole number from {least}{otherwise}")
        if number > MOST_WHOLE:
            _refuse(value, f"give a whole number up to {MOST_WHOLE:,}")
        return number

    return read


def amount(unit: str, *, zero: bool = False) -> Callable[[Any], float]:
    """A finite number above zero.

    Args:
        unit: for the error.
        zero: whether 0 is allowed as well.
    """

    def read(value: Any) -> float:
        try:
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if number > MOST_AMOUNT:
            _refuse(value, f"give a number of {unit} up to {MOST_AMOUNT:,.0f}")
        if not (number > 0 or (zero and number == 0)):
            _refuse(value, f"give a number of {unit} {'from 0 on' if zero else 'above 0'}")
        return number

    return read


def one_of(*names: str) -> Callable[[Any], str]:
    """One of a few names."""

    def read(value: Any) -> str:
        if value not in names:
            _refuse(value, closest(str(value), names).rstrip("."))
        return str(value)

    return read


def switch(value: Any) -> bool:
    """On or off: a flag without a value, or a word for it."""
    known = value if isinstance(value, bool) else _SWITCH_WORDS.get(str(value).lower())
    if known is None:
        _refuse(value, "write true or false")
    return known


def _refuse(value: object, remedy: str) -> NoReturn:
    """Say what is wrong with a value; click adds whose it is."""
    end = "" if remedy.endswith("?") else "."
    raise click.BadParameter(f"is {cut(redact_value(repr(value)))}; {remedy}{end}")
