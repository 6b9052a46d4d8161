"""Serves an app in a thread of its own, on a socket that was bound before."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

import uvicorn

from headrace.errors import RefusedError

__all__ = ["bound_socket", "serving"]

_KEEP_ALIVE_S = 60
_STOP_S_MAX = 15
_BACKLOG = 512


def bound_socket(host: str, port: int) -> socket.socket:
    """Return a socket that is bound; port 0: one that is free. Raises RefusedError when it cannot be."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        opened = socket.socket(family, kind, protocol)
        try:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            opened.bind(address)
            # Two may bind a port that nobody listens on yet, and the second would learn it far from here.
            opened.listen(_BACKLOG)
        except OSError:
            opened.close()
            raise
    except OSError as error:
        raise RefusedError(
            f"cannot listen on {host}, port {port}: {error.strerror or error}",
            fix="stop what uses that port, or choose another one with --port",
        ) from None
    return opened


@contextlib.contextmanager
def serving(
    app: Any,
    listening: socket.socket,
    *,
    tls: tuple[str, str] | None = None,
    stop_s_max: int = _STOP_S_MAX,
) -> Iterator[threading.Event]:
    """Serve an ASGI app; on leaving, requests under way are answered first, for `stop_s_max` at most.

    `tls` names the files of certificate and key. Gives an event that is set when the server ended by itself,
    which is a failure. Raises RefusedError when the certificate cannot be used.
    """
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        server_header=False,
        backlog=_BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=stop_s_max,
        ssl_certfile=tls[0] if tls else None,
        ssl_keyfile=tls[1] if tls else None,
    )
    try:
        config.load()
    except OSError as error:  # ssl.SSLError is one
        listening.close()
        raise RefusedError(
            f"the TLS certificate cannot be used: {error.strerror or error}",
            fix="correct the paths of certificate and key in the profile",
        ) from None
    server = uvicorn.Server(config)
    listening.listen(_BACKLOG)  # whoever knocks before the server is up waits instead of being turned away
    ended = threading.Event()

    def work() -> None:
        try:
            server.run(sockets=[listening])
        finally:
            ended.set()

    thread = threading.Thread(target=work, name="headrace-http", daemon=True)
    thread.start()
    try:
        yield ended
    finally:
        server.should_exit = True
        thread.join()
        listening.close()
