"""What the tests of this folder share."""

from collections.abc import Iterator

import pytest

from tuner.storage import Database, open_database


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """An empty database of each kind in turn, open."""
    opened = open_database(database_url)
    yield opened
    opened.close()
