"""Why is this number this: columns of types that Arrow has no word for lead to their records, too."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import timedelta

import pytest

from headrace.operate import Runtime, load_project, open_log
from headrace.testing.records import append_table
from headrace.web.page.sources import PageSources
from headrace.web.page.tracing import why

ID = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"
HUGE = 2**127 - 1
KEYS = "e.id, e.huge, json_object('in', e.doc)"
ASKED = "e.huge & 1 = 1 AND e.id IN ('A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11')"
PIPELINE = f"""
import headrace as hr

pipeline = hr.Pipeline("typed")
pipeline.stream(
    "events",
    schema="seen TIMESTAMP NOT NULL, id UUID, huge HUGEINT, doc JSON",
    event_time="seen",
    allowed_lateness="5 minutes",
)
pipeline.reference("owners", path="owners.csv", key="id", schema="id UUID NOT NULL, number HUGEINT")
pipeline.table("plain", \"\"\"
    SELECT e.id, e.huge, json_object('in', e.doc) AS doc, count(*) AS n
    FROM events e WHERE {ASKED} GROUP BY {KEYS}
\"\"\")
pipeline.table("joined", \"\"\"
    SELECT e.id, e.huge, json_object('in', e.doc) AS doc, count(*) AS n
    FROM events e JOIN owners o ON e.id = o.id WHERE {ASKED} AND o.number & 1 = 1 GROUP BY {KEYS}
\"\"\")
"""


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageSources]:
    """A run that read three records of one group, an even one and a late one."""
    folder = tmp_path_factory.mktemp("typed")
    (folder / "pipeline.py").write_text(PIPELINE)
    (folder / "owners.csv").write_text(f"id,number\n{ID},7\n")
    project = load_project(folder)
    log = open_log(project, "events")
    now = log.now()
    facts = {"seen": now.isoformat(), "id": ID, "huge": HUGE, "doc": {"a": [1]}}
    late = {**facts, "seen": (now - timedelta(minutes=10)).isoformat()}
    records = [facts, facts, facts, {**facts, "huge": 2}, late]
    log.append(append_table([json.dumps(each).encode() for each in records]))
    log.close()
    runtime = Runtime.open(project)
    try:
        runtime.run(threading.Event(), until_caught_up=True)
        asked = PageSources(runtime)
        yield asked
        asked.close()
    finally:
        runtime.close()


@pytest.mark.parametrize("table", ["plain", "joined"])
def test_the_records_behind_a_row_are_found_whatever_the_types_of_the_query_s_columns(
    sources: PageSources, table: str
) -> None:
    (row,) = sources.records(f"SELECT * FROM {table}", rows_max=10)
    assert (row["id"], row["huge"], row["doc"], row["n"]) == (ID, str(HUGE), '{"in":{"a":[1]}}', 3)
    answer = why(sources, table, row)
    assert answer["records"] == 3
    assert {each["what"]: each["records"] for each in answer["left_out"]} == {"filtered": 1, "late": 1}
