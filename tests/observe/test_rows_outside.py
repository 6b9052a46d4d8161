"""Tables whose rows are in files of executors: numbers and explanations know of them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import headrace as hr
from headrace.errors import RefusedError
from headrace.observe.gather import state_rows
from headrace.sql import plan_pipeline
from headrace.store import Store
from headrace.store.outside import RowFile, list_files
from headrace.web.page.tracing import why


def test_rows_in_files_are_counted_by_the_metric_as_by_status_and_why_says_where_they_are(
    tmp_path: Path,
) -> None:
    pipeline = hr.Pipeline("outside")
    pipeline.stream("events", schema="n BIGINT NOT NULL")
    for name in ("clicks", "others", "none"):
        pipeline.table(name, "SELECT n FROM events")
    plan, places = plan_pipeline(pipeline), {"clicks": "the lake", "none": "the lake"}
    store = Store.open(tmp_path / "store.duckdb", plan, identities={"events": "one"}, outside=places)
    try:
        with store.transaction():
            list_files(
                store.connection, "clicks", [RowFile("one", ".", 1, 3, 9), RowFile("two", ".", 2, 4, 9)]
            )
            store.connection.execute("INSERT INTO _state.others (n, _epoch) VALUES (1, 1)")
        told = {each.labels["table"]: each.value for each in state_rows(store, store.progress.tables)}
        assert told == {"clicks": 7, "others": 1, "none": 0}
        assert told == {table.table: table.rows for table in store.status().tables}
        sources: Any = SimpleNamespace(runtime=SimpleNamespace(plan=plan, store=store))
        with pytest.raises(RefusedError, match=r"not in the store.*\(the lake\)"):
            why(sources, "clicks", {"n": 1})
    finally:
        store.close()
