"""Which tests of the conformance suite run each time, and which in `make soak` only."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.testing.replica_writes import WriterConformance
from headrace.testing.replicas import ReplicaConformance

HERE = Path(__file__).parent
WHOLE = ("TestPostgres", "TestFiles")
"""What a follower does is the same for every target: two of them run it all each time."""
SAMPLE = (
    "test_every_class_of_table_is_the_same_in_the_target",
    "test_a_connection_lost_before_or_after_any_call_changes_nothing[0]",
)
LONG = {"TestKafka": SAMPLE[1:]}  # every lost connection there waits for a transaction to time out


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        kind = getattr(item, "cls", None)
        if item.path.parent != HERE or kind is None or not issubclass(kind, ReplicaConformance):
            continue
        of_a_writer = hasattr(WriterConformance, item.name.partition("[")[0])
        sampled = item.name in SAMPLE and item.name not in LONG.get(kind.__name__, ())
        if kind.__name__ not in WHOLE and not of_a_writer and not sampled:
            item.add_marker(pytest.mark.soak)
