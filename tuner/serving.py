"""What `tuner dashboard` does: optuna-dashboard behind waitress, which can only read.

::

    browser ──> waitress ──> Gate ──> optuna-dashboard ──> storage that can only read ──> database
                             405, 403, waiting

optuna-dashboard has no accounts and no read-only mode. Two independent doors are shut here:
`tuner.gate` lets through GET and HEAD alone, and the storage and the artifact store that the
dashboard gets refuse to be written. ``--writable`` opens both for notes.
"""

import inspect
import os
import signal
import socket
import threading
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from http import HTTPStatus
from ipaddress import ip_address
from typing import Any, BinaryIO, NoReturn

import optuna_dashboard
import waitress
from bottle import HTTPError
from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.storages import BaseStorage
from rich.console import Console

from tuner.artifacts import store_of
from tuner.errors import NoDatabase, StorageError, UsageError
from tuner.gate import Application, Gate
from tuner.settings import DashboardSettings
from tuner.storage import Database, address_of, is_transient, open_database, storage_errors
from tuner.wording import redact

# How often to look for a database that is not there yet, in seconds.
LOOK_SECONDS = 1.0
# Requests that are answered at the same time; a browser has up to six connections.
THREADS = 8

LARGEST_PORT = 2**16 - 1

# optuna-dashboard keeps notes in the study's system attributes, by this one method of its storage.
NOTES_METHOD = "set_study_system_attr"


def serve(settings: DashboardSettings, console: Console) -> None:
    """Answer browsers until a signal comes.

    Raises:
        UsageError: the address cannot be listened at, or other machines would get in unasked.
        StorageError: the database cannot be used, and waiting does not mend that.
    """
    local = _is_loopback(settings.host)
    _check(settings, local=local)
    gate = Gate({*settings.names, settings.host}, writable=settings.writable)
    opener = _Opener(settings, gate, console)
    opener.look()  # what waiting does not mend is told before anything else
    with closing(opener), closing(_listen(settings)) as listening:
        url = _url_of(listening)
        _greet(settings, url, console)
        if gate.application is None:
            _say(console, f"{gate.waiting_for} Waiting for it.")
        if settings.open:
            threading.Thread(target=_show, args=(url, console), daemon=True).start()
        server = waitress.create_server(gate, sockets=[listening], threads=THREADS, ident=None)
        with _ending_by_signal():
            threading.Thread(target=opener.run, daemon=True).start()
            server.run()
    if opener.hopeless is not None:
        raise opener.hopeless
    _say(console, "ended by a signal")


def dashboard_of(database: Database, artifacts: Any, *, writable: bool) -> Application:
    """optuna-dashboard over an open database.

    Args:
        database: an open one.
        artifacts: an Optuna artifact store.
        writable: whether notes may be written.
    """
    writes = frozenset({NOTES_METHOD}) if writable else frozenset()
    storage = _reading_storage(database, writes)
    application: Application = optuna_dashboard.wsgi(storage, _ReadingStore(artifacts))
    return application


def _reading_storage(database: Database, writes: frozenset[str]) -> BaseStorage:
    """Optuna's storage without what writes; its trouble is a sentence in the answer."""

    def forward(name: str) -> Callable[..., Any]:
        def call(_self: object, *arguments: Any, **options: Any) -> Any:
            if not name.startswith(("get_", "check_", "remove_session")) and name not in writes:
                _refuse(name)
            try:
                with storage_errors(database.url):
                    return getattr(database.storage, name)(*arguments, **options)
            except StorageError as error:
                raise HTTPError(HTTPStatus.SERVICE_UNAVAILABLE.value, redact(str(error))) from error

        return call

    methods = [
        name
        for name, _ in inspect.getmembers(BaseStorage, inspect.isfunction)
        if not name.startswith("_")
    ]
    made = type("ReadingStorage", (BaseStorage,), {name: forward(name) for name in methods})
    storage: BaseStorage = made()
    return storage


class _ReadingStore:
    """An artifact store that can only be read; a file that is not in it is a 404."""

    def __init__(self, store: Any) -> None:
        self._store = store

    def open_reader(self, artifact_id: str) -> BinaryIO:
        try:
            reader: BinaryIO = self._store.open_reader(artifact_id)
        except ArtifactNotFound as error:
            words = "This file is not in the artifact store any more, or in another one."
            raise HTTPError(HTTPStatus.NOT_FOUND.value, words) from error
        return reader

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:  # noqa: ARG002 - Optuna's
        _refuse("write an artifact")

    def remove(self, artifact_id: str) -> None:  # noqa: ARG002
        _refuse("remove an artifact")


def _refuse(what: str) -> NoReturn:
    words = f"This dashboard is read-only: {what} is refused."
    raise HTTPError(HTTPStatus.METHOD_NOT_ALLOWED.value, words)


class _Opener:
    """Looks for the database, and puts optuna-dashboard behind the gate when it is there.

    Attributes:
        hopeless: why it ended the process: waiting does not help.
    """

    def __init__(self, settings: DashboardSettings, gate: Gate, console: Console) -> None:
        self._settings = settings
        self._gate = gate
        self._console = console
        self._address = address_of(settings.storage)
        self._artifacts = store_of(settings.artifacts)
        self._open = ExitStack()
        self.hopeless: StorageError | None = None

    def look(self) -> None:
        """Open the database if it is there.

        Raises:
            StorageError: waiting does not help.
        """
        try:
            database = open_database(self._address, create=False)
        except StorageError as error:
            if not (isinstance(error, NoDatabase) or is_transient(error)):
                raise
            self._gate.waiting_for = str(error)
            return
        self._open.callback(database.close)
        self._open.enter_context(database.patience.hurried())  # somebody looks at an empty page
        writable = self._settings.writable
        self._gate.application = dashboard_of(database, self._artifacts, writable=writable)

    def run(self) -> None:
        """Look until it is there, or cannot be."""
        waited = self._gate.application is None
        while self._gate.application is None:
            threading.Event().wait(LOOK_SECONDS)
            try:
                self.look()
            except StorageError as error:
                self.hopeless = error
                os.kill(os.getpid(), signal.SIGTERM)
                return
        if waited:
            _say(self._console, "the database is there")

    def close(self) -> None:
        """Close the database, if it was there."""
        self._open.close()


@contextmanager
def _ending_by_signal() -> Iterator[None]:
    """SIGTERM leaves waitress as Ctrl-C does: it answers what it has begun."""

    def leave(_signal: int, _frame: object) -> None:
        raise SystemExit

    before = {which: signal.signal(which, leave) for which in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for which, handler in before.items():
            signal.signal(which, handler)


def _addresses(host: str) -> list[tuple[socket.AddressFamily, str]]:
    """What a host's name stands for.

    Raises:
        UsageError: nothing.
    """
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no name of a host"
        raise UsageError(
            f"--host is {host!r}, which is no address ({reason}); leave it out for 127.0.0.1, or "
            "give an address of this machine."
        ) from error
    return [(family, str(address[0])) for family, _, _, _, address in found]


def _is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    addresses = [address for _, address in _addresses(host)]
    return all(ip_address(address.partition("%")[0]).is_loopback for address in addresses)


def _check(settings: DashboardSettings, *, local: bool) -> None:
    if settings.port > LARGEST_PORT:  # the system would take another one
        raise UsageError(
            f"--port is {settings.port}; give a whole number up to {LARGEST_PORT}, or 0 for one "
            "that is free."
        )
    if not (local or settings.allow_remote):
        raise UsageError(
            f"--host {settings.host} lets other machines in, and there is no password; add "
            "--allow-remote with a proxy that asks for one before it, or leave --host out."
        )
    if settings.writable and settings.allow_remote:
        raise UsageError(
            "--writable is for this machine alone, and --allow-remote for others: what they can "
            "reach stays read-only; leave one of them out."
        )


def _listen(settings: DashboardSettings) -> socket.socket:
    """A socket at the address; of a name with several, at the first, IPv4 before IPv6."""
    found = _addresses(settings.host)
    family, address = min(found, key=lambda it: it[0] is not socket.AF_INET)
    try:
        return socket.create_server((address, settings.port), family=family)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise UsageError(
            f"Nothing can listen at {settings.host}, port {settings.port}: {reason.lower()}; "
            "choose another one with --port, or 0 for one that is free."
        ) from error


def _url_of(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


def _greet(settings: DashboardSettings, url: str, console: Console) -> None:
    may = "notes can be written" if settings.writable else "read-only"
    shown = address_of(settings.storage).shown
    _say(console, f"optuna-dashboard of {shown}: {url} ({may}); Ctrl-C ends it")
    if settings.allow_remote:
        _say(
            console,
            "Whoever reaches this address sees every study, without a password: a proxy that asks "
            "for one belongs before it.",
        )


def _show(url: str, console: Console) -> None:
    if not webbrowser.open(url):
        _say(console, f"No browser could be opened; open {url} yourself.")


def _say(console: Console, words: str) -> None:
    console.print(words, markup=False, highlight=False, soft_wrap=True)
