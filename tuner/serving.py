"""What `tuner dashboard` does: optuna-dashboard behind waitress, which can only read.

::

    browser ──> waitress ──> Gate ──> optuna-dashboard ──> storage that can only read ──> database
                             405, 403, waiting

optuna-dashboard has no accounts and no read-only mode. Two independent doors are shut here: `Gate`
lets through GET and HEAD alone, and the storage and the artifact store that it gets refuse to be
written. ``--writable`` opens both for notes.
"""

import html
import inspect
import json
import os
import re
import signal
import socket
import threading
import webbrowser
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from http import HTTPStatus
from ipaddress import ip_address
from typing import Any, BinaryIO, NoReturn
from wsgiref.headers import Headers

import optuna_dashboard
import waitress
from bottle import HTTPError
from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.storages import BaseStorage
from rich.console import Console

from tuner.artifacts import store_of
from tuner.errors import NoDatabase, StorageError, UsageError
from tuner.settings import DashboardSettings
from tuner.storage import Database, address_of, is_transient, open_database, storage_errors
from tuner.wording import redact

# How often to look for a database that is not there yet, in seconds.
LOOK_SECONDS = 1.0
# Requests that are answered at the same time; a browser has up to six connections.
THREADS = 8

LARGEST_PORT = 2**16 - 1

READING = ("GET", "HEAD")
# What may be written with --writable: the note of a study or a trial. optuna-dashboard keeps both
# in the study's system attributes, and so needs that one method of its storage.
NOTE = re.compile(r"/api/studies/\d+(/\d+)?/note")
NOTES_METHOD = "set_study_system_attr"


READ_ONLY = "This dashboard is read-only: {method} {path} is refused."
_WAITING_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta http-equiv="refresh" content="2">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>Waiting</title>
<style>:root{{color-scheme:light dark}}body{{font:16px/1.5 system-ui,sans-serif;max-width:34rem;
margin:20vh auto;padding:0 1rem}}p{{opacity:.75}}</style></head>
<body><h1>Waiting for the database</h1><p>{reason}</p><p>This page looks again by itself.</p></body>
</html>"""

# What optuna-dashboard 0.21 offers and is refused here: a button that only says no is not shown.
_WRITING_BUTTONS = (
    "button:has([data-testid=AddBoxIcon])",  # create a study
    "[aria-label='rename study']",
    "[aria-label='delete study']",
    "[aria-label='delete artifact']",
    ".MuiCard-root:has([data-testid=UploadFileIcon])",
)
_NOTE_BUTTON = "button:has([data-testid=EditIcon])"

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]


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


class Gate:
    """The WSGI application in front: who may come in, and for what.

    Args:
        names: by which browsers may call it, beside this machine's own name and any address in
            digits. A browser that calls it otherwise is refused: a page of somebody else could have
            its own name lead here, and read what only those may read who can reach this.
        writable: whether notes may be written.

    Attributes:
        application: optuna-dashboard, once the database is there.
        waiting_for: until then, a sentence about what is missing.
    """

    def __init__(self, names: Iterable[str], *, writable: bool) -> None:
        self.application: Application | None = None
        self.waiting_for = ""
        self._names = {name.lower() for name in (*names, socket.gethostname(), "localhost")}
        self._writable = writable

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        method, path = str(environ["REQUEST_METHOD"]), _path_of(environ)
        if path is None:
            words = "The path of this request is no text in UTF-8."
            return _answer(start_response, HTTPStatus.BAD_REQUEST, words)
        if not self._is_called_right(str(environ.get("HTTP_HOST", ""))):
            words = (
                "This dashboard does not go by the name in the address: call it by 127.0.0.1 or "
                "localhost, or start it with --name and the name."
            )
            return _answer(start_response, HTTPStatus.FORBIDDEN, words)
        if not (method in READING or self._may_write(method, path)):
            words = READ_ONLY.format(method=method, path=path)
            allowed = ("Allow", ", ".join(READING))
            return _answer(start_response, HTTPStatus.METHOD_NOT_ALLOWED, words, allowed)
        if self.application is None:
            return self._wait(path, start_response)
        # Optuna-dashboard's own parser of paths must not see another one than we do.
        environ = {**environ, "PATH_INFO": path.encode().decode("latin-1")}
        environ.setdefault("HTTP_ACCEPT_ENCODING", "identity")  # it takes it for granted
        start_response = _careful(start_response)
        if path == "/dashboard" or path.startswith("/dashboard/"):
            return self._page(environ, start_response)
        return self.application(environ, start_response)

    def _page(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """optuna-dashboard's one page, without the buttons of what is refused."""
        buttons = _WRITING_BUTTONS if self._writable else (*_WRITING_BUTTONS, _NOTE_BUTTON)
        style = f"<style>{', '.join(buttons)} {{ display: none !important }}</style></head>"
        begun: list[Any] = []
        environ = {name: it for name, it in environ.items() if not name.startswith("HTTP_IF_")}
        body = b"".join(self.application(environ, lambda *it: begun.append(it)))  # type: ignore[misc]
        body = body.replace(b"</head>", style.encode(), 1)
        status, headers, *more = begun[0]
        kept = Headers(headers)
        for name in ("Content-Length", "Etag", "Last-Modified", "Accept-Ranges"):
            del kept[name]  # of the page as it was
        kept["Cache-Control"] = "no-cache"
        start_response(status, kept.items(), *more)
        return [body]

    def _is_called_right(self, host: str) -> bool:
        """Whether the Host header has a name of ours, or an address; old clients send none."""
        name = re.sub(r":\d*$", "", host).lower()
        return not name or name in self._names or _is_address(name.strip("[]"))

    def _may_write(self, method: str, path: str) -> bool:
        return self._writable and method == "PUT" and NOTE.fullmatch(path) is not None

    def _wait(self, path: str, start_response: StartResponse) -> Iterable[bytes]:
        """For people a page that looks again by itself, for programs JSON."""
        later = ("Retry-After", "2")
        if path.startswith("/api/"):
            return _answer(start_response, HTTPStatus.SERVICE_UNAVAILABLE, self.waiting_for, later)
        page = _WAITING_PAGE.format(reason=html.escape(self.waiting_for)).encode()
        status = HTTPStatus.SERVICE_UNAVAILABLE
        kind = ("Content-Type", "text/html; charset=utf-8")
        start_response(f"{status.value} {status.phrase}", [kind, later])
        return [page]


def _answer(
    start_response: StartResponse, status: HTTPStatus, words: str, *headers: tuple[str, str]
) -> list[bytes]:
    """A sentence in the form that optuna-dashboard's page shows to people."""
    body = json.dumps({"reason": words}).encode()
    start_response(
        f"{status.value} {status.phrase}", [("Content-Type", "application/json"), *headers]
    )
    return [body]


def _path_of(environ: Environ) -> str | None:
    """The path that is asked for, with one slash at its beginning; None if it is no text."""
    try:
        path = str(environ.get("PATH_INFO", "")).encode("latin-1").decode()
    except UnicodeError:
        return None
    return f"/{path.lstrip('/')}"


def _careful(start_response: StartResponse) -> StartResponse:
    """Let no browser run a file that somebody attached to a trial, nor another page read it.

    Nothing but the page itself, which brings a policy of its own, has to be run.
    """

    def start(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
        kept = Headers(headers)
        kept["X-Content-Type-Options"] = "nosniff"
        kept.setdefault("Content-Security-Policy", "sandbox")
        del kept["Access-Control-Allow-Origin"]
        return start_response(status, kept.items(), *more)

    return start


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
        self._database: Database | None = None
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
        self._database = database
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
        if self._database is not None:
            self._database.close()


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


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


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
