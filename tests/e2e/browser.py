"""A headless Chromium that shows pages to tests, by the DevTools protocol, without a library."""

import base64
import http.client
import json
import os
import shutil
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

PATIENCE = 60.0  # seconds, for an answer
# Blink's numbers for a fine pointer that hovers, which a browser without a screen has not.
_MOUSE = (
    "primaryPointerType=4",
    "availablePointerTypes=4",
    "primaryHoverType=2",
    "availableHoverTypes=2",
)
_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    # WebGL without a graphics card.
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    f"--blink-settings={','.join(_MOUSE)}",
    "--remote-debugging-port=0",
)


def browser_program() -> str:
    """The browser; skips the test without one, or fails it under CI."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if program := shutil.which(name):
            return program
    message = "no chromium or google-chrome on the PATH"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


class _Socket:
    """A WebSocket to the browser: text messages only."""

    def __init__(self, port: int, path: str) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self._stream = self._socket.makefile("rb")
        key = base64.b64encode(os.urandom(16)).decode()
        self._socket.sendall(
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n"
            "Sec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        assert b"101" in self._stream.readline()
        while self._stream.readline().strip():
            pass

    def send(self, text: str) -> None:
        payload = text.encode()
        mask = os.urandom(4)
        size = len(payload)
        if size < 126:
            head = struct.pack("!BB", 0x81, 0x80 | size)
        elif size < 1 << 16:
            head = struct.pack("!BBH", 0x81, 0x80 | 126, size)
        else:
            head = struct.pack("!BBQ", 0x81, 0x80 | 127, size)
        masked = bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload))
        self._socket.sendall(head + mask + masked)

    def receive(self) -> str:
        parts = []
        while True:
            first, second = self._stream.read(2)
            size = second & 127
            if size == 126:
                (size,) = struct.unpack("!H", self._stream.read(2))
            elif size == 127:
                (size,) = struct.unpack("!Q", self._stream.read(8))
            payload = self._stream.read(size)
            if first & 15 in {0, 1}:
                parts.append(payload)
                if first & 128:
                    return b"".join(parts).decode()

    def close(self) -> None:
        self._stream.close()
        self._socket.close()


class Page:
    """A page in a browser of its own.

    Attributes:
        console: the errors and warnings that it logged, exceptions and refusals included.
        requests: the URLs that it asked a network for.
    """

    def __init__(self, port: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        connection.request("GET", "/json/list")
        targets = json.loads(connection.getresponse().read())
        connection.close()
        path = next(one["id"] for one in targets if one["type"] == "page")
        self._socket = _Socket(port, f"/devtools/page/{path}")
        self._last = 0
        self._events: list[str] = []
        self.console: list[str] = []
        self.requests: list[str] = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the protocol, and return its result."""
        self._last += 1
        self._socket.send(json.dumps({"id": self._last, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.receive())
            if message.get("id") == self._last:
                assert "error" not in message, (method, message["error"])
                return message["result"]
            self._note(message)

    def _note(self, message: dict[str, Any]) -> None:
        params = message.get("params", {})
        self._events.append(message.get("method", ""))
        if message.get("method") == "Runtime.consoleAPICalled":
            if params["type"] in {"error", "warning", "assert"}:
                words = [str(one.get("value", one.get("description"))) for one in params["args"]]
                self.console.append(" ".join(words))
        elif message.get("method") == "Runtime.exceptionThrown":
            self.console.append(json.dumps(params["exceptionDetails"]))
        elif message.get("method") == "Log.entryAdded":
            text = params["entry"]["text"]
            # WebGL without a graphics card says that it is slow.
            if params["entry"]["level"] in {"error", "warning"} and "GL Driver" not in text:
                self.console.append(text)
        elif message.get("method") == "Network.requestWillBeSent":
            url = params["request"]["url"]
            if not url.startswith(("file:", "data:", "blob:", "about:")):
                self.requests.append(url)

    def emulate(self, width: int, height: int = 900, *, dark: bool = False) -> None:
        """Give the page a viewport of this size, and its reader a preference."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media="", features=[scheme])

    def open(self, place: Path | str) -> None:
        """Load a file, or what a server on this machine has at an address."""
        self._events.clear()
        url = place if isinstance(place, str) else place.resolve().as_uri()
        self.call("Page.navigate", url=url)
        self.wait_for("document.readyState === 'complete'")

    def evaluate(self, script: str) -> Any:
        """The value of a JavaScript expression; a promise's value is waited for."""
        answer = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait_for(self, condition: str) -> None:
        """Wait until a JavaScript expression is true."""
        end = time.monotonic() + PATIENCE
        while not self.evaluate(f"Boolean({condition})"):
            assert time.monotonic() < end, f"{condition} never came; console: {self.console}"
            time.sleep(0.1)

    def screenshot(self, file: Path, *, full_page: bool = True) -> None:
        """Write what is seen as a PNG; the whole page, or what fits the window."""
        options: dict[str, Any] = {"captureBeyondViewport": full_page}
        if full_page:
            size = self.call("Page.getLayoutMetrics")["cssContentSize"]
            options["clip"] = {**size, "x": 0, "y": 0, "scale": 1}
        picture = self.call("Page.captureScreenshot", format="png", **options)
        file.write_bytes(base64.b64decode(picture["data"]))

    def pdf(self, file: Path) -> None:
        """Print to a file, on A4."""
        paper = {"paperWidth": 8.27, "paperHeight": 11.69}
        answer = self.call("Page.printToPDF", preferCSSPageSize=True, **paper)
        file.write_bytes(base64.b64decode(answer["data"]))

    def close(self) -> None:
        self._socket.close()


@contextmanager
def open_page(
    place: Path | str, width: int, height: int = 900, *, dark: bool = False
) -> Iterator[Page]:
    """Show a file, or an address on this machine, in a browser that ends with the block."""
    program = browser_program()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [program, *_FLAGS, f"--user-data-dir={profile}", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            page = Page(_port(Path(profile, "DevToolsActivePort"), process))
            with closing(page):
                page.emulate(width, height, dark=dark)
                page.open(place)
                yield page
        finally:
            process.terminate()
            process.wait(PATIENCE)


def _port(file: Path, process: "subprocess.Popen[bytes]") -> int:
    end = time.monotonic() + PATIENCE
    while not (file.exists() and file.read_text().count("\n")):
        assert process.poll() is None, "the browser has ended"
        assert time.monotonic() < end, "the browser does not answer"
        time.sleep(0.05)
    return int(file.read_text().split()[0])
