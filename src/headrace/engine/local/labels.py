"""Counts outcomes by the label column that a stream names; committed with the epoch, as all counts are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.engine.local.outcomes import Decided
from headrace.rows.result import Outcome
from headrace.store.progress import LabelProgress, Progress

__all__ = ["LABEL_VALUES_MAX", "OTHER", "UNNAMED", "UNREAD", "count_labels"]

LABEL_VALUES_MAX = 20
"""Values that are counted by name: the first that came, of one epoch the most frequent."""

OTHER = "other"
UNREAD = "unread"
"""What records are counted as that have no row: of a dead letter there are bytes only."""

_NULL = "null"

UNNAMED = frozenset({OTHER, UNREAD, _NULL})
"""What is counted without a name of its own; these do not count against the bound."""

_CHARACTERS_MAX = 60


def count_labels(progress: Progress, label: str, decided: Decided) -> None:
    """Add the outcomes of a batch to those of its stream, by the text of the column `label`."""
    result = decided.batch.result
    assert result is not None  # noqa: S101 - only batches with records are decided
    held = progress.labels.get(decided.batch.stream)
    if held is None or held.column != label:
        held = progress.labels[decided.batch.stream] = LabelProgress(label)
    found: list[tuple[str, str, int]] = []
    taken = decided.duplicate | decided.expired
    for outcome, mask in (
        (Outcome.ACCEPTED, ~taken),
        (Outcome.DUPLICATE, decided.duplicate),
        (Outcome.EXPIRED, decided.expired),
    ):
        found += [(outcome.value, *each) for each in _counted(result.timely, label, mask)]
    found += [(Outcome.LATE.value, *each) for each in _counted(result.late, label, None)]
    for value in pc.value_counts(result.dead.column("outcome")).to_pylist():
        found.append((value["values"], UNREAD, value["counts"]))
    for outcome_name, text, records in sorted(found, key=lambda each: (-each[2], each[1])):
        counts = held.counts.setdefault(_bounded(text, held), {})
        counts[outcome_name] = counts.get(outcome_name, 0) + records


def _counted(rows: pa.Table, label: str, mask: Any) -> list[tuple[str, int]]:
    if not rows.num_rows or (mask is not None and not mask.any()):
        return []
    column = rows.column(label)
    if mask is not None and not np.all(mask):
        column = column.filter(pa.array(mask))
    texts = pc.value_counts(column.cast(pa.string())).to_pylist()
    return [
        (_NULL if each["values"] is None else each["values"][:_CHARACTERS_MAX], each["counts"])
        for each in texts
    ]


def _bounded(text: str, held: LabelProgress) -> str:
    named = held.counts.keys() - UNNAMED
    return text if text in held.counts or text in UNNAMED or len(named) < LABEL_VALUES_MAX else OTHER
