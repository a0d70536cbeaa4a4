"""Our one table beside Optuna's, and the database's clock."""

from datetime import datetime
from typing import Any

from optuna.storages._rdb import models
from sqlalchemy import BigInteger, Column, DateTime, ForeignKey, Integer, MetaData, String, Table
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

metadata = MetaData()

# One row for each trial that somebody works on, or that was handed back by somebody who died.
# It goes when the trial ends, so the table stays as small as the number of workers.
claims = Table(
    "tuner_claims",
    metadata,
    Column(
        "trial_id",
        Integer,
        # The table in Optuna's metadata. CASCADE: `optuna delete-study` keeps working.
        ForeignKey(models.TrialModel.__table__.c.trial_id, ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    Column("study_id", Integer, nullable=False, index=True),
    Column("owner", String(32), nullable=False, index=True),  # Owner.token
    Column("supervisor", String(255), nullable=False, index=True),  # Owner.supervisor
    Column("host", String(255), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("beat", DateTime, nullable=False),  # UTC, by the database's clock
    Column("seed", BigInteger, nullable=False),
    Column("deaths", Integer, nullable=False),  # workers that died with this trial
)


class utc_now(FunctionElement[datetime]):  # noqa: N801 - an SQL function
    """The database's clock in UTC, without a zone, whatever the session's time zone."""

    type = DateTime()
    inherit_cache = True


@compiles(utc_now, "sqlite")
def _sqlite(_element: utc_now, _compiler: Any, **_options: Any) -> str:
    return "CURRENT_TIMESTAMP"


@compiles(utc_now, "mysql")
@compiles(utc_now, "mariadb")
def _mysql(_element: utc_now, _compiler: Any, **_options: Any) -> str:
    return "UTC_TIMESTAMP()"


@compiles(utc_now, "postgresql")
def _postgresql(_element: utc_now, _compiler: Any, **_options: Any) -> str:
    return "TIMEZONE('utc', CLOCK_TIMESTAMP())"
