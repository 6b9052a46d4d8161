"""Signups: how long a user takes from the API's answer until Cassandra has its row."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench.replicas.case import cassandra_server

PAGE = 100
EVERY_S = 6
"""1,000 users a minute are a page of 100 every six seconds."""
BAR_S = 1.0
_LOOKED_FOR = 10
"""Of a page, so many users are looked for, first and last among them: all would keep Cassandra busy."""
_LOOK_S = 0.02
_STEP_S = 300.0


class Api:
    """Pages of made-up users, and when each of them was given for the first time."""

    def __init__(self) -> None:
        self.given: dict[int, float] = {}

    def page(self, seed: str, page: int, results: int) -> dict[str, Any]:
        """Answer as the API does."""
        from headrace.blueprints.signups.people import page_of_people

        made = page_of_people(seed, page, results)
        self.given.setdefault(page, time.monotonic())
        return made


def signups(minutes: float) -> dict[str, tuple[float, list[float]]]:
    """Return the bar and the delay of each user, in seconds."""
    from headrace.web.registry import RegistryServer
    from headrace.web.serving import bound_socket, serving
    from headrace.web.users import users_app

    with ExitStack() as undo:
        base = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="headrace-bench-")))
        cassandra = undo.enter_context(cassandra_server())
        registry, api = RegistryServer(base / "registry.db"), Api()
        thread = threading.Thread(target=registry.run, daemon=True)
        thread.start()
        undo.callback(thread.join)
        undo.callback(registry.stop)
        listening = bound_socket("127.0.0.1", 0)
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        undo.enter_context(serving(users_app(api.page), listening))
        folder = base / "signups"
        prepare(folder, url, registry.url)
        run = subprocess.Popen(
            [sys.executable, "-m", "headrace", "run", "--profile", "cassandra"], cwd=folder,
            env={**os.environ, "CASSANDRA_HOSTS": cassandra}, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        undo.callback(run.wait)
        undo.callback(run.kill)
        seconds = watched(cassandra, api, round(minutes * 60 / EVERY_S))
        print(f"the run's process had {memory_mb(run.pid):,.0f} MB at most", flush=True)
        run.send_signal(signal.SIGINT)
        run.wait(_STEP_S)
        return {"cassandra": (BAR_S, seconds)}


def memory_mb(process: int) -> float:
    """Return how much memory a process has had at most, resident; Linux tells."""
    told = Path(f"/proc/{process}/status").read_text()
    return int(told.partition("VmHWM:")[2].split()[0]) / 1024


def prepare(folder: Path, api: str, registry: str) -> None:
    """Write the project with these addresses, and nothing served beside it."""
    from headrace.blueprints import write_project

    write_project("signups", folder)
    path = folder / "headrace.toml"
    text, profile = path.read_text(), '[profiles.cassandra]\nengine = "local"\n'
    changed = {"http://127.0.0.1:8610": api, "http://127.0.0.1:8081": registry}
    for old, new in {**changed, profile: profile + 'page.serve = "off"\n'}.items():
        if old not in text:
            raise ValueError(f"the blueprint's profile has no {old!r}")
        text = text.replace(old, new)
    path.write_text(text)


def watched(cassandra: str, api: Api, pages: int) -> list[float]:
    """Look for users of each page in Cassandra until they are there; return how long each of them took.

    The first page is left out: with it come keyspace, tables and connections. In the end Cassandra has each
    user of these pages, and none that the API did not give, or this raises.
    """
    from headrace.blueprints.signups.people import person
    from servers.cassandra import connected

    seconds: list[float] = []
    with connected(cassandra) as session:
        for page in range(1, pages + 2):
            _until(lambda page=page: page in api.given, f"page {page} is asked for")
            numbers = [page * PAGE - 1, *range((page - 1) * PAGE, page * PAGE - 1, PAGE // (_LOOKED_FOR - 1))]
            missing = {person("headrace", number)["login"]["uuid"] for number in numbers}
            while missing:
                now = time.monotonic()
                if now - api.given[page] > _STEP_S:
                    raise RuntimeError(f"page {page} has not come into Cassandra")
                there = _those_there(session, missing)
                missing -= there
                if page > 1:
                    seconds += [time.monotonic() - api.given[page]] * len(there)
                threading.Event().wait(_LOOK_S)
        _compare(session, api, pages + 1)
    return seconds


def _compare(session: Any, api: Api, pages: int) -> None:
    from headrace.blueprints.signups.people import person

    def users_of(pages: int) -> set[str]:
        return {person("headrace", number)["login"]["uuid"] for number in range(pages * PAGE)}

    found = {row["id"] for row in session.execute("SELECT id FROM spark_streams.created_users")}
    if missing := users_of(pages) - found:
        raise RuntimeError(f"{len(missing)} of {pages * PAGE} users are not in Cassandra")
    if strange := found - users_of(max(api.given)):
        raise RuntimeError(f"{len(strange)} users are in Cassandra that the API did not give")
    print(f"{len(found):,} users in Cassandra, of {max(api.given)} pages of {PAGE}", flush=True)


def _those_there(session: Any, wanted: set[str]) -> set[str]:
    from cassandra import InvalidRequest
    from cassandra.cluster import NoHostAvailable

    listed = ", ".join(f"'{each}'" for each in sorted(wanted))
    try:
        found = session.execute(f"SELECT id FROM spark_streams.created_users WHERE id IN ({listed})")
        return {row["id"] for row in found}
    except (InvalidRequest, NoHostAvailable):  # the table is not made yet, or only just
        return set()


def _until(condition: Any, what: str) -> None:
    deadline, pause = time.monotonic() + _STEP_S, threading.Event()
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what}: not in {_STEP_S:g} s")
        pause.wait(_LOOK_S)
