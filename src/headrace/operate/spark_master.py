"""The workers of a standalone cluster, as its master's own page tells them.

A driver knows its executors, and not which machines there are for more; the master's page does (`/json/`).
Nothing depends on it: it is asked beside the run, and what cannot be asked is said in words.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from headrace.operate.project import Project

__all__ = ["MasterPage", "master_page_of"]

_SCHEME = "spark://"
_PAGE_PORT = 8080
_ASKED_EVERY_S = 10.0
_ANSWER_S_MAX = 3.0
_MEGABYTE = 1024 * 1024
_ANSWER_BYTES_MAX = 4 * _MEGABYTE
_BACKUP = "STANDBY"


def master_page_of(project: Project) -> MasterPage | None:
    """Return where the workers of this profile's cluster are told; None without a standalone master."""
    options = project.profile.spark
    master = options.conf.get("spark.master", "")
    if project.profile.engine != "spark" or not master.startswith(_SCHEME):
        return None
    if options.master_page is not None:
        return MasterPage([options.master_page.rstrip("/")])
    places = (urlsplit(f"//{each}").hostname for each in master.removeprefix(_SCHEME).split(","))
    hosts = [f"[{host}]" if ":" in host else host for host in places if host]
    return MasterPage([f"http://{host}:{_PAGE_PORT}" for host in hosts])


class MasterPage:
    """Asks one of several masters, of which one leads, every 10 seconds at most, in a thread of its own."""

    def __init__(self, addresses: Sequence[str], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._addresses = tuple(addresses)
        self._clock = clock
        self._lock = threading.Lock()
        self._asked: float | None = None
        self._asking: threading.Thread | None = None
        self._told: dict[str, Any] = {"workers": None, "workers_problem": ""}

    def facts(self) -> dict[str, Any]:
        """Return `workers` as told last, None while they are not known, and why; waits for nothing."""
        with self._lock:
            now = self._clock()
            over = self._asking is None or not self._asking.is_alive()
            if over and (self._asked is None or now - self._asked >= _ASKED_EVERY_S):
                self._asked = now
                self._asking = threading.Thread(target=self.ask, name="headrace-spark-master", daemon=True)
                self._asking.start()
            return self._told

    def ask(self) -> None:
        """Ask now, and keep the answer for `facts`."""
        problems = []
        for address in self._addresses:
            try:
                workers = _workers(_document(address))
            except _NotTold as problem:
                problems.append(f"{_public(address)}: {problem}")
            else:
                self._told = {"workers": workers, "workers_problem": ""}
                return
        self._told = {"workers": None, "workers_problem": "; ".join(problems)}


class _NotTold(Exception):
    """A page does not tell its workers; the text says why."""


def _public(address: str) -> str:
    """Return an address without the user and password that may stand in it."""
    before, _, place = address.rpartition("@")
    scheme = re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", before)
    return f"{scheme[0] if scheme else ''}{place}"


def _document(address: str) -> Any:
    import httpx

    until, body = time.monotonic() + _ANSWER_S_MAX, bytearray()
    try:
        # Not through a proxy: a cluster's pages are inside of one's own network.
        with (
            httpx.Client(timeout=_ANSWER_S_MAX, trust_env=False) as client,
            client.stream("GET", f"{address}/json/", headers={"Accept-Encoding": "identity"}) as answer,
        ):
            answer.raise_for_status()
            for piece in answer.iter_raw():
                body += piece
                if len(body) > _ANSWER_BYTES_MAX:
                    raise _NotTold("is no page of a master")
                if time.monotonic() > until:  # the client's own limit is one for each piece
                    raise _NotTold("no answer in time")
        return json.loads(bytes(body))
    except httpx.TimeoutException as error:
        raise _NotTold("no answer in time") from error
    except httpx.HTTPStatusError as error:
        raise _NotTold(f"answers {error.response.status_code}") from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise _NotTold("cannot be reached") from error
    except (ValueError, RecursionError) as error:
        raise _NotTold("is no page of a master") from error


def _workers(document: Any) -> list[dict[str, Any]]:
    if not isinstance(document, Mapping) or not isinstance(document.get("workers"), list):
        raise _NotTold("is no page of a master")
    if document.get("status") == _BACKUP:
        raise _NotTold("stands by for the master that leads")
    try:
        return [
            {
                "worker": f"{each['host']}:{each['port']}",
                "state": str(each["state"]).lower(),
                "cores": int(each["cores"]),
                "cores_used": int(each["coresused"]),
                "memory_bytes": int(each["memory"]) * _MEGABYTE,
                "memory_used_bytes": int(each["memoryused"]) * _MEGABYTE,
            }
            for each in document["workers"]
        ]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise _NotTold("is no page of a master") from error
