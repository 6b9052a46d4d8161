"""Who asks the page holds nothing of the store afterwards: what is removed from it comes free."""

from __future__ import annotations

import http.client
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import duckdb
import pytest
from page_support import DEADLINE_S, RunningPage, eventually, running_page

from headrace.operate import Runtime, load_project
from headrace.operate.page_options import PageOptions
from headrace.web.page.describe import description
from headrace.web.page.serve import served_page

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

_ROWS = 500_000


@pytest.fixture
def page(tmp_path: Path) -> Iterator[RunningPage]:
    """A page over a store with rows, which nobody writes: only who asks has a transaction in it."""
    with running_page(tmp_path / "shop", events_hours=0.02) as made:
        made.send(b"{broken")
    project = load_project(tmp_path / "shop")
    project = replace(project, profile=replace(project.profile, page=PageOptions(port=0)))
    runtime, told = Runtime.open(project), list[str]()
    try:
        with served_page(runtime, told.append) as served:
            assert served.address, told
            yield RunningPage(served.address, runtime, project)
    finally:
        runtime.close()


def blocks_in_use(page: RunningPage) -> int:
    sql = "SELECT used_blocks FROM pragma_database_size()"
    used: int = page.runtime.store.connection.execute(sql).fetchone()[0]
    return used


def blocks_that_come_free(page: RunningPage, reading: Callable[[], AbstractContextManager[object]]) -> int:
    """Remove rows while somebody reads, or not: blocks that a transaction may still read stay in use."""
    writer = page.runtime.store.connection
    rows = f"SELECT range AS n, hash(range) AS h FROM range({_ROWS})"
    writer.execute(f"CREATE OR REPLACE TABLE main._probe AS {rows}")
    checkpoint(writer)
    with reading():
        before = blocks_in_use(page)
        writer.execute("DELETE FROM main._probe")
        checkpoint(writer)
        free = before - blocks_in_use(page)
    writer.execute("DROP TABLE main._probe")
    checkpoint(writer)
    return free


def checkpoint(writer: Any) -> None:
    """Free what nobody may read any more; refused while the stream of events looks at the store."""

    def taken() -> bool:
        try:
            writer.execute("CHECKPOINT")
        except duckdb.TransactionException:
            return False
        return True

    eventually(taken)


@contextmanager
def somebody_reads(page: RunningPage) -> Iterator[None]:
    with page.runtime.store.snapshot() as cursor:
        cursor.execute("SELECT count(*) FROM epochs").fetchall()
        yield


@contextmanager
def everything_was_asked(page: RunningPage) -> Iterator[None]:
    """Everything that the page may ask, with good and bad ends; its stream of events stays open."""
    live = http.client.HTTPConnection("127.0.0.1", page.port, timeout=DEADLINE_S)
    live.request("GET", "/api/live")
    stream = live.getresponse()
    assert stream.readline()
    paths = re.findall(r'"(/api/[^"{]*)": \{\n\s+"get"', description())
    for path in {*paths, "/api/history?names=headrace_up"} - {"/api/live", "/api/history"}:
        assert page.ask("GET", path)[0] == 200, path
    for table in page.ask("GET", "/api/overview")[1]["tables"]:
        assert page.ask("GET", f"/api/tables/{table['name']}/rows")[0] == 200
    for number in range(len(page.ask("GET", "/api/panels")[1])):
        assert page.ask("GET", f"/api/panels/{number}/rows")[0] == 200
    for sql, status in (
        ("SELECT * FROM events_clean", 200),
        ("SELECT nothing FROM events_clean", 422),
        ("SELECT count(*) FROM range(100000000000) AS t(n), events_clean", 503),
    ):
        assert page.ask("POST", "/api/query", {"sql": sql})[0] == status, sql
    _, found, _ = page.ask("GET", "/api/tables/event_counts/rows?limit=1")
    row = dict(zip((each["name"] for each in found["columns"]), found["rows"][0], strict=True))
    assert page.ask("POST", "/api/tables/event_counts/why", {"row": row})[0] == 200
    assert page.ask("GET", "/api/tables/event_counts/rows?order=nothing")[0] == 422
    try:
        yield
    finally:
        live.close()


def test_no_transaction_is_open_after_a_question_of_the_page_or_its_console(page: RunningPage) -> None:
    assert blocks_that_come_free(page, lambda: somebody_reads(page)) == 0
    with everything_was_asked(page):
        # Once a second, the stream of events looks at the store for a moment, which may be this one.
        eventually(lambda: blocks_that_come_free(page, nullcontext) > 0)
