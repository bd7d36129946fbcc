"""A webhook on the loopback, which keeps what is posted to it."""

import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PATH = "/services/planted-hook-secret"
"""The secret path of the webhook."""


class Hook:
    """What was posted, with the seconds of a monotonic clock."""

    def __init__(self, statuses: Sequence[int], seconds: float) -> None:
        """`statuses`: of the first replies; later ones are 200. `seconds`: until each reply."""
        self.statuses, self.seconds = list(statuses), seconds
        self.received: list[dict[str, Any]] = []
        """What was answered with 200."""
        self.times: list[float] = []
        """Of every attempt."""
        self.url = ""

    def events(self) -> list[str]:
        return [each["event"] for each in self.received]


@contextmanager
def hook(*statuses: int, seconds: float = 0.0) -> Iterator[Hook]:
    """Serve a webhook for the block."""
    found = Hook(statuses, seconds)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            found.times.append(time.monotonic())
            content = self.rfile.read(int(self.headers["Content-Length"]))
            assert self.path == PATH and self.headers["Content-Type"] == "application/json"
            status = found.statuses.pop(0) if found.statuses else 200
            time.sleep(found.seconds)
            if status == 200:
                found.received.append(json.loads(content))
            self.send_response(status)
            if status == 302:
                self.send_header("Location", f"http://127.0.0.1:{self.server.server_address[1]}/x")
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.url = f"http://127.0.0.1:{server.server_address[1]}{PATH}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
