"""An API on a real HTTP server whose answers a test gives, and pollers of it that do not wait."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from headrace.log.backoff import Waiting
from headrace.log.between import read_between
from headrace.log.protocol import Log
from headrace.produce.polling import PAGE, Poller, PollSettings

Reply = tuple[int, dict[str, str], bytes]


class Api:
    """An API whose answers are given: to request `n`, what `reply` makes of its path and of `n`."""

    def __init__(self, reply: Callable[[str, int], Reply]) -> None:
        self.asked: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                status, headers, body = reply(self.path, len(outer.asked))
                self.send_response(status)
                given = {"Content-Length": str(len(body)), **headers}
                for name, value in given.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"


@contextmanager
def api(reply: Callable[[str, int], Reply]) -> Iterator[Api]:
    made = Api(reply)
    thread = threading.Thread(target=made.server.serve_forever, args=[0.01], daemon=True)
    thread.start()
    try:
        yield made
    finally:
        made.server.shutdown()
        made.server.server_close()
        thread.join()


def page(path: str, request: int) -> Reply:
    number = int(path.rpartition("=")[2])
    items = [{"id": f"{number}-{i}"} for i in range(3)]
    return 200, {}, json.dumps({"results": items}).encode()


def poller(
    api: Api,
    log: Log,
    *,
    waits: list[float] | None = None,
    tell: Callable[[Waiting | None], None] = lambda pause: None,
    **settings: Any,
) -> Poller:
    """A poller that does not wait: `waits` gets the pauses that it would have made."""

    def wait(seconds: float) -> bool:
        if waits is not None:
            waits.append(seconds)
        return False

    given = {"url": f"{api.url}/api/?page={PAGE}", "private_addresses": True, "every_s": 0.0, **settings}
    return Poller(PollSettings(**given), log, threading.Event(), tell=tell, wait=wait)


def values(log: Log) -> list[bytes]:
    ranges = log.partitions()
    found = []
    for records in read_between(
        log, {each.partition: each.start for each in ranges}, {each.partition: each.end for each in ranges}
    ):
        found += records.sort_by("offset").column("value").to_pylist()
    return found


def ids(log: Log) -> list[str]:
    return [json.loads(value)["id"] for value in values(log)]
