"""Traces of a run for OpenTelemetry: each epoch a span, with a span for each of its stages.

They go by OTLP over HTTP, through OpenTelemetry's own exporter. What its environment variables say of service
name, resource, sampler and certificates holds here as well.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.trace import Link, SpanKind, Status, StatusCode, get_current_span, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.re import parse_env_headers

from headrace.errors import ProfileError
from headrace.observe.forwarding import QUEUE_MAX, Forwarding

if TYPE_CHECKING:
    from headrace.engine.local.settings import EpochReport

__all__ = ["EpochTraces", "Traces"]

_TIMEOUT_S = 3.0
_FIRST_STAGES = ("read", "rows")
_PATH = "/v1/traces"


@dataclass(frozen=True)
class _Ended:
    """An epoch that was committed at `at`, or a run that ended then with `error`."""

    at: datetime
    report: EpochReport | None = None
    error: str = ""

    @property
    def spans(self) -> int:
        """How many spans it is."""
        return 1 if self.report is None else 1 + len(self.report.seconds)


class Traces:
    """The signal `traces`; see `Signal`."""

    def __init__(
        self, receiver: EpochTraces, failed: Callable[[str, str], None], *, queue_max: int = QUEUE_MAX
    ) -> None:
        self._receiver = receiver
        # The exporter tries again by itself.
        self._forwarding: Forwarding[_Ended] = Forwarding(
            "traces", self._send, size=lambda item: item.spans, failed=failed, tries=1, queue_max=queue_max
        )
        self.state = self._forwarding.state

    def start(self, now: datetime) -> None:
        """See `Signal`."""
        self._forwarding.start()

    def committed(self, report: EpochReport, now: datetime) -> None:
        """See `Signal`."""
        self._forwarding.offer(_Ended(now, report))

    def tick(self, now: datetime) -> None:
        """See `Signal`."""

    def stop(self, now: datetime, error: str) -> None:
        """See `Signal`."""
        if error:
            self._forwarding.offer(_Ended(now, error=error))
        self._forwarding.stop()

    def close(self) -> None:
        """See `Signal`."""
        self._receiver.close()

    def _send(self, items: Sequence[_Ended]) -> None:
        for item in items:
            if item.report is None:
                self._receiver.failed(item.at, item.error)
            else:
                self._receiver.epoch(item.at, item.report)
        self._receiver.send()


class EpochTraces:
    """Makes spans and sends them to `endpoint`; one without a path gets OTLP's own.

    headers  NAME=VALUE, several with commas, as in OTEL_EXPORTER_OTLP_HEADERS; else ProfileError
    """

    def __init__(self, endpoint: str, headers: str | None, *, pipeline: str, version: str) -> None:
        if urlsplit(endpoint).path in ("", "/"):
            endpoint = endpoint.rstrip("/") + _PATH
        # What it would write to the terminal is told in the journal, once; of headers it would tell secrets.
        for name in (OTLPSpanExporter.__module__, parse_env_headers.__module__):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        given = None if headers is None else _parsed(headers)
        self._exporter = OTLPSpanExporter(endpoint=endpoint, headers=given, timeout=_TIMEOUT_S)
        self._ended = _EndedSpans()
        about = {"service.name": "headrace", "service.version": version, "headrace.pipeline": pipeline}
        provider = TracerProvider(resource=_resource(about), shutdown_on_exit=False)
        provider.add_span_processor(self._ended)
        self._tracer = provider.get_tracer("headrace", version)

    def send(self) -> None:
        """Deliver the spans that were made. Raises ConnectionError; they are not delivered again."""
        spans = self._ended.take()
        if spans and self._exporter.export(spans) is not SpanExportResult.SUCCESS:
            raise ConnectionError("the receiver did not take them")

    def close(self) -> None:
        """End what is being tried."""
        self._exporter.shutdown()  # type: ignore[no-untyped-call]

    def epoch(self, at: datetime, report: EpochReport) -> None:
        """Make the spans of an epoch that was committed at `at`.

        Stages are laid end to end before that: an epoch is read while the one before it is written.
        """
        ends = _nanoseconds(at.timestamp())
        begins = ends - sum(_nanoseconds(each) for each in report.seconds.values())
        span = self._tracer.start_span(
            "epoch",
            context=Context(),  # each epoch is a trace of its own
            kind=SpanKind.CONSUMER,
            attributes=dict(_facts(report)),
            links=list(_links(report)),
            start_time=begins,
        )
        inside = set_span_in_context(span)
        reached = begins
        for stage in (*_FIRST_STAGES, *(each for each in report.seconds if each not in _FIRST_STAGES)):
            if stage in report.seconds:
                part = self._tracer.start_span(stage, context=inside, start_time=reached)
                reached += _nanoseconds(report.seconds[stage])
                part.end(reached)
        span.end(ends)

    def failed(self, at: datetime, error: str) -> None:
        """Make the span of a run that failed."""
        when = _nanoseconds(at.timestamp())
        span = self._tracer.start_span("run failed", context=Context(), start_time=when)
        span.set_status(Status(StatusCode.ERROR, error))
        span.end(when)


class _EndedSpans(SpanProcessor):
    """Keeps the spans that ended until they are taken; one thread makes and takes them."""

    def __init__(self) -> None:
        self._spans: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        """See `SpanProcessor`."""
        self._spans.append(span)

    def take(self) -> list[ReadableSpan]:
        """Return the spans, once."""
        spans, self._spans = self._spans, []
        return spans


def _parsed(headers: str) -> Mapping[str, str]:
    """Return the headers by name. One that cannot be sent is refused; it may hold a secret."""
    found: dict[str, str] = {}
    for number, part in enumerate(filter(str.strip, headers.split(",")), 1):
        parsed = parse_env_headers(part, liberal=True)
        if not parsed or not all(value.isascii() and value.isprintable() for value in parsed.values()):
            raise ProfileError(
                f"header {number} of telemetry.traces_headers is not NAME=VALUE",
                fix="write it like api-key=…; spaces, commas and quotes of a value as %20, %2C and %22",
            )
        found.update(parsed)
    return found


def _resource(about: Mapping[str, str]) -> Resource:
    """Return what is said of the service: what the environment names comes first."""
    named = Resource.create()
    own = {name: value for name, value in about.items() if name != "service.name" or _unnamed(named)}
    return named.merge(Resource(own))


def _unnamed(resource: Resource) -> bool:
    return str(resource.attributes.get("service.name", "")).startswith("unknown_service")


def _facts(report: EpochReport) -> Iterator[tuple[str, Any]]:
    yield "headrace.epoch", report.epoch
    yield "messaging.batch.message_count", sum(report.records.values())
    for stream, records in report.records.items():
        yield f"headrace.records.{stream}", records
    outcomes: dict[str, int] = {}
    for counted in report.outcomes.values():
        for outcome, records in counted.items():
            outcomes[outcome] = outcomes.get(outcome, 0) + records
    for outcome, records in outcomes.items():
        yield f"headrace.outcome.{outcome}", records
    for table, rows in report.rows.items():
        yield f"headrace.rows.{table}", rows
    for stream, unread in report.lag_records.items():
        yield f"headrace.lag.{stream}", unread


def _links(report: EpochReport) -> Iterator[Link]:
    """Give links to the traces in which records of the epoch were produced."""
    reader = TraceContextTextMapPropagator()
    for parent in sorted({each for parents in report.parents.values() for each in parents}):
        found = get_current_span(reader.extract({"traceparent": parent}, Context())).get_span_context()
        if found.is_valid:
            yield Link(found)


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)
