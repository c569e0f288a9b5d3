"""A local web server that can interrupt transfers, support ranges and send checksums."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server:
    """Files and behavior of the server; may be changed between requests.

    Attributes:
        files: path → content.
        headers: path → headers of its answers.
        redirects: path → where to, with headers of that answer.
        ranges: whether it takes `Range`.
        shift: by how much it misses where a range is to begin.
        break_after: bytes of a body after which it hangs up; None for the whole.
        busy: number of requests that it refuses with status 503, until tomorrow.
        requests: paths asked for, each with its `Range` header.
        url: its address.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.headers: dict[str, dict[str, str]] = {}
        self.redirects: dict[str, tuple[str, dict[str, str]]] = {}
        self.ranges = True
        self.shift = 0
        self.break_after: int | None = None
        self.busy = 0
        self.requests: list[tuple[str, str | None]] = []
        self.url = ""

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer one request."""
        path, wanted = handler.path.lstrip("/"), handler.headers.get("Range")
        self.requests.append((path, wanted))
        if self.busy:
            self.busy -= 1
            self._begin(handler, 503, {"Retry-After": "86400"}, b"")
            return
        if path in self.redirects:
            to, headers = self.redirects[path]
            self._begin(handler, 302, {"Location": f"{self.url}/{to}", **headers}, b"")
            return
        if path not in self.files:
            handler.send_error(404)
            return
        body, headers = self.files[path], dict(self.headers.get(path, {}))
        same = handler.headers.get("If-Range") == headers.get("ETag", headers.get("Last-Modified"))
        code = 200
        if wanted is not None and self.ranges and same:
            found = re.fullmatch(r"bytes=(\d+)-", wanted)
            assert found is not None
            start = int(found[1]) + self.shift
            if start >= len(body):
                handler.send_error(416)
                return
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
            body, code = body[start:], 206
        self._begin(handler, code, headers, body)

    def _begin(
        self, handler: BaseHTTPRequestHandler, code: int, headers: dict[str, str], body: bytes
    ) -> None:
        handler.send_response(code)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body[: self.break_after])
        handler.close_connection = True


@contextmanager
def serving() -> Iterator[Server]:
    """Run a server until the block ends."""
    server = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.answer(self)

        def log_message(self, *args: object) -> None:
            """Print nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        host, port = http.server_address[:2]
        server.url = "http://" + f"{host!s}:{port}"
        yield server
        http.shutdown()
