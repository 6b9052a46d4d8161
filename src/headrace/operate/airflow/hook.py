"""A project, as tasks of Airflow ask it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.declare.words import did_you_mean
from headrace.errors import ProfileError
from headrace.operate.airflow.versions import BaseHook

if TYPE_CHECKING:
    from headrace.operate.client import StoreClient
    from headrace.operate.project import Project
    from headrace.produce.polling import PollReport

__all__ = ["HeadraceHook"]


class HeadraceHook(BaseHook):
    """Answers about the project in a folder, from its running pipeline or from its store.

    It has no connection of Airflow's: where things are stands in the project's profile. Every method raises
    what the command line would say: ProfileError, RefusedError, TransientError.
    """

    def __init__(self, project: str, profile: str | None = None) -> None:
        super().__init__()
        self._folder = project
        self._profile = profile

    @cached_property
    def project(self) -> Project:
        """The project, read once."""
        from headrace.operate.project import load_project

        return load_project(Path(self._folder), profile=self._profile)

    @contextmanager
    def client(self) -> Iterator[StoreClient]:
        """Give what answers; it is closed after."""
        from headrace.operate.client import connect

        client = connect(self.project)
        try:
            yield client
        finally:
            client.close()

    def poll(self, stream: str, seconds: float, stop: threading.Event | None = None) -> PollReport:
        """Poll the API of a stream for so long, or until `stop`; its answers are durable in the log then."""
        from headrace.operate.pollers import open_poller

        poller, log = open_poller(self.project, stream, stop or threading.Event())
        try:
            return poller.run(seconds=seconds)
        finally:
            log.close()

    def status(self) -> dict[str, Any]:
        """Return positions, lag, frontiers, outcomes, as `headrace status --json` does."""
        with self.client() as client:
            return client.status()

    def lag(self, status: dict[str, Any], stream: str) -> int | None:
        """Return how many records of a stream were not read yet; None when its log does not answer."""
        self._require(stream)
        lag: int | None = status["streams"].get(stream, {}).get("lag_records")
        return lag

    def open_windows(self, status: dict[str, Any], table: str, until: datetime) -> int:
        """Return how many windows of a table that began until then can still change.

        Raises ProfileError for a table that has no windows.
        """
        known = {each["table"]: each for each in status["tables"]}
        if table not in known or known[table]["kind"] != "windowed":
            windowed = [name for name, each in known.items() if each["kind"] == "windowed"]
            raise ProfileError(
                f"the pipeline has no table '{table}' with windows{did_you_mean(table, windowed)}",
                fix="one of: " + ", ".join(windowed) if windowed else "wait for the lag alone",
            )
        closed = known[table]["closed_through"]
        still = f" AND window_end > TIMESTAMPTZ '{closed}'" if closed else ""
        name = table.replace('"', '""')
        return self._count(f"\"{name}\" WHERE window_start <= TIMESTAMPTZ '{until.isoformat()}'{still}")

    def dead_letters_since(self, stream: str, since: datetime) -> int:
        """Return how many records of a stream were set aside that the log took since then."""
        text = stream.replace("'", "''")
        since_then = f"record_time >= TIMESTAMPTZ '{since.isoformat()}'"
        return self._count(f"dead_letters WHERE stream = '{text}' AND {since_then}")

    def _count(self, rows: str) -> int:
        with self.client() as client:
            return int(client.query(f"SELECT count(*) AS n FROM {rows}").to_pylist()[0]["n"])

    def _require(self, stream: str) -> None:
        known = [each.name for each in self.project.pipeline.streams]
        if stream not in known:
            raise ProfileError(
                f"the pipeline has no stream '{stream}'{did_you_mean(stream, known)}",
                fix="one of: " + ", ".join(known),
            )
