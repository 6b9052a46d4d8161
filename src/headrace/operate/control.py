"""The local socket of a running pipeline: other processes ask it, because it alone holds the store.

One request a connection. The request is a line of JSON, `{"ask": NAME, …}`. The answer is a line of JSON:
`{"ok": true, "body": …}`, or `{"ok": true, "arrow_bytes": n}` and then an Arrow IPC stream of n bytes, or
`{"ok": false, "error": {"kind", "message", "fix"}}`. Whoever may open the socket (its owner) may ask.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import stat
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace import errors
from headrace.errors import HeadraceError, InternalError, RefusedError, TransientError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["CONNECTIONS_MAX", "ControlServer", "Handler", "ask", "socket_path"]

Handler = Callable[[Mapping[str, Any]], "pa.Table | dict[str, Any]"]

REQUEST_BYTES_MAX = 1024 * 1024
CONNECTIONS_MAX = 16
_BUSY_S = 0.2
_PATIENCE_S = 10.0  # a stranger that connects and says nothing keeps a thread for this long
_PATH_BYTES_MAX = 100  # a socket path may have 104 bytes on one system, 108 on another


def socket_path(data: Path, name: str = "control") -> Path:
    """Return where a socket of the project with this data folder lies.

    A path that is too long for a socket moves to a folder of this user's own below the temporary folder,
    under a name made of the path. Raises RefusedError when somebody else has made that folder.
    """
    path = data / f"{name}.sock"
    if len(bytes(path)) <= _PATH_BYTES_MAX:
        return path
    short = hashlib.sha256(bytes(path)).hexdigest()[:16]
    return _private_folder(Path(tempfile.gettempdir()) / f"headrace-{os.getuid()}") / f"{short}.sock"


def _private_folder(folder: Path) -> Path:
    """Make a folder that nobody else may enter; its name can be guessed, so look whose it is."""
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    facts = folder.lstat()
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid() or stat.S_IMODE(facts.st_mode) & 0o077:
        raise RefusedError(
            f"{folder} is not a folder of this user alone, so the socket cannot lie there",
            fix="remove it, set TMPDIR to a folder of your own, or move the project to a shorter path",
        )
    return folder


class ControlServer:
    """Answers requests in threads of its own until `close`; an error in a request is its answer."""

    def __init__(self, path: Path, handlers: Mapping[str, Handler]) -> None:
        self.path = path
        self._handlers = dict(handlers)
        self._slots = threading.BoundedSemaphore(CONNECTIONS_MAX)
        self._closed = threading.Event()
        # The store of this pipeline is ours by now, so whoever left this file behind is gone.
        path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        mask = os.umask(0o177)  # there is no moment at which somebody else could connect
        try:
            self._socket.bind(str(path))
        finally:
            os.umask(mask)
        self._socket.listen(CONNECTIONS_MAX)
        self._thread = threading.Thread(target=self._accept, name="headrace-control", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop answering and remove the socket."""
        self._closed.set()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # `close` alone does not wake a thread in `accept`
        self._socket.close()
        self._thread.join(timeout=1)
        self.path.unlink(missing_ok=True)

    def _accept(self) -> None:
        while not self._closed.is_set():
            # With all slots taken, further callers wait in the socket's queue until their own patience ends.
            if not self._slots.acquire(timeout=_BUSY_S):
                continue
            try:
                connection, _ = self._socket.accept()
            except OSError:  # too many open files, or `close`: look again in a moment
                self._slots.release()
                self._closed.wait(_BUSY_S)
                continue
            threading.Thread(
                target=self._serve, args=(connection,), name="headrace-control-answer", daemon=True
            ).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection:
                connection.settimeout(_PATIENCE_S)
                try:
                    answer = self._answer(_read_line(connection))
                except HeadraceError as error:
                    _send_error(connection, error)
                except Exception as error:  # noqa: BLE001 - one question must never end the pipeline
                    _send_error(connection, InternalError(f"{type(error).__name__}: {error}"))
                else:
                    _send(connection, answer)
        finally:
            self._slots.release()

    def _answer(self, line: bytes) -> pa.Table | dict[str, Any]:
        try:
            request = json.loads(line)
        except ValueError:
            request = None
        if not isinstance(request, dict) or not isinstance(request.get("ask"), str):
            raise RefusedError("the request is not a line of JSON with the key 'ask'")
        handler = self._handlers.get(request["ask"])
        if handler is None:
            raise RefusedError("the request asks for something unknown", fix=", ".join(self._handlers))
        return handler(request)


def ask(path: Path, name: str, *, timeout_s: float, **arguments: Any) -> Any:
    """Ask the server at `path`: a pyarrow table or what the JSON body holds.

    Raises the error that the server answered with; ConnectionError when nobody listens there.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout_s)
        try:
            connection.connect(str(path))
            connection.sendall(json.dumps({"ask": name, **arguments}).encode() + b"\n")
            connection.shutdown(socket.SHUT_WR)
            with connection.makefile("rb") as stream:
                head = stream.readline()
                if not head:
                    raise ConnectionResetError("the pipeline went away before it answered")
                answer = json.loads(head)
                if not answer["ok"]:
                    raise _error_from(answer["error"])
                if "arrow_bytes" in answer:
                    return _table_from(stream.read(answer["arrow_bytes"]), answer["arrow_bytes"])
                return answer["body"]
        except TimeoutError:
            raise TransientError(
                f"the running pipeline did not answer within {timeout_s:.0f} s", fix="try again"
            ) from None


def _read_line(connection: socket.socket) -> bytes:
    received = bytearray()
    while b"\n" not in received:
        try:
            piece = connection.recv(65536)
        except OSError:
            raise RefusedError("the request did not end") from None
        if not piece:
            break
        received += piece
        if len(received) > REQUEST_BYTES_MAX:
            raise RefusedError("the request is longer than 1 MiB", fix="ask for less")
    return bytes(received)


def _send(connection: socket.socket, answer: pa.Table | dict[str, Any]) -> None:
    # A reader that went away is its own affair.
    with contextlib.suppress(OSError):
        if isinstance(answer, dict):
            connection.sendall(json.dumps({"ok": True, "body": answer}).encode() + b"\n")
            return
        import pyarrow as pa

        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, answer.schema) as writer:
            writer.write_table(answer)
        buffer = sink.getvalue()
        connection.sendall(json.dumps({"ok": True, "arrow_bytes": buffer.size}).encode() + b"\n")
        connection.sendall(buffer)


def _send_error(connection: socket.socket, error: HeadraceError) -> None:
    facts = {"kind": type(error).__name__, "message": error.message, "fix": error.fix}
    with contextlib.suppress(OSError):
        connection.sendall(json.dumps({"ok": False, "error": facts}).encode() + b"\n")


def _error_from(facts: Mapping[str, str]) -> HeadraceError:
    kind = getattr(errors, facts["kind"], RefusedError)
    if kind in (errors.DeclarationError, errors.InternalError) or not issubclass(kind, HeadraceError):
        kind = RefusedError
    error: HeadraceError = kind(facts["message"], fix=facts["fix"])
    return error


def _table_from(data: bytes, expected: int) -> pa.Table:
    import pyarrow as pa

    if len(data) != expected:
        raise ConnectionResetError("the pipeline went away before it answered")
    with pa.ipc.open_stream(pa.py_buffer(data)) as reader:
        return reader.read_all()
