"""Reads a run's page as somebody would who looks at it: `python page_reader.py page|console|slow ADDRESS`.

A program of its own, so that reading takes nothing from the run's process. It prints "ready" when the page's
stream of events is open, and, when its standard input ends, what was read as a line of JSON. A question for
the console is read from the variable `QUESTION` of the environment.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
import urllib.request
from urllib.parse import urlsplit

ASKED_EVERY_S = 5.0
BUFFER_BYTES = 4_096
QUIET_S = 0.5


def main() -> None:
    """Read until standard input ends, and tell what was read."""
    way, address = sys.argv[1:]
    read = {"events": 0, "bytes": 0, "answers": 0, "rows": 0}
    over = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
    if way == "slow":
        read_nothing(address, over, read)
    else:
        live = urllib.request.urlopen(address + "/api/live")
        threading.Thread(target=take_events, args=(live, read), daemon=True).start()
        print("ready", flush=True)
        while way == "console" and not over.is_set():
            # The first questions come before there are rows: a person would ask again sooner, too.
            over.wait(ASKED_EVERY_S if ask_console(address, read) else QUIET_S)
        over.wait()
    print(json.dumps(read), flush=True)
    # Threads still read from the page, whose end nobody waits for.
    os._exit(0)


def take_events(live: object, read: dict[str, int]) -> None:
    """Count every event and every byte of the stream."""
    for line in live:  # type: ignore[attr-defined]
        read["bytes"] += len(line)
        read["events"] += line.startswith(b"event:")


def ask_console(address: str, read: dict[str, int]) -> int:
    """Ask the console a question; count and return the rows of its answer."""
    asked = json.dumps({"sql": os.environ["QUESTION"]}).encode()
    request = urllib.request.Request(address + "/api/query", asked, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        rows = len(json.load(answer)["rows"])
    read["answers"] += 1
    read["rows"] += rows
    return rows


def read_nothing(address: str, over: threading.Event, read: dict[str, int]) -> None:
    """Open the stream and leave what comes where it is; at the end count what had been sent by then."""
    where = urlsplit(address)
    with socket.socket() as stream:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
        stream.connect((where.hostname, where.port))
        stream.sendall(f"GET /api/live HTTP/1.1\r\nHost: {where.netloc}\r\n\r\n".encode())
        print("ready", flush=True)
        over.wait()
        ends = time.monotonic() + QUIET_S
        stream.settimeout(QUIET_S)
        while time.monotonic() < ends:
            try:
                piece = stream.recv(1 << 16)
            except TimeoutError:
                break
            if not piece:
                break
            read["bytes"] += len(piece)
            read["events"] += piece.count(b"event:")


if __name__ == "__main__":
    main()
