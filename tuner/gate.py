"""The WSGI application in front of optuna-dashboard: who may come in, and for what."""

import html
import json
import re
import socket
from collections.abc import Callable, Iterable
from http import HTTPStatus
from ipaddress import ip_address
from typing import Any
from wsgiref.headers import Headers

READING = ("GET", "HEAD")
# What may be written with --writable: the note of a study or a trial.
NOTE = re.compile(r"/api/studies/\d+(/\d+)?/note")

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
            return self._page(self.application, environ, start_response)
        return self.application(environ, start_response)

    def _page(
        self, application: Application, environ: Environ, start_response: StartResponse
    ) -> Iterable[bytes]:
        """optuna-dashboard's one page, without the buttons of what is refused."""
        buttons = _WRITING_BUTTONS if self._writable else (*_WRITING_BUTTONS, _NOTE_BUTTON)
        style = f"<style>{', '.join(buttons)} {{ display: none !important }}</style></head>"
        begun: list[Any] = []
        environ = {name: it for name, it in environ.items() if not name.startswith("HTTP_IF_")}
        answer = application(environ, lambda *it: begun.append(it))
        body = b"".join(answer).replace(b"</head>", style.encode(), 1)
        if close := getattr(answer, "close", None):
            close()
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


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
