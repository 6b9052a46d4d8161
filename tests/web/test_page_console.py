"""The SQL console: what it reads, what it may take, and every way out of it that is known."""

from __future__ import annotations

import contextlib
import json
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
from page_support import RunningPage, eventually, running_page

from headrace.errors import RefusedError
from headrace.store.queries import run_query
from headrace.web.page import console
from headrace.web.page.console_process import console_database
from headrace.web.page.values import columns_of, rows_of

pytestmark = pytest.mark.slow

_FILES = [
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM '/etc/passwd'",
    "SELECT * FROM read_text('/etc/passwd')",
    "SELECT * FROM glob('/*')",
    "FROM read_blob('/etc/passwd')",
    "COPY (SELECT 1) TO '/tmp/stolen.csv'",
    "COPY (SELECT 1) TO '/dev/stdout'",
    "ATTACH '/tmp/other.duckdb'",
    "INSTALL httpfs",
    "LOAD httpfs",
    "EXPORT DATABASE '/tmp/stolen'",
    "IMPORT DATABASE '/tmp'",
    "SELECT * FROM sqlite_scan('/tmp/log.db', 'records')",
    "FROM sniff_csv('/etc/passwd')",
    "SELECT * FROM parquet_metadata('/etc/passwd')",
    "SELECT * FROM read_json_objects(['/etc/passwd'])",
    "SELECT (SELECT content FROM read_text('/etc/passwd'))",
    "SUMMARIZE '/etc/passwd'",
    "DESCRIBE SELECT * FROM '/etc/passwd'",
]
_SETTINGS = [
    "SET enable_external_access = true",
    "SET memory_limit = '100GB'",
    "SET temp_directory = '/tmp'",
    "SET GLOBAL threads = 8",
    "SET lock_configuration = false",
    "SET allowed_directories = ['/']",
    "SET python_enable_replacements = true",
    "RESET enable_external_access",
    "PRAGMA memory_limit = '100GB'",
]
_OTHERS = [
    "PRAGMA database_list",
    "SELECT getenv('HOME')",
    "SELECT * FROM pipeline",
    "SELECT * FROM sys",
    "CALL checkpoint()",
    "SELECT * FROM query('SELECT 1')",
    "SELECT nextval('x')",
    "CREATE TABLE stolen AS SELECT 1",
    "BEGIN TRANSACTION",
    "SELECT 1; SELECT 2",
    "EXPLAIN ANALYZE COPY (SELECT 1) TO '/tmp/stolen.csv'",
    "WITH x AS (INSERT INTO epochs VALUES (1) RETURNING 1) SELECT * FROM x",
    "PREPARE x AS SELECT 1",
    "EXECUTE x",
    "USE memory",
    "VACUUM",
    "CHECKPOINT",
    "CREATE SECRET (TYPE s3, KEY_ID 'a')",
    "CREATE MACRO stolen() AS 1",
    "SELECT * FROM duckdb_secrets()",
]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningPage]:
    with running_page(tmp_path_factory.mktemp("console") / "commerce", events_hours=0.05) as made:
        yield made


def query(page: RunningPage, sql: str, **more: Any) -> tuple[int, Any]:
    status, answer, _ = page.ask("POST", "/api/query", {"sql": sql, **more})
    return status, answer


@pytest.fixture(scope="module")
def database() -> Iterator[Any]:
    with console_database() as opened:
        yield opened


@pytest.mark.parametrize("sql", _FILES + _SETTINGS + _OTHERS)
def test_a_query_reads_tables_and_nothing_else(database: Any, sql: str) -> None:
    with pytest.raises(RefusedError):
        run_query(database, sql, rows_max=10, seconds_max=5)


@pytest.mark.parametrize("sql", _FILES + _SETTINGS)
def test_the_database_itself_refuses_files_and_settings_if_a_statement_should_slip_through(
    database: Any, sql: str
) -> None:
    with pytest.raises(duckdb.Error):
        database.execute(sql).fetchall()


def test_what_is_refused_is_told_in_words(page: RunningPage) -> None:
    for sql, words in (
        ("SELECT * FROM read_text('/etc/passwd')", "read_text is refused"),
        ("SELECT * FROM '/etc/passwd'", "passwd"),
        ("SELECT * FROM evnt_counts", "evnt_counts"),
        ("SELEC 1", "syntax"),
        ("SELECT body FROM _headrace.progress", "progress"),  # what the store keeps for itself
    ):
        status, answer = query(page, sql)
        assert (status, words in answer["error"]) == (422, True), answer
        assert "root:" not in json.dumps(answer)


def test_rows_are_those_of_the_store_with_its_types(page: RunningPage) -> None:
    for name in ("events_clean", "event_counts", "dead_letters", "late_events"):
        sql = f"SELECT * FROM {name} ORDER BY ALL LIMIT 20"
        kept = page.runtime.store.query(sql)
        status, answer = query(page, sql)
        assert status == 200, answer
        assert answer["columns"] == columns_of(kept)
        assert answer["rows"] == rows_of(kept), name


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT count(*) FROM events_clean",
        "SELECT e FROM events_clean e ORDER BY event_id LIMIT 3",
        "SELECT a.user_id, count(*) FROM events_clean a JOIN events_clean b USING (user_id) GROUP BY 1 "
        "ORDER BY 2 DESC, 1 LIMIT 3",
        "WITH c AS (FROM events_clean) SELECT device, count(*) AS n FROM c GROUP BY ALL ORDER BY n, 1",
        "SELECT t.b, #2 FROM events_clean AS t(a, b) GROUP BY ALL ORDER BY 1",
        "SELECT Event_Type FROM EVENTS_CLEAN GROUP BY ALL ORDER BY 1",
        "SELECT (SELECT max(timestamp) FROM events_clean) - min(window_start) < INTERVAL 99 DAYS "
        "FROM event_counts",
        "SELECT column_name FROM (DESCRIBE events_clean)",
        "SELECT count(*) FROM events_clean PIVOT (count(event_id) FOR event_type IN ('purchase', 'refund'))",
    ],
)
def test_a_query_finds_the_columns_that_it_means(page: RunningPage, sql: str) -> None:
    kept = page.runtime.store.query(sql)
    status, answer = query(page, sql)
    assert (status, answer.get("rows")) == (200, rows_of(kept)), answer


def test_rows_are_cut_and_numbers_stay_exact(page: RunningPage) -> None:
    status, answer = query(page, "SELECT range AS n FROM range(50)", rows_max=10)
    assert (status, answer["rows"][-1], answer["cut"]) == (200, [9], True)
    exact = query(page, "SELECT 9007199254740993 AS n, 0.10::DECIMAL(3,2) AS d, 'NaN'::DOUBLE AS x")[1]
    assert exact["rows"] == [["9007199254740993", "0.10", "nan"]]
    status, answer = query(page, "SELECT repeat('x', 15000), a FROM range(3000) r(a)", rows_max=10_000)
    assert (status, answer.get("error")) == (422, "the answer is too large")


def test_a_query_that_does_not_end_is_stopped_and_the_engine_goes_on(page: RunningPage) -> None:
    status, answer = query(page, "SELECT sum(a.range * b.range) FROM range(10000000) a, range(10000000) b")
    assert status == 503
    assert "5 seconds" in answer["error"]
    read = page.read()
    page.send(b"{}")
    eventually(lambda: page.read() > read)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT array_agg(a.range * b.range) FROM range(1000000) a, range(1000000) b",
        "SELECT repeat('x', 2000000000)",
        "SELECT range(2000000000)",
        "WITH RECURSIVE r AS (SELECT 'x' AS s, 1 AS n UNION ALL SELECT s || s, n + 1 FROM r WHERE n < 40) "
        "SELECT length(s) FROM r",
    ],
)
def test_a_query_that_would_take_all_memory_takes_none_of_the_engines(page: RunningPage, sql: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    status, answer = query(page, sql)
    assert status in (422, 503), answer
    assert answer["error"]
    # The run is in this process: in the store's instance, one huge value took 2 GB beside its limit.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024
    assert page.runtime.store.ledger().balanced


def test_nothing_of_a_query_stays(page: RunningPage) -> None:
    import psutil

    data = page.runtime.project.data
    before = {path.name for path in Path(data).iterdir()}
    assert query(page, "SELECT * FROM events_clean LIMIT 1")[0] == 200
    query(page, "SELECT repeat('x', 2000000000)")
    assert {path.name for path in Path(data).iterdir()} <= before
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):  # one that ends meanwhile has no command line any more
            assert "console_process" not in " ".join(child.cmdline())


def test_a_copy_that_takes_too_long_or_finds_too_little_room_is_refused_in_words(
    page: RunningPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    sql = "SELECT * FROM events_clean"
    with monkeypatch.context() as patched:
        patched.setattr(console, "SECONDS_MAX", 0.0)
        status, answer = query(page, sql)
        assert (status, "took more than" in answer["error"]) == (503, True), answer
    with monkeypatch.context() as patched:
        patched.setattr(console, "_LEFT_FREE_BYTES", 1 << 62)
        status, answer = query(page, sql)
        assert (status, "too little room" in answer["error"]) == (422, True), answer
    assert query(page, sql)[0] == 200
