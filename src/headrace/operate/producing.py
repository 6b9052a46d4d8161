"""The rate of a generator that runs: shown and changed from another process, through a socket of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.errors import ProfileError, RefusedError, TransientError
from headrace.operate.control import ControlServer, ask, socket_path

if TYPE_CHECKING:
    from headrace.produce.generator import Rate

__all__ = ["change_rate", "rate_from", "rate_of", "rate_text", "serve_rate"]

_ANSWER_S = 2.0
_UNLIMITED = "unlimited"
_PAUSED = "paused"
_RATE_MAX = 1e9


def rate_from(text: str) -> float | None:
    """Read events a second; None: unlimited, 0: paused. Raises ProfileError."""
    if text.strip().lower() in (_UNLIMITED, "none", "max"):
        return None
    if text.strip().lower() == _PAUSED:
        return 0.0
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0 < rate < _RATE_MAX:
        raise ProfileError(
            f"'{text[:20]}' is not a rate",
            fix=f"write events a second, such as 500, {_UNLIMITED} or {_PAUSED}",
        )
    return rate


def rate_text(rate: float | None) -> str:
    """Return what `rate_from` reads."""
    return _UNLIMITED if rate is None else f"{rate:g}" if rate else _PAUSED


@contextmanager
def serve_rate(data: Path, stream: str, rate: Rate) -> Iterator[None]:
    """Let others see and change `rate` until the block ends; of two generators of a stream, the first one's.

    `data` is the project's data folder. Where no socket can lie, as in a folder that cannot be written,
    nobody sees the rate, and the generator goes on.
    """
    if rate_of(data, stream) is not None:
        yield
        return

    def answer(request: Mapping[str, Any]) -> dict[str, Any]:
        if "to" in request:
            rate.events_per_second = rate_from(str(request["to"]))
        return {"rate": rate_text(rate.events_per_second)}

    server = None
    with suppress(OSError, RefusedError):
        data.mkdir(parents=True, exist_ok=True)
        server = ControlServer(_place(data, stream), {"rate": answer})
    try:
        yield
    finally:
        if server is not None:
            server.close()


def rate_of(data: Path, stream: str) -> str | None:
    """Return the rate of the generator that appends to a stream; None while none says so."""
    try:
        answer = ask(_place(data, stream), "rate", timeout_s=_ANSWER_S)
    except (OSError, TransientError, RefusedError):  # refused: no socket of ours can lie there
        return None
    return str(answer["rate"])


def change_rate(data: Path, stream: str, text: str) -> None:
    """Give a generator that runs another rate. Raises RefusedError when none runs any more."""
    try:
        ask(_place(data, stream), "rate", timeout_s=_ANSWER_S, to=text)
    except OSError:
        raise RefusedError(
            f"no generator of '{stream}' runs any more", fix="start one: headrace generate"
        ) from None


def _place(data: Path, stream: str) -> Path:
    return socket_path(data, f"generate-{stream}")
