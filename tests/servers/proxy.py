"""An HTTP proxy that misbehaves as told: what a server that goes away, hangs or breaks looks like to a client."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Lock, Thread

PASS, ERROR, HANG, DROP, LOSE = "pass", "500", "hang", "drop", "lose"  # DROP: before the server sees it; LOSE: after
HOPS = ("connection", "keep-alive", "transfer-encoding", "content-length", "host")


class Proxy:
    """In front of 127.0.0.1:`upstream`. `rule(number, method, path)` says what becomes of each request."""

    def __init__(self, upstream: int) -> None:
        self.upstream, self.requests = upstream, 0
        self.rule: Callable[[int, str, str], str] = lambda number, method, path: PASS
        self.port = 0
        self._lock, self._freed = Lock(), Event()
        self.start()

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def always(self, what: str) -> None:
        self.rule = lambda number, method, path: what
        if what != HANG:
            self._freed.set()
            self._freed = Event()

    def start(self) -> None:
        """Listen, on the same port as before."""
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.0"  # a connection per request: the next one meets the rule of its own time

            def handle_any(self) -> None:
                proxy.handle(self)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Refuse connections."""
        self._freed.set()
        self._server.shutdown()
        self._server.server_close()

    def handle(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        with self._lock:
            number, self.requests = self.requests, self.requests + 1
        what = self.rule(number, request.command, request.path)
        if what == HANG:
            self._freed.wait(60)
            return
        if what == DROP:
            return
        if what == ERROR:
            request.send_error(500)
            return
        headers = {name: value for name, value in request.headers.items() if name.lower() not in HOPS}
        with suppress(OSError, HTTPException):
            connection = HTTPConnection("127.0.0.1", self.upstream, timeout=60)
            connection.request(request.command, request.path, body, headers)
            answer = connection.getresponse()
            content = answer.read()
            connection.close()
            if what == LOSE:
                return
            request.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in HOPS:
                    request.send_header(name, value)
            request.send_header("Content-Length", str(len(content)))
            request.end_headers()
            request.wfile.write(content)


def waited(condition: Callable[[], bool], seconds: float = 30.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()
