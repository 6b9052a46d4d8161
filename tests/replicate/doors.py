"""Ways to a server which a test can shut; as a program: `doors.py URL PORT`, open until it is killed."""

from __future__ import annotations

import contextlib
import os
import socket
import socketserver
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from servers.guard import GuardedProcess, free_ports, wait_until

__all__ = ["Door", "DoorBeside"]


class Door:
    """A way to a server of this machine which can be shut: connections end, and new ones are refused.

    Not for Delta in this process, whose library holds the interpreter while it waits for an answer: for that,
    see `DoorBeside`. Of what comes to the server, the bytes of `words` become others.
    """

    def __init__(self, url: str, words: dict[bytes, bytes] | None = None, *, port: int | None = None) -> None:
        self._to = int(url.rpartition(":")[2])
        self._words = words or {}
        self._sockets: set[socket.socket] = set()
        self._port = free_ports(1)[0] if port is None else port
        self.url = f"http://127.0.0.1:{self._port}"
        self._open()

    def _open(self) -> None:
        door = self

        class Passing(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with (
                    contextlib.suppress(OSError),
                    socket.create_connection(("127.0.0.1", door._to)) as server,
                ):
                    both = {self.request, server}
                    door._sockets |= both
                    back = threading.Thread(target=_pass_on, args=(server, self.request, {}))
                    back.start()
                    _pass_on(self.request, server, door._words)
                    back.join()
                    door._sockets -= both

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True

        self._server = Server(("127.0.0.1", self._port), Passing)
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.socket.close()
        for each in list(self._sockets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._server.server_close()

    @contextmanager
    def shut(self) -> Iterator[None]:
        self.close()
        try:
            yield
        finally:
            self._open()


def _pass_on(one: socket.socket, other: socket.socket, words: dict[bytes, bytes]) -> None:
    with contextlib.suppress(OSError):
        while said := one.recv(65_536):
            for word, instead in words.items():
                said = said.replace(word, instead)
            other.sendall(said)
    for each in (one, other):
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


class DoorBeside:
    """A door in a process of its own; what it prints is in `folder`."""

    def __init__(self, url: str, folder: Path) -> None:
        (self._port,) = free_ports(1)
        self._command = [sys.executable, __file__, url, str(self._port)]
        self._output = folder / "door.log"
        self.url = f"http://127.0.0.1:{self._port}"
        self._open()

    def _open(self) -> None:
        path = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self._process = GuardedProcess(self._command, output=self._output, environment=path)
        wait_until(self._is_open, what="the door is open", seconds=120, process=self._process)

    def _is_open(self) -> bool:
        with socket.socket() as there:
            return there.connect_ex(("127.0.0.1", self._port)) == 0

    def close(self) -> None:
        self._process.kill()

    @contextmanager
    def shut(self) -> Iterator[None]:
        self.close()
        try:
            yield
        finally:
            self._open()


if __name__ == "__main__":
    Door(sys.argv[1], port=int(sys.argv[2]))
    threading.Event().wait()
