"""A gate in front of a search server, as companies have one: it asks who comes, speaks TLS, limits bodies."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

__all__ = ["API_KEY", "PASSWORD", "USER", "gate"]

USER, PASSWORD, API_KEY = "writer", "a secret of the tests", "c29tZTprZXk="
_REJECTED = {"type": "es_rejected_execution_exception", "reason": "rejected execution of a bulk"}
_PASSES = {f"Basic {base64.b64encode(f'{USER}:{PASSWORD}'.encode()).decode()}", f"ApiKey {API_KEY}"}


@contextmanager
def gate(
    url: str, *, bytes_max: int = 10**9, tls: ssl.SSLContext | None = None, busy: Sequence[str] = ()
) -> Iterator[str]:
    """Let those through to `url` who say who they are; larger bodies are answered with 413.

    The first bulk requests find the server `busy`: for the whole "request", or for each of its "items".
    """
    left = list(busy)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _pass(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            if self.headers.get("authorization") not in _PASSES:
                self._answer(401, b'{"error":{"type":"security_exception","reason":"who are you"}}')
            elif len(body) > bytes_max:
                self._answer(413, b"<html>too large</html>")
            elif "_bulk" in self.path and left:
                if left.pop(0) == "request":
                    self._answer(429, json.dumps({"error": _REJECTED}).encode())
                else:
                    items = [{"index": {"status": 429, "error": _REJECTED}}] * (body.count(b"\n") // 2)
                    self._answer(200, json.dumps({"errors": True, "items": items}).encode())
            else:
                server = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
                kind = {"content-type": self.headers.get("content-type", "application/json")}
                server.request(self.command, self.path, body or None, kind if body else {})
                answer = server.getresponse()
                self._answer(answer.status, answer.read())
                server.close()

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass

        def log_message(self, *words: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
