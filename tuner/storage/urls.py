"""Storage URLs: from what the user writes to what SQLAlchemy connects to."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from tuner.errors import UsageError
from tuner.flags import PASSWORD_FILE_VARIABLE
from tuner.wording import redact_value

# What the user writes -> SQLAlchemy's dialect and driver. Drivers named outright are kept.
DRIVERS = {
    "sqlite": "sqlite",
    "postgresql": "postgresql+psycopg",
    "postgresql+psycopg": "postgresql+psycopg",
    "postgres": "postgresql+psycopg",
    "mysql": "mysql+pymysql",
    "mysql+pymysql": "mysql+pymysql",
    "mariadb": "mysql+pymysql",
}


def resolve(text: str) -> URL:
    """Parse a storage URL and choose its driver.

    Args:
        text: for example ``sqlite:///tuner.db`` or ``postgresql://user:password@host/database``.

    Raises:
        UsageError: no URL, an unknown kind of database, or one in memory.
    """
    if any(letter.isspace() for letter in text):
        scheme = text.strip().partition(":")[0].partition(" ")[0]
        raise UsageError(
            f"The storage URL {scheme}:... has a space in it; write %20 for one in a password or "
            "a path."
        )
    try:
        url = make_url(text)
    except (ArgumentError, ValueError) as error:
        raise UsageError(
            f"The storage {redact_value(text)!r} is not a database URL; write for example "
            "sqlite:///tuner.db or postgresql://user@host/database."
        ) from error
    driver = DRIVERS.get(url.drivername)
    if driver is None:
        raise UsageError(
            f"The storage {redact_value(text)!r} names the database {url.drivername!r}, which is "
            "not supported; use sqlite, postgresql or mysql."
        )
    if driver == "sqlite" and url.database in {None, "", ":memory:"}:
        raise UsageError(
            f"The storage {text!r} is a database in memory, which worker processes cannot share; "
            "name a file, for example sqlite:///tuner.db."
        )
    if "@" in (url.host or ""):
        raise UsageError(
            f"The storage {redact_value(text)!r} has a second @ before its host; write an @ in the "
            "password as %40."
        )
    if driver != "sqlite" and "@" in (url.database or ""):
        raise UsageError(
            f"The storage {redact_value(text)!r} has an @ in the database's name; write it as "
            f"{url.drivername}://user:password@host/database, with an @ in the password as %40."
        )
    return url.set(drivername=driver)


def absolute(url: URL) -> URL:
    """The same database for a process in another directory."""
    if url.drivername != "sqlite":
        return url
    return url.set(database=str(Path(str(url.database)).absolute()))


@dataclass(frozen=True)
class Address:
    """A storage URL that means the same in every directory.

    Attributes:
        secret: for another process to open, with its password.
        shown: as the user may see it.
    """

    secret: str = field(repr=False)
    shown: str


def address_of(text: str) -> Address:
    """The address that a storage URL means here.

    Raises:
        UsageError: see `resolve`; or the file with the password holds none.
    """
    url = _with_password(resolve(text))
    shown = redact_value(url.render_as_string(hide_password=True))
    # SQLAlchemy leaves a space in a password as it is, and `resolve` takes none.
    secret = absolute(url).render_as_string(hide_password=False).replace(" ", "%20")
    return Address(secret, shown)


def _with_password(url: URL) -> URL:
    """The URL with the password of the file that the environment names, where it has none.

    So a password is in no command line, no environment and no setting.

    Raises:
        UsageError: the file cannot be read, or is empty.
    """
    path = os.environ.get(PASSWORD_FILE_VARIABLE)
    needs_one = url.username and url.password is None and "password" not in url.query
    if not path or not needs_one or url.drivername == "sqlite":
        return url
    try:
        password = Path(path).read_text(encoding="utf-8").rstrip("\r\n")
        wrong = "" if password else "is empty"
    except OSError as error:
        password, wrong = "", f"cannot be read ({error.strerror})"
    except UnicodeDecodeError:
        password, wrong = "", "is no text in UTF-8"
    if wrong:
        raise UsageError(
            f"{PASSWORD_FILE_VARIABLE} is {path!r}, which {wrong}; name a file that holds the "
            "database's password and nothing else."
        ) from None
    return url.set(password=password)
