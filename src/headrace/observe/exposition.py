"""Metrics in Prometheus's text format, and the small server that gives them to a scraper."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from headrace.errors import ProfileError, RefusedError
from headrace.observe.epochs import HistogramFamily
from headrace.observe.histogram import Histogram
from headrace.observe.metrics import METRICS, METRICS_BY_NAME, Kind, Metric, Sample

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import Metric as Family

__all__ = ["Exposition", "MetricsServer", "names_of"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def names_of(metric: Metric, *, known: bool, alias: Mapping[str, str]) -> list[str]:
    """Return the names under which a metric is published: its own, then the others that are wanted."""
    others = [metric.known] if known and metric.known else []
    return [metric.name, *others, *(name for name, of in alias.items() if of == metric.name)]


class Exposition:
    """What a scraper gets: the samples and histograms of now, under the wanted names.

    `alias` maps a further name to the metric that it stands for. Raises ProfileError for one that there is
    not.
    """

    def __init__(
        self,
        samples: Callable[[], Iterable[Sample]],
        families: Callable[[], Iterable[HistogramFamily]],
        *,
        known: bool = False,
        alias: Mapping[str, str] | None = None,
    ) -> None:
        self._samples = samples
        self._families = families
        self._known = known
        self._alias = dict(alias or {})
        for name, of in self._alias.items():
            check_alias(name, of)

    def text(self) -> tuple[bytes, str]:
        """Return the body and the content type of an answer to a scrape."""
        from prometheus_client import generate_latest

        return generate_latest(self.registry()), CONTENT_TYPE

    def registry(self) -> CollectorRegistry:
        """Return a registry that collects from here, for the server of prometheus-client."""
        from prometheus_client import CollectorRegistry

        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        return registry

    def collect(self) -> Iterator[Family]:
        """Give every metric that has a value; called by prometheus-client for each scrape."""
        by_name: dict[str, list[Sample]] = {}
        for sample in self._samples():
            by_name.setdefault(sample.name, []).append(sample)
        histograms = {family.metric.name: family for family in self._families()}
        for metric in METRICS:
            for name in names_of(metric, known=self._known, alias=self._alias):
                if metric.kind is Kind.HISTOGRAM:
                    if metric.name in histograms:
                        yield _histogram(name, histograms[metric.name])
                elif metric.name in by_name:
                    samples = by_name[metric.name]
                    yield _values(name, metric, _parted(samples) if name == metric.known else samples)


def check_alias(name: str, of: str) -> None:
    """Raise ProfileError unless `of` is a metric and `name` may stand for it."""
    from headrace.declare.words import did_you_mean

    metric = METRICS_BY_NAME.get(of)
    if metric is None:
        raise ProfileError(
            f"the alias '{name}' stands for '{of}', which is no metric{did_you_mean(of, METRICS_BY_NAME)}",
            fix="docs/metrics.md lists them all",
        )
    usable = name.isascii() and name.replace("_", "a").replace(":", "a").isalnum() and not name[0].isdigit()
    if not usable or name in METRICS_BY_NAME:
        raise ProfileError(
            f"'{name}' cannot be a metric's name",
            fix="use letters, digits and _ , and no name of Headrace's own",
        )
    if name.endswith("_total") != (metric.kind is Kind.COUNTER):
        end = "ends with _total" if metric.kind is Kind.COUNTER else "does not end with _total"
        raise ProfileError(f"the name of a {metric.kind} {end}", fix=f"rename the alias '{name}'")


def _parted(samples: Iterable[Sample]) -> Iterator[Sample]:
    """Give the parts of each sample in its place, or the sample itself where it has none."""
    for sample in samples:
        if not sample.parts:
            yield sample
        for labels, value in sample.parts:
            named = {_label_name(column, sample.labels): text for column, text in labels.items()}
            yield Sample(sample.name, {**sample.labels, **named}, value)


def _label_name(column: str, taken: Container[str]) -> str:
    """Return a column's name as Prometheus takes it for a label, and not that of another label."""
    name = "".join(sign if sign.isascii() and sign.isalnum() else "_" for sign in column)
    return f"column_{name}" if name in taken or name[0].isdigit() or name.startswith("__") else name


def _values(name: str, metric: Metric, samples: Iterable[Sample]) -> Family:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    make: Any = CounterMetricFamily if metric.kind is Kind.COUNTER else GaugeMetricFamily
    family: Family = make(name, metric.help)
    for sample in samples:
        family.add_sample(name, dict(sample.labels), sample.value)
    return family


def _histogram(name: str, histograms: HistogramFamily) -> Family:
    from prometheus_client.core import HistogramMetricFamily

    family = HistogramMetricFamily(name, histograms.metric.help, labels=histograms.metric.labels)
    for labels, histogram in histograms.by_labels.copy().items():
        family.add_metric(labels, _buckets(histogram), histogram.sum)
    return family


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    passed, found = 0, []
    for bound, count in zip((*histogram.bounds, None), list(histogram.counts), strict=True):
        passed += count
        found.append(("+Inf" if bound is None else str(float(bound)), float(passed)))
    return found


class MetricsServer:
    """Answers scrapes in threads of its own, until `close`."""

    def __init__(self, exposition: Exposition, host: str, port: int) -> None:
        """Listen. Raises RefusedError when the port is taken or the address is not this machine's."""
        from prometheus_client import start_http_server

        try:
            self._server, self._thread = start_http_server(port, addr=host, registry=exposition.registry())
        except (OSError, OverflowError) as error:
            raise RefusedError(
                f"metrics cannot be served on {host}:{port}: {getattr(error, 'strerror', None) or error}",
                fix="free that port, or set another one: [profiles.NAME.metrics] port = …",
            ) from error
        self.port: int = self._server.server_port

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=2)
