"""One server for all test processes of this user: one per process would take the machine away from them.

The server belongs to a keeper (this file as a program), a process that listens on a socket. A connection to
it is one use of the server and tells its address. When the last one is closed, also by the death of its
process, the keeper stops the server and ends. Tests must not see each other: they use random names.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import selectors
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

__all__ = ["shared_server"]

_TESTS = Path(__file__).parents[1]
_START_S_MAX = 120
_READY = b"ready\n"


@contextmanager
def shared_server(factory: str) -> Iterator[str]:
    """Use the server that `factory` ("module:function") makes, and start it when nobody has yet.

    The function is a context manager without arguments that runs the server and gives its address, a text.
    """
    # Another checkout has keepers of its own: its servers may be others.
    place = hashlib.sha256(f"{_TESTS} {factory}".encode()).hexdigest()[:12]
    folder = Path(tempfile.gettempdir()) / f"headrace-servers-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    with (folder / f"{place}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        use = _joined(folder / f"{place}.socket")
        if use is None:
            _start(factory, folder / f"{place}.socket", folder / f"{place}.log")
            use = _joined(folder / f"{place}.socket")
    if use is None:
        raise RuntimeError(f"the keeper of {factory} ended at once: {(folder / f'{place}.log').read_text()}")
    connection, address = use
    with connection:
        yield address


def _joined(path: Path) -> tuple[socket.socket, str] | None:
    """Return a connection to the keeper and what it says; None when there is none, or it is just leaving."""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(10)
    try:
        connection.connect(str(path))
        said = connection.makefile("r", encoding="utf-8").readline()
    except OSError:
        said = ""
    if not said.endswith("\n"):
        connection.close()
        return None
    return connection, said.rstrip("\n")


def _start(factory: str, path: Path, output: Path) -> None:
    path.unlink(missing_ok=True)
    with output.open("w") as file:
        keeper = subprocess.Popen(
            # -P: beside this file lies `cassandra.py`, which is not the driver of that name.
            [sys.executable, "-P", __file__, factory, str(path)],
            env={**os.environ, "PYTHONPATH": str(_TESTS)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=file,
            start_new_session=True,
        )
    assert keeper.stdout is not None
    said = keeper.stdout.readline()
    keeper.stdout.close()
    keeper.returncode = 0  # it outlives us: nothing to wait for, and nothing to warn about
    if said != _READY:
        raise RuntimeError(f"the server of {factory} did not start:\n{output.read_text()[-3000:]}")


def _keep(factory: str, path: str) -> None:
    module, function = factory.split(":")
    with getattr(import_module(module), function)() as address, socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen(64)
        with selectors.DefaultSelector() as selector:
            selector.register(listening, selectors.EVENT_READ)
            os.write(1, _READY)
            uses = 0
            # Who started the keeper may be dead before it joins.
            while events := selector.select(None if uses else _START_S_MAX):
                for key, _ in events:
                    if key.fileobj is listening:
                        use, _ = listening.accept()
                        use.sendall(f"{address}\n".encode())
                        selector.register(use, selectors.EVENT_READ)
                        uses += 1
                    else:
                        assert isinstance(key.fileobj, socket.socket)
                        selector.unregister(key.fileobj)
                        key.fileobj.close()
                        uses -= 1
                if not uses:
                    break
        listening.close()
        Path(path).unlink(missing_ok=True)


if __name__ == "__main__":
    _keep(sys.argv[1], sys.argv[2])
