"""What a running pipeline shows of itself: metrics, their history, alerts, and exports to other tools."""

from headrace.observe.history import Series, history
from headrace.observe.metrics import METRICS, Kind, Metric, Sample
from headrace.observe.observer import Observer

__all__ = ["METRICS", "Kind", "Metric", "Observer", "Sample", "Series", "history"]
