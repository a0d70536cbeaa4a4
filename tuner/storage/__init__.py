"""The only room that opens a database."""

from tuner.storage.claims import Claim, Claims, GivenBack, NoTrial, studies_with_claims
from tuner.storage.database import Database, open_database, storage_errors
from tuner.storage.owner import Owner, this_process
from tuner.storage.progress import (
    FinishedTrial,
    ProgressReader,
    StudyProgress,
    count_diverged,
    find_best,
)
from tuner.storage.requests import (
    OpenRequest,
    Request,
    RequestState,
    change_request,
    close_reached,
    open_request,
    read_requests,
)
from tuner.storage.retry import is_transient
from tuner.storage.studies import StudyRecord, record_environment, register

__all__ = [
    "Claim",
    "Claims",
    "Database",
    "FinishedTrial",
    "GivenBack",
    "NoTrial",
    "OpenRequest",
    "Owner",
    "ProgressReader",
    "Request",
    "RequestState",
    "StudyProgress",
    "StudyRecord",
    "change_request",
    "close_reached",
    "count_diverged",
    "find_best",
    "is_transient",
    "open_database",
    "open_request",
    "read_requests",
    "record_environment",
    "register",
    "storage_errors",
    "studies_with_claims",
    "this_process",
]
