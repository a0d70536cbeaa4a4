"""An artifact store in a bucket of S3, or of a server that speaks its language.

The server and the credentials are boto3's own business (``AWS_ENDPOINT_URL``, ``AWS_PROFILE``,
``AWS_ACCESS_KEY_ID`` and so on): they are in no argument, setting or line of ours. What boto3
raises becomes an `OSError` in words, as if a disk had failed.
"""

import contextlib
import fnmatch
import io
import itertools
import shutil
from collections.abc import Callable, Iterable, Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, cast

from boto3.exceptions import Boto3Error
from boto3.session import Session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
from botocore.loaders import create_loader
from botocore.session import get_session
from optuna.artifacts import Boto3ArtifactStore
from optuna.artifacts._protocol import ArtifactStore

from tuner.errors import StorageError
from tuner.stores import FILES, IDENTITY, Checkpoint, Stored, new_identity
from tuner.wording import redact

# How long a server may take to accept a connection, and to answer, in seconds; and how often it is
# asked at most.
CONNECT_SECONDS, READ_SECONDS, ATTEMPTS = 10, 30, 2
# The same where a trial is waiting to be handed back, which has ten seconds in all: what cannot be
# saved in time is lost, but the trial isn't.
HURRIED_CONNECT_SECONDS, HURRIED_READ_SECONDS, HURRIED_ATTEMPTS = 3, 5, 1
# What boto3 knows of S3 is read from files, which takes a tenth of a second: once a process.
_DESCRIPTIONS = create_loader()
# A request removes at most so many files: S3's own limit.
_AT_ONCE = 1_000

_REFUSED = {"401", "403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch",
            "ExpiredToken", "InvalidToken", "AuthorizationHeaderMalformed"}  # fmt: skip
_MISSING = {"404", "NoSuchKey", "NotFound"}
# Somebody else has made the file meanwhile (AWS: also while both of us do).
_THERE_ALREADY = {"412", "PreconditionFailed", "409", "ConditionalRequestConflict"}
_CREDENTIALS = "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
_SERVER = "check the name, AWS_ENDPOINT_URL and the network"


class S3Store:
    """A store that is a bucket, or what begins with a prefix in it; see `tuner.stores.Store`.

    Args:
        address: ``s3://BUCKET`` or ``s3://BUCKET/PREFIX``.

    Raises:
        StorageError: boto3 cannot be used as its variables say.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.bucket, _, prefix = address.partition("://")[2].partition("/")
        self._prefix = f"{prefix}/" if prefix else ""
        try:
            core = get_session()
            core.register_component("data_loader", _DESCRIPTIONS)
            self._session = Session(botocore_session=core)
            self._client = self._make_client(CONNECT_SECONDS, READ_SECONDS, ATTEMPTS)
        except (BotoCoreError, ValueError) as error:
            self._refuse(error)
        self.files: ArtifactStore = _BucketOfFiles(
            self.bucket, f"{self._prefix}{FILES}/", self._client
        )
        self._hurried: Any = None

    def _make_client(self, connect: float, read: float, attempts: int) -> Any:
        retries: Any = {"total_max_attempts": attempts, "mode": "standard"}
        config = Config(connect_timeout=connect, read_timeout=read, retries=retries)
        return self._session.client("s3", config=config)

    @property
    def hurried(self) -> Any:
        """A client that gives up soon."""
        if self._hurried is None:
            self._hurried = self._make_client(
                HURRIED_CONNECT_SECONDS, HURRIED_READ_SECONDS, HURRIED_ATTEMPTS
            )
        return self._hurried

    def key(self, name: str) -> str:
        """A file's name in the bucket."""
        return self._prefix + name

    def check(self) -> None:
        """See `tuner.stores.Store.check`."""
        try:
            self._client.list_objects_v2(Bucket=self.bucket, Prefix=self._prefix, MaxKeys=1)
        except (BotoCoreError, ClientError) as error:
            self._refuse(error)

    def _refuse(self, error: Exception) -> NoReturn:
        code = _code_of(error)
        remedy = "check the variables and files that boto3 reads"
        if code in _REFUSED or "Credential" in type(error).__name__:
            remedy = _CREDENTIALS
        elif code == "NoSuchBucket" or code in _MISSING:
            remedy = f"make the bucket {self.bucket}, or {_SERVER}"
        elif code or isinstance(error, HTTPClientError) or "Endpoint" in type(error).__name__:
            remedy = _SERVER
        raise StorageError(
            f"The artifact store {self.address} cannot be used: {reason_of(error)}; {remedy}."
        ) from error

    def is_there(self) -> bool:
        """See `tuner.stores.Store.is_there`."""
        self.check()
        return True

    def find(self, pattern: str) -> list[Stored]:
        """See `tuner.stores.Store.find`; ages are by the server's clock."""
        found = []
        with as_os_error():
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=self.key(pattern.partition("*")[0])
            )
            for page in pages:
                now = parsedate_to_datetime(page["ResponseMetadata"]["HTTPHeaders"]["date"])
                for it in page.get("Contents", ()):
                    name = it["Key"].removeprefix(self._prefix)
                    same_depth = name.count("/") == pattern.count("/")
                    if same_depth and fnmatch.fnmatchcase(name, pattern):
                        age = (now - it["LastModified"]).total_seconds()
                        found.append(Stored(name, it["Size"], age))
        return found

    def remove(self, names: Iterable[str]) -> dict[str, str]:
        """See `tuner.stores.Store.remove`."""
        failed: dict[str, str] = {}
        for some in _batched(names):
            keys = [{"Key": self.key(name)} for name in some]
            try:
                answer = self._client.delete_objects(
                    Bucket=self.bucket, Delete={"Objects": keys, "Quiet": True}
                )
            except (BotoCoreError, ClientError) as error:
                failed |= dict.fromkeys(some, reason_of(error))
            else:
                for it in answer.get("Errors", ()):
                    failed[it["Key"].removeprefix(self._prefix)] = it.get("Code", "refused")
        return failed

    def tidy(self, folder: str) -> None:
        """A bucket has no folders."""

    def checkpoint(self, name: str, scratch: Path) -> Checkpoint:
        """See `tuner.stores.Store.checkpoint`."""
        return _BucketCheckpoint(self, name, scratch)

    def fetch(self, name: str, to: Path) -> None:
        """Copy a file to this machine.

        Raises:
            FileNotFoundError: it is not there.
            OSError: it cannot be copied.
        """
        with as_os_error():
            answer = self._client.get_object(Bucket=self.bucket, Key=self.key(name))
            with contextlib.closing(answer["Body"]) as body, to.open("wb") as file:
                shutil.copyfileobj(body, file)

    def identity(self) -> str | None:
        """See `tuner.stores.Store.identity`; who may not write, or cannot now, makes none."""
        key = self.key(IDENTITY)
        with contextlib.suppress(OSError), as_os_error():
            try:
                self._client.head_object(Bucket=self.bucket, Key=key)
            except ClientError as error:
                if _code_of(error) not in _MISSING:
                    raise
                self._make_identity(key)
            with contextlib.closing(
                self._client.get_object(Bucket=self.bucket, Key=key)["Body"]
            ) as body:
                return body.read(100).decode(errors="replace").strip() or None
        return None

    def _make_identity(self, key: str) -> None:
        """Put one, unless somebody else has; a server that cannot do that lets the last one win."""
        fresh: Any = {"Bucket": self.bucket, "Key": key, "Body": new_identity().encode()}
        try:
            self._client.put_object(**fresh, IfNoneMatch="*")
        except ClientError as error:
            if _code_of(error) == "NotImplemented":
                self._client.put_object(**fresh)
            elif _code_of(error) not in _THERE_ALREADY:
                raise


class _BucketOfFiles:
    """Optuna's store of a bucket, below a prefix, with errors as of a disk.

    Args:
        bucket: its name.
        prefix: with a slash at its end.
        client: boto3's.
    """

    def __init__(self, bucket: str, prefix: str, client: Any) -> None:
        # Without a copy in memory: that it closes what it has sent is no harm here.
        self._store = Boto3ArtifactStore(bucket, client, avoid_buf_copy=True)
        self._prefix = prefix

    def open_reader(self, artifact_id: str) -> BinaryIO:
        with as_os_error():
            body = self._store.open_reader(self._prefix + artifact_id)
        return cast("BinaryIO", _Body(body))

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        with as_os_error():
            self._store.write(self._prefix + artifact_id, content_body)

    def remove(self, artifact_id: str) -> None:
        with as_os_error():
            self._store.remove(self._prefix + artifact_id)


class _Body(io.RawIOBase):
    """What a server sends of a file: a connection that breaks is an error as of a disk."""

    def __init__(self, body: BinaryIO) -> None:
        super().__init__()
        self._body = body

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        with as_os_error():
            return self._body.read() if size < 0 else self._body.read(size)

    def close(self) -> None:
        self._body.close()
        super().close()


class _BucketCheckpoint:
    """A checkpoint in a bucket: written to a local file, and put as a whole.

    Args:
        store: where it is kept.
        name: of the file there.
        scratch: a folder for local files.
    """

    def __init__(self, store: S3Store, name: str, scratch: Path) -> None:
        self._store, self._name = store, name
        self._local = scratch / name.rpartition("/")[2]
        self._may_be_there = False  # most short trials have none, and then need not remove it

    def __str__(self) -> str:
        return f"{self._store.address}/{self._name}"

    def load(self) -> Path:
        """See `tuner.stores.Checkpoint.load`: the local file lasts until something is saved."""
        self._store.fetch(self._name, self._local)
        self._may_be_there = True
        return self._local

    def save(self, write: Callable[[Path], None]) -> None:
        """See `tuner.stores.Checkpoint.save`."""
        store = self._store
        try:
            write(self._local)
            self._may_be_there = True
            with as_os_error(), self._local.open("rb") as file:
                store.hurried.put_object(Bucket=store.bucket, Key=store.key(self._name), Body=file)
        finally:
            self._local.unlink(missing_ok=True)

    def discard(self) -> None:
        """See `tuner.stores.Checkpoint.discard`."""
        store = self._store
        if self._may_be_there:
            with contextlib.suppress(OSError), as_os_error():
                store.hurried.delete_object(Bucket=store.bucket, Key=store.key(self._name))


@contextlib.contextmanager
def as_os_error() -> Iterator[None]:
    """Make what boto3 raises an `OSError`, and a file that is not there a `FileNotFoundError`."""
    try:
        yield
    except (BotoCoreError, ClientError, Boto3Error) as error:
        if _code_of(error) in _MISSING:
            raise FileNotFoundError(reason_of(error)) from error
        raise OSError(reason_of(error)) from error


def reason_of(error: BaseException) -> str:
    """What boto3 said, in one line and without passwords."""
    words = " ".join(str(error).split())
    if isinstance(error, ClientError):
        said = error.response.get("Error", {})
        words = ": ".join(filter(None, (_code_of(error), str(said.get("Message", "")))))
    return redact(words).rstrip(".?") or type(error).__name__


def _code_of(error: BaseException) -> str:
    """The server's word for what is wrong, or ""."""
    return (
        str(error.response.get("Error", {}).get("Code", ""))
        if isinstance(error, ClientError)
        else ""
    )


def _batched(names: Iterable[str]) -> Iterator[list[str]]:
    rest = iter(names)
    while some := list(itertools.islice(rest, _AT_ONCE)):
        yield some
