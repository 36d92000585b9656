"""The report while a search runs: a server on this machine alone, which tells open pages of each finished trial."""

import http.server
import json
import re
import sys
import threading
import time
import warnings
from collections.abc import Callable
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, urlsplit

from regularity.report import _page

PORT = 8765  # where a search is looked for first, so that a page that is open finds one that goes on
_HOST = "127.0.0.1"
_SHARE = 0.2  # of the time that may go into drawing
_GONE = 5.0  # seconds after which a page that asks for nothing is taken for closed
_LAST = 15.0  # seconds that pages that are open have to fetch what is final


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
        self._over = self._failed = False
        self._asked: dict[str, float] = {}  # when each page asked last, by the name that it gave itself
        self._served: set[str] = set()  # those that have what is final
        self._server = _listening(port, _handler(self))
        self.url = f"http://{_HOST}:{self._server.server_port}/"

    def page(self) -> str:
        """All of the page as it is now."""
        self._draw()
        return _page.whole(self._drawn, self._status(), self._version, self._over)

    def news(self, since: int, page: str) -> dict[str, Any]:
        """What is new for a page that has a version; `served` is told when it has been sent."""
        self._asked[page] = time.monotonic()
        self._draw()
        found = {
            "study": self._unfinished.name, "version": self._version, "status": self._status(), "over": self._over,
        }  # fmt: skip
        if since != self._version:
            found |= {"title": self._drawn.title, "main": self._drawn.main, "charts": json.loads(self._drawn.charts)}
        return found

    def served(self, page: str, news: dict[str, Any]) -> None:
        """Note that a page has some news."""
        self._asked[page] = time.monotonic()
        if news["over"]:
            self._served.add(page)

    def finish(self, study: Any) -> None:
        """Show the whole report from now on, where a page is open; what fails here must not cost the search."""
        if not self._open():
            return
        before, self._doing = self._doing, lambda: "the search is done: training what each technique is worth"
        try:
            drawn = _page.drawn(study)
        except KeyboardInterrupt:  # whoever does not want to wait has the study all the same
            return
        except Exception as error:
            self._doing = before
            warnings.warn(f"The live report could not be finished: {type(error).__name__}: {error}", stacklevel=2)
            return
        with self._lock:
            self._drawn, self._over, self._version = drawn, True, self._version + 1

    def _open(self) -> set[str]:
        """The pages that have asked lately; one waits for what is drawn for it."""
        now = time.monotonic()
        return {page for page, asked in list(self._asked.items()) if now - asked < _GONE or self._lock.locked()}

    def _draw(self) -> None:
        """Draw the page anew where trials have finished, if there is time."""
        with self._lock:
            begun = time.monotonic()
            if self._over or begun < self._next:
                return
            try:
                trials = self._unfinished.finished
                if trials == self._trials:
                    return
                study = self._unfinished.study()
                if study is not None:
                    self._drawn, self._trials, self._version = _page.drawn(study), trials, self._version + 1
            except Exception as error:  # the page stays as it was
                if not self._failed:
                    warnings.warn(f"The live report fell behind: {type(error).__name__}: {error}", stacklevel=2)
                self._failed = True
            self._next = begun + (time.monotonic() - begun) / _SHARE

    def _status(self) -> str:
        return "The search is over." if self._over else self._doing()

    def __enter__(self) -> "Live":
        threading.Thread(target=self._server.serve_forever, name="live", daemon=True).start()
        print(f"Live at {self.url}", file=sys.stderr, flush=True)
        return self

    def __exit__(self, *error: object) -> None:
        until = time.monotonic() + _LAST
        try:
            while self._over and self._open() - self._served and time.monotonic() < until:
                time.sleep(0.05)
        except KeyboardInterrupt:
            pass  # whoever does not want to wait has the study all the same
        finally:
            self._server.shutdown()
            self._server.server_close()


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a browser that went away, and of all else only that it was."""
        error = sys.exc_info()[1]
        if not isinstance(error, ConnectionError):
            warnings.warn(f"The live report could not answer: {type(error).__name__}: {error}", stacklevel=2)


def _listening(port: int | bool, handler: Any) -> _Server:
    tried = (PORT, 0) if port is True else (port,)
    for number in tried:
        try:
            return _Server((_HOST, number), handler)
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
                since, page = (parse_qs(asked.query).get(name, [""])[0] for name in ("since", "page"))
                news = live.news(int(since) if re.fullmatch(r"\d{1,16}", since, re.ASCII) else -1, page[:64])
                self._send(json.dumps(news), "application/json")
                live.served(page[:64], news)
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
