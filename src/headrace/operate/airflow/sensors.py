"""A task that waits until what was appended can be seen in the tables."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar

from headrace.errors import RefusedError, TransientError
from headrace.operate.airflow.hook import HeadraceHook
from headrace.operate.airflow.versions import BaseSensorOperator

__all__ = ["HeadraceSensor"]


class HeadraceSensor(BaseSensorOperator):
    """Waits until a stream is read, and its windows are closed.

    lag_max           so many records may still wait to be read
    closed_table      a table of which every window that began until `until` (ISO 8601) has to be closed
    dead_letters_max  so many records may be set aside of those that the log took since `since` (ISO 8601);
                      more of them end the task with an error. None: as many as there are
    """

    template_fields: ClassVar[Sequence[str]] = ("project", "profile", "stream", "until", "since")

    def __init__(
        self,
        *,
        project: str,
        stream: str,
        profile: str | None = None,
        lag_max: int = 0,
        closed_table: str = "",
        until: str = "",
        dead_letters_max: int | None = None,
        since: str = "",
        **of_airflow: Any,
    ) -> None:
        super().__init__(**of_airflow)
        self.project = project
        self.stream = stream
        self.profile = profile
        self.lag_max = lag_max
        self.closed_table = closed_table
        self.until = until
        self.dead_letters_max = dead_letters_max
        self.since = since

    def poke(self, context: Any) -> bool:
        """Return whether it is so; called by Airflow. Raises RefusedError for too many dead letters."""
        hook = HeadraceHook(self.project, self.profile)
        try:
            status = hook.status()
        except TransientError as error:
            self.log.info("asked again: %s", error.message)
            return False
        lag = hook.lag(status, self.stream)
        self.log.info("%s: %s records wait", self.stream, "no one knows how many" if lag is None else lag)
        if lag is None or lag > self.lag_max:
            return False
        if self.dead_letters_max is not None:
            self._require_few(hook)
        if not self.closed_table:
            return True
        until = _instant(self.until) if self.until else datetime.now(UTC)
        windows = hook.open_windows(status, self.closed_table, until)
        self.log.info("%s: %s windows are open", self.closed_table, windows)
        return windows == 0

    def _require_few(self, hook: HeadraceHook) -> None:
        since = _instant(self.since) if self.since else datetime(1970, 1, 1, tzinfo=UTC)
        found = hook.dead_letters_since(self.stream, since)
        if self.dead_letters_max is not None and found > self.dead_letters_max:
            raise RefusedError(
                f"{found} records of '{self.stream}' were set aside since {since.isoformat()}, "
                f"{self.dead_letters_max} at most are wanted",
                fix=f"headrace dead-letters list --stream {self.stream}",
            )


def _instant(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found
