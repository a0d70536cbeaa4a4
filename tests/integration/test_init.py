"""`python -m tuner.init`: tables are made once, whoever else makes them at the same time."""

import sqlalchemy
from click.testing import CliRunner
from sqlalchemy.engine import make_url

from tests.conftest import DRIVERS
from tuner.init import init


def test_tables_are_made_and_then_found(database_url: str) -> None:
    says = []
    for _ in range(2):
        done = CliRunner().invoke(init, ["--storage", database_url])
        assert done.exit_code == 0, done.output
        says.append(done.output)
    assert says[0].endswith(" is ready: its tables were made.\n")
    assert says[1].endswith(" is ready: its tables are there already.\n")
    url = make_url(database_url)
    engine = sqlalchemy.create_engine(
        url.set(drivername=DRIVERS.get(url.drivername, url.drivername))
    )
    try:
        assert {"studies", "trials", "tuner_claims"} <= set(
            sqlalchemy.inspect(engine).get_table_names()
        )
    finally:
        engine.dispose()
