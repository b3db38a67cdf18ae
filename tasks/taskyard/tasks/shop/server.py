"""Serve the sample shop on the loopback address with the standard library's server."""

from __future__ import annotations

import secrets
import sys
import threading
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from types import TracebackType
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from taskyard.tasks.shop.faults import SLOW_S, Fault, FaultSwitch
from taskyard.tasks.shop.site import Answer, Request, answer
from taskyard.tasks.shop.stock import Visitor

__all__ = ["ShopServer", "feature_text"]

_COOKIE: Final = "shop_session"
_MAX_BODY_BYTES: Final = 100_000
_MAX_VISITORS: Final = 1_000
_STALLED_CLIENT_S: Final = 20.0


def feature_text() -> str:
    """Return the feature file that describes the shop."""
    return (files("taskyard.tasks.shop") / "checkout.feature").read_text(encoding="utf-8")


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, port: int, faults: FaultSwitch) -> None:
        self.faults, self.closing = faults, threading.Event()
        self._visitors: dict[str, Visitor] = {}
        self._lock = threading.Lock()
        super().__init__(("127.0.0.1", port), _Handler)

    def visitor(self, session: str | None) -> tuple[str, Visitor]:
        """Return the visitor of a session; a new visitor for an unknown session."""
        with self._lock:
            if session in self._visitors:
                return str(session), self._visitors[str(session)]
            while len(self._visitors) >= _MAX_VISITORS:
                self._visitors.pop(next(iter(self._visitors)))
            key = secrets.token_urlsafe(16)
            return key, self._visitors.setdefault(key, Visitor())

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print an error, except that of a visitor who closed the connection."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: _Listener
    timeout = _STALLED_CLIENT_S

    def do_GET(self) -> None:
        """Answer a page request."""
        self._answer("GET", urlsplit(self.path).query)

    def do_POST(self) -> None:
        """Answer a form."""
        length = self.headers.get("Content-Length") or "0"
        if not length.isdecimal() or int(length) > _MAX_BODY_BYTES:
            self.send_error(413)
            return
        self._answer("POST", self.rfile.read(int(length)).decode("utf-8", "replace"))

    def _answer(self, method: str, fields: str) -> None:
        fault = self.server.faults.now()
        if fault is Fault.SLOW:
            self.server.closing.wait(SLOW_S)
        session, visitor = self.server.visitor(self._session())
        form = dict(parse_qsl(fields, keep_blank_values=True))
        path = urlsplit(self.path).path
        self._send(answer(method, Request(path, form, visitor, fault)), session)

    def _session(self) -> str | None:
        try:
            morsel = SimpleCookie(self.headers.get("Cookie", "")).get(_COOKIE)
        except CookieError:
            return None
        return None if morsel is None else morsel.value

    def _send(self, reply: Answer, session: str) -> None:
        body = reply.body.encode()
        self.send_response(reply.status)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Set-Cookie", f"{_COOKIE}={session}; Path=/; HttpOnly; SameSite=Lax")
        if reply.location is not None:
            self.send_header("Location", reply.location)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Print nothing: requests are not logged."""


class ShopServer:
    """A running shop, as long as the `with` block lasts.

    `port` 0 takes a free port. `break_with` and `repair` change the shop at once, for every
    visitor; so does `fault_file`, from outside the process.
    """

    def __init__(self, port: int = 0, fault_file: Path | None = None) -> None:
        self._faults = FaultSwitch(fault_file)
        self._listener = _Listener(port, self._faults)
        self._thread = threading.Thread(target=self._serve, name="shop", daemon=True)

    def _serve(self) -> None:
        self._listener.serve_forever(poll_interval=0.05)

    @property
    def url(self) -> str:
        """Return the shop's address."""
        return f"http://127.0.0.1:{self._listener.server_address[1]}"

    def break_with(self, fault: Fault) -> None:
        """Break the shop from now on."""
        self._faults.fault = fault

    def repair(self) -> None:
        """Remove the fault (a fault file still breaks the shop)."""
        self._faults.fault = None

    def wait(self) -> None:
        """Serve until the process is interrupted."""
        self._thread.join()

    def __enter__(self) -> ShopServer:
        """Start serving."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop serving, and end requests that a fault delays."""
        self._listener.closing.set()
        self._listener.shutdown()
        self._thread.join()
        self._listener.server_close()
