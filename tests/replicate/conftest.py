"""Which tests of the conformance suite run each time, and which in `make soak` only."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.testing.replica_writes import WriterConformance
from headrace.testing.replicas import ReplicaConformance

HERE = Path(__file__).parent
WHOLE = "TestFiles"
"""What a follower does is the same for every target: one of them runs it all each time."""
BULK = "test_a_hundred_thousand_rows_are_caught_up_in_bounded_chunks"
LOST = "test_a_connection_lost_before_or_after_any_call_changes_nothing[0]"
SAMPLE = ("test_every_class_of_table_is_the_same_in_the_target", LOST)
MORE = {
    "TestPostgres": (
        BULK,
        "test_a_row_that_the_target_refuses_is_set_aside_and_the_others_are_written",
        "test_a_target_that_is_down_holds_nothing_up_and_catches_up_afterwards",
    )
}
LESS = {"TestFiles": (BULK,), "TestKafka": (LOST,), "TestParquetInS3": (LOST,), "TestDeltaInS3": (LOST,)}
"""There it waits for transactions to time out, or opens clients for half a minute."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        kind = getattr(item, "cls", None)
        if item.path.parent != HERE or kind is None or not issubclass(kind, ReplicaConformance):
            continue
        name, function = kind.__name__, item.name.partition("[")[0]
        if not hasattr(ReplicaConformance, function):
            continue  # a rule of this target's own
        wanted = name == WHOLE or item.name in (*SAMPLE, *MORE.get(name, ()))
        of_a_writer = hasattr(WriterConformance, function)
        if item.name in LESS.get(name, ()) or not (wanted or of_a_writer):
            item.add_marker(pytest.mark.soak)
        if name != WHOLE and not of_a_writer:
            item.add_marker(pytest.mark.slow)
            item.add_marker(pytest.mark.untraced)
