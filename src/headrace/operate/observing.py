"""What a run tells its observer, and what an observer may ask of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headrace.log import Log
    from headrace.observe import Observer
    from headrace.observe.exposition import MetricsServer
    from headrace.operate.journal import Journal
    from headrace.operate.project import Home
    from headrace.operate.replicas import Replicas
    from headrace.store import Store

__all__ = ["open_observer", "serve_metrics"]


class _Facts:
    """See `RunFacts`."""

    def __init__(self, logs: Callable[[str], Log | None], replicas: Replicas, journal: Journal) -> None:
        self._logs = logs
        self._replicas = replicas
        self._journal = journal

    def log_of(self, stream: str) -> Log | None:
        """See `RunFacts`."""
        return self._logs(stream)

    def replica_states(self) -> Sequence[Mapping[str, Any]]:
        """See `RunFacts`."""
        return self._replicas.states()

    def journal_lines(self) -> Mapping[str, int]:
        """See `RunFacts`."""
        return self._journal.lines

    def observing_failed(self, error: Exception) -> None:
        """See `RunFacts`."""
        self._journal.warning("not observed", error=type(error).__name__, message=str(error))


def open_observer(
    home: Home,
    store: Store,
    streams: Mapping[str, timedelta],
    *,
    logs: Callable[[str], Log | None],
    replicas: Replicas,
    journal: Journal,
) -> Observer:
    """Return the observer of a run, not started; `streams` says the allowed lateness of each.

    `logs` gives logs apart from those that the engine reads.
    """
    from importlib.metadata import version

    from headrace.observe import Observer

    return Observer(
        store,
        _Facts(logs, replicas, journal),
        streams=streams,
        log_path=home.log_path,
        version=version("headrace"),
        known_names=home.profile.metrics.names == "both",
        alias=home.profile.metrics.alias,
    )


def serve_metrics(home: Home, observer: Observer) -> MetricsServer | None:
    """Serve `/metrics` where the profile says so. Raises RefusedError when the port is taken."""
    from headrace.observe.exposition import MetricsServer

    options = home.profile.metrics
    if options.port is None:
        return None
    return MetricsServer(observer.exposition, options.host, options.port)
