"""Storage URLs: from what the user writes to what SQLAlchemy connects to."""

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from tuner.errors import UsageError
from tuner.wording import redact

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
    try:
        url = make_url(text)
    except (ArgumentError, ValueError) as error:
        raise UsageError(
            f"The storage {redact(text)!r} is not a database URL; write for example "
            "sqlite:///tuner.db or postgresql://user:password@host/database."
        ) from error
    driver = DRIVERS.get(url.drivername)
    if driver is None:
        raise UsageError(
            f"The storage {redact(text)!r} names the database {url.drivername!r}, which is not "
            "supported; use sqlite, postgresql or mysql."
        )
    if driver == "sqlite" and url.database in {None, "", ":memory:"}:
        raise UsageError(
            f"The storage {text!r} is a database in memory, which worker processes cannot share; "
            "name a file, for example sqlite:///tuner.db."
        )
    if "@" in (url.host or ""):
        raise UsageError(
            f"The storage {redact(text)!r} has a second @ before its host; write an @ in the "
            "password as %40."
        )
    return url.set(drivername=driver)
