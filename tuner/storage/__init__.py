"""The only room that opens a database."""

from tuner.storage.arms import only_arm
from tuner.storage.attributes import StoredAttributes
from tuner.storage.bests import BestTrial
from tuner.storage.claims import Claim, Claims, GivenBack, NoTrial, studies_with_claims
from tuner.storage.contents import StudyContents, find_confirmations, read_contents
from tuner.storage.database import Database, open_database, storage_errors
from tuner.storage.kept import KeptStudy, KeptTrial, forget_files, read_kept
from tuner.storage.overview import (
    StudyOverview,
    find_study,
    read_overviews,
)
from tuner.storage.owner import Owner, this_process
from tuner.storage.progress import (
    FinishedTrial,
    ProgressReader,
    StudyProgress,
    count_outcomes,
    find_best,
    read_complete_values,
)
from tuner.storage.requests import (
    REACHED,
    OpenRequest,
    Request,
    RequestState,
    change_request,
    close_reached,
    open_request,
    read_requests,
)
from tuner.storage.retry import is_transient
from tuner.storage.row import HeldRow
from tuner.storage.running import ANOTHER_PROGRAM, RunningTrial
from tuner.storage.shown import change_shown, read_artifact_attrs
from tuner.storage.studies import (
    StudyPreview,
    StudyRecord,
    preview,
    read_stored,
    record_environment,
    record_opening,
    record_store,
    register,
)
from tuner.storage.takeover import take_over
from tuner.storage.urls import Address, address_of

__all__ = [
    "ANOTHER_PROGRAM",
    "REACHED",
    "Address",
    "BestTrial",
    "Claim",
    "Claims",
    "Database",
    "FinishedTrial",
    "GivenBack",
    "HeldRow",
    "KeptStudy",
    "KeptTrial",
    "NoTrial",
    "OpenRequest",
    "Owner",
    "ProgressReader",
    "Request",
    "RequestState",
    "RunningTrial",
    "StoredAttributes",
    "StudyContents",
    "StudyOverview",
    "StudyPreview",
    "StudyProgress",
    "StudyRecord",
    "address_of",
    "change_request",
    "change_shown",
    "close_reached",
    "count_outcomes",
    "find_best",
    "find_confirmations",
    "find_study",
    "forget_files",
    "is_transient",
    "only_arm",
    "open_database",
    "open_request",
    "preview",
    "read_artifact_attrs",
    "read_complete_values",
    "read_contents",
    "read_kept",
    "read_overviews",
    "read_requests",
    "read_stored",
    "record_environment",
    "record_opening",
    "record_store",
    "register",
    "storage_errors",
    "studies_with_claims",
    "take_over",
    "this_process",
]
