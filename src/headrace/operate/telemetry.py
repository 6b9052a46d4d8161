"""Traces and lineage of a run, where the profile names somebody who wants them; otherwise nothing at all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from headrace.errors import fit_to_tell
from headrace.operate.datasets import steps_of
from headrace.operate.extras import missing_extra

if TYPE_CHECKING:
    from headrace.engine.local.settings import EpochReport
    from headrace.observe.forwarding import Signal
    from headrace.observe.metrics import Sample
    from headrace.operate.journal import Journal
    from headrace.operate.project import Project
    from headrace.operate.secrets import Secret
    from headrace.sql.plan import PipelinePlan

__all__ = ["Telemetry"]


class Telemetry:
    """What a run tells to receivers, from `start` to `stop`. One that is away is in nobody's way.

    Raises ProfileError for a secret that leads nowhere, and where headrace[telemetry] is not installed.
    """

    def __init__(self, project: Project, plan: PipelinePlan, journal: Journal) -> None:
        self._journal = journal
        self._signals: tuple[Signal, ...] = ()
        if project.profile.telemetry.wanted:
            try:
                self._signals = tuple(self._wanted(project, plan))
            except ImportError as error:  # of telemetry's own, or of a database that lineage names
                raise missing_extra(error, "telemetry") or error from error

    def start(self) -> None:
        """Say that the run begins."""
        for signal in self._signals:
            signal.start(datetime.now(UTC))

    def committed(self, report: EpochReport) -> None:
        """Take the report of an epoch, from the engine's thread. Returns at once."""
        for signal in self._signals:
            signal.committed(report, datetime.now(UTC))

    def tick(self, now: datetime, samples: Sequence[Sample]) -> None:
        """Note that time passes; see `Observer.on_tick`."""
        for signal in self._signals:
            signal.tick(now)

    def stop(self, error: BaseException | None) -> None:
        """Say that the run is over, and why if it failed. Takes a few seconds when a receiver is away."""
        for signal in self._signals:
            signal.stop(datetime.now(UTC), "" if error is None else _shown(error))

    def close(self) -> None:
        """Give back connections."""
        for signal in self._signals:
            signal.close()

    def states(self) -> list[dict[str, Any]]:
        """Return how each receiver is served; see `Forwarding.state`."""
        return [signal.state() for signal in self._signals]

    def _wanted(self, project: Project, plan: PipelinePlan) -> Iterator[Signal]:
        from importlib.metadata import version

        options, pipeline = project.profile.telemetry, project.pipeline.name
        if options.traces is not None:
            from headrace.observe.traces import EpochTraces, Traces

            headers = _revealed(options.traces_headers)
            spans = EpochTraces(options.traces, headers, pipeline=pipeline, version=version("headrace"))
            yield Traces(spans, self._failed)
        if options.lineage is not None:
            from headrace.observe.lineage import About, Lineage, LineageEvents

            about = About(
                pipeline=pipeline,
                namespace=options.lineage_namespace,
                engine=project.profile.engine,
                version=version("headrace"),
                steps=steps_of(project, plan),
            )
            events = LineageEvents(options.lineage, _revealed(options.lineage_key), about)
            yield Lineage(events, self._failed, every=options.lineage_every)

    def _failed(self, signal: str, why: str) -> None:
        self._journal.warning("telemetry", signal=signal, why=why)


def _revealed(secret: Secret | None) -> str | None:
    return None if secret is None else secret.reveal()


def _shown(error: BaseException) -> str:
    """Return what may leave this machine."""
    kind = type(error).__name__
    return f"{kind}: {error.message}" if fit_to_tell(error) else kind
