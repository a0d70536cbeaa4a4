"""The only room that opens a database."""

from tuner.storage.claims import Claim, Claims, GivenBack, NoTrial
from tuner.storage.database import Database, open_database, storage_errors
from tuner.storage.owner import Owner, this_process
from tuner.storage.progress import (
    FinishedTrial,
    ProgressReader,
    StudyProgress,
    count_diverged,
    find_best,
)
from tuner.storage.studies import StudyRecord, record_environment, register

__all__ = [
    "Claim",
    "Claims",
    "Database",
    "FinishedTrial",
    "GivenBack",
    "NoTrial",
    "Owner",
    "ProgressReader",
    "StudyProgress",
    "StudyRecord",
    "count_diverged",
    "find_best",
    "open_database",
    "record_environment",
    "register",
    "storage_errors",
    "this_process",
]
