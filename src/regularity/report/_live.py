"""The report while a search runs: a server on this machine alone, which tells open pages of each finished trial."""

import http.server
import json
import sys
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, urlsplit

from regularity.report import _page

PORT = 8765  # where a search is looked for first, so that a page that is open finds one that goes on
_HOST = "127.0.0.1"
_SHARE, _RARELY = 0.2, 15.0  # of the time that may go into drawing, and seconds after which it may in any case
_GONE = 3.0  # seconds after which a page that asks for nothing is taken for closed
_LAST = 10.0  # seconds that a page that is open has to fetch what is final


class Live:
    """Serves the report of a search from `with` on, until open pages have what is final.

    Args:
        unfinished: Says how many trials are `finished` of the study with its `name`, and gives the `study` they make.
        doing: Says what it does just now.
        port: Where, or True for the usual port, or another that is free.

    Raises:
        ValueError: If the port is taken or none.
    """

    def __init__(self, unfinished: Any, doing: Callable[[], str], port: int | bool) -> None:
        self._unfinished, self._doing = unfinished, doing
        self._lock = threading.Lock()
        self._drawn = _page.waiting(unfinished.name)
        # a page of an earlier run that is still open has another version, whatever it has seen
        self._version, self._trials, self._next = time.time_ns() // 1_000_000, 0, 0.0
        self._over = self._fetched = False
        self._asked = -_GONE
        self._server = _listening(port, _handler(self))
        self.url = f"http://{_HOST}:{self._server.server_port}/"

    def page(self) -> str:
        """All of the page as it is now."""
        self._draw()
        return _page.whole(self._drawn, self._status(), self._version)

    def news(self, since: int) -> dict[str, Any]:
        """What is new for a page that has a version."""
        self._asked = time.monotonic()
        self._draw()
        found = {"version": self._version, "status": self._status(), "over": self._over}
        if since != self._version:
            found |= {"title": self._drawn.title, "main": self._drawn.main, "charts": json.loads(self._drawn.charts)}
        self._fetched |= self._over
        return found

    def finish(self, study: Any) -> None:
        """Show the whole report from now on."""
        drawn = _page.drawn(study)
        with self._lock:
            self._drawn, self._over, self._version = drawn, True, self._version + 1

    def _draw(self) -> None:
        """Draw the page anew where trials have finished, if there is time."""
        with self._lock:
            begun = time.monotonic()
            if self._over or begun < self._next:
                return
            trials = self._unfinished.finished
            if trials == self._trials:
                return
            study = self._unfinished.study()
            if study is not None:
                self._drawn, self._trials, self._version = _page.drawn(study), trials, self._version + 1
            took = time.monotonic() - begun
            self._next = begun + min(took / _SHARE, took + _RARELY)

    def _status(self) -> str:
        return "The search is over." if self._over else self._doing()

    def __enter__(self) -> "Live":
        threading.Thread(target=self._server.serve_forever, name="live", daemon=True).start()
        print(f"Live at {self.url}", file=sys.stderr, flush=True)
        return self

    def __exit__(self, *error: object) -> None:
        until = time.monotonic() + _LAST
        while self._over and not self._fetched and time.monotonic() < min(until, self._asked + _GONE):
            time.sleep(0.05)
        self._server.shutdown()
        self._server.server_close()


def _listening(port: int | bool, handler: Any) -> http.server.ThreadingHTTPServer:
    tried = (PORT, 0) if port is True else (port,)
    for number in tried:
        try:
            return http.server.ThreadingHTTPServer((_HOST, number), handler)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            if number == tried[-1]:
                raise ValueError(
                    "Invalid value received for argument `live`. Expected True, or a port of this machine that is free, from "
                    f"1024 to 65535. Received: live={port!r} ({reason})"
                ) from error
    raise AssertionError


def _handler(live: Live) -> Any:
    """A request handler for one live report."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            # a name that somebody has pointed at this machine is not answered to: other sites could read the page by it
            if self.headers.get("Host", "").rpartition(":")[0] not in (_HOST, "localhost"):
                self.send_error(HTTPStatus.FORBIDDEN)
                return
            asked = urlsplit(self.path)
            if asked.path == "/":
                self._send(live.page(), "text/html")
            elif asked.path == "/news":
                since = parse_qs(asked.query).get("since", [""])[0]
                self._send(json.dumps(live.news(int(since) if since.isdecimal() else -1)), "application/json")
            else:
                self.send_error(HTTPStatus.NOT_FOUND)

        def _send(self, text: str, kind: str) -> None:
            body = text.encode()
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing: the terminal has the search's own line."""

    return Handler
