from __future__ import annotations

import gzip
import io
import json
import math
import os
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import duckdb
import pyarrow as pa
import pytest

import headrace as hr
from headrace.declare import Stream
from headrace.errors import ProfileError, RefusedError, TransientError
from headrace.log import EmbeddedLog, open_embedded_log
from headrace.produce import lines
from headrace.produce.files import ProduceProgress, produce_files

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def stream(**options: str) -> Stream:
    pipeline = hr.Pipeline("test")
    pipeline.stream(
        "events",
        schema="id VARCHAR NOT NULL, at TIMESTAMP, amount DECIMAL(12,2), count INT, ok BOOLEAN, "
        "tags VARCHAR[]",
        **options,
    )
    return pipeline.streams[0]


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EmbeddedLog]:
    opened = open_embedded_log(tmp_path / "log.db", "events", clock=lambda: NOW, durable=False)
    yield opened
    opened.close()


def appended(log: EmbeddedLog) -> list[dict]:
    given = log.read({}, rows_max=1_000_000, bytes_max=1 << 30, wait=timedelta(0))
    return given.records.sort_by([("partition", "ascending"), ("offset", "ascending")]).to_pylist()


def values(log: EmbeddedLog) -> list[bytes]:
    return [row["value"] for row in appended(log)]


def objects(log: EmbeddedLog) -> list[dict]:
    return [json.loads(value) for value in values(log)]


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_lines_arrive_as_the_bytes_they_are(log: EmbeddedLog, tmp_path: Path) -> None:
    content = b'{"id": "1"}\n{broken\n\xff\xfe\n  {"id":2}  \nlast without a line end'
    report = produce_files(log, stream(), [write(tmp_path / "a.ndjson", content)])
    assert values(log) == [
        b'{"id": "1"}',
        b"{broken",
        b"\xff\xfe",
        b'  {"id":2}  ',
        b"last without a line end",
    ]
    assert (report.records, report.lines_empty, report.stopped) == (5, 0, False)
    assert report.bytes_read == len(content)


def test_mark_line_ends_and_empty_lines_are_taken_off(log: EmbeddedLog, tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", b"\xef\xbb\xbf{}\r\n\r\n\n1\r2\r\n\r\n")
    report = produce_files(log, stream(), [file])
    assert values(log) == [b"{}", b"1\r2"]
    assert report.lines_empty == 3


@pytest.mark.parametrize("chunk_bytes", [1, 2, 3, 5, 8, 1000])
def test_where_a_chunk_ends_does_not_matter(tmp_path: Path, chunk_bytes: int) -> None:
    content = b"\xef\xbb\xbf\xef\r\n\r\n\n\xef\xbb\xbfab\r\nccc\r\r\n" + b"d" * 40 + b"\ne\r"
    file = write(tmp_path / "a.ndjson", content)
    found = [
        value
        for chunk in lines.line_chunks(file, threading.Event(), chunk_bytes=chunk_bytes)
        for value in chunk.values.to_pylist()
    ]
    assert found == [b"\xef", b"\xef\xbb\xbfab", b"ccc\r", b"d" * 40, b"e"]


def test_a_line_that_is_too_long_is_refused_with_its_number(
    log: EmbeddedLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "LINE_BYTES_MAX", 100)
    fits = write(tmp_path / "fits.ndjson", b"a\n" + b"x" * 100 + b"\r\n")
    assert produce_files(log, stream(), [fits]).records == 2
    file = write(tmp_path / "a.ndjson", b"a\n\n" + b"x" * 101 + b"\nb\n")
    with pytest.raises(RefusedError, match=r"line 3: longer than 100 bytes.*0 records were appended"):
        produce_files(log, stream(), [file])
    endless = write(tmp_path / "b.ndjson", b"a\n" + b"x" * 1000)
    with pytest.raises(RefusedError, match="line 2: longer"):
        list(lines.line_chunks(endless, threading.Event(), chunk_bytes=10))


def test_compressed_lines_are_read(log: EmbeddedLog, tmp_path: Path) -> None:
    file = write(tmp_path / "a.ndjson.gz", gzip.compress(b"1\n2\n"))
    produce_files(log, stream(), [file])
    assert values(log) == [b"1", b"2"]
    broken = write(tmp_path / "b.ndjson.gz", gzip.compress(b"1\n2\n" * 1000)[:-12])
    with pytest.raises(RefusedError, match="not a whole gzip file"):
        produce_files(log, stream(), [broken])


def test_standard_input_is_read_as_lines(log: EmbeddedLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(b"1\n2\n")))
    produce_files(log, stream(), ["-"])
    assert values(log) == [b"1", b"2"]
    with pytest.raises(ProfileError, match="only NDJSON"):
        produce_files(log, stream(), ["-"], format="csv")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a pipe is waited for until somebody writes")
def test_a_pipe_that_nobody_writes_to_does_not_keep_a_run_from_stopping(
    log: EmbeddedLog, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe")
    stop, ended = threading.Event(), threading.Event()

    def produce() -> None:
        produce_files(log, stream(), [tmp_path / "pipe"], format="ndjson", stop=stop)
        ended.set()

    run = threading.Thread(target=produce, daemon=True)
    run.start()
    stop.set()
    assert ended.wait(20)


def test_a_pipe_to_which_somebody_writes_only_later_is_read_to_its_end(
    log: EmbeddedLog, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe")
    pool = ThreadPoolExecutor(1)
    run = pool.submit(produce_files, log, stream(), [tmp_path / "pipe"], format="ndjson")
    with (tmp_path / "pipe").open("wb") as pipe:  # waits until it is read
        pipe.write(b"1\n")
        pipe.flush()
        pipe.write(b"2\n")
    assert run.result(20).records == 2
    assert values(log) == [b"1", b"2"]
    pool.shutdown()


def test_a_silent_pipe_does_not_keep_a_run_from_stopping(log: EmbeddedLog) -> None:
    reading, writing = os.pipe()
    stop = threading.Event()
    with os.fdopen(reading, "rb") as stdin, pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdin", SimpleNamespace(buffer=stdin))
        reports = []
        arrived = threading.Event()
        run = threading.Thread(
            target=lambda: reports.append(
                produce_files(log, stream(), ["-"], stop=stop, on_progress=lambda _: arrived.set())
            )
        )
        run.start()
        os.write(writing, b"1\n2\nunfinished")
        assert arrived.wait(20)
        stop.set()
        run.join(20)
        assert not run.is_alive()
        os.close(writing)
    assert reports[0].records == 2
    assert reports[0].stopped


def test_the_declared_key_becomes_the_records_key(log: EmbeddedLog, tmp_path: Path) -> None:
    file = write(
        tmp_path / "a.ndjson",
        b'{"id":"ann","x":1}\n{"id":7}\n{"x":1}\n{"id":null}\n{broken\n\xff\n{"id":"\xc3\xa9"}\n5\n',
    )
    produce_files(log, stream(key="id"), [file])
    keys = [row["key"] for row in appended(log)]
    assert keys == [b"ann", b"7", None, None, None, None, "é".encode(), None]


def test_record_time_is_the_logs_unless_asked_otherwise(log: EmbeddedLog, tmp_path: Path) -> None:
    file = write(tmp_path / "a.ndjson", b'{"at":"2025-01-01T00:00:00Z"}\n')
    produce_files(log, stream(event_time="at"), [file])
    assert appended(log)[0]["record_time"] == NOW


def test_record_time_from_the_event_time_fills_gaps_from_before(log: EmbeddedLog, tmp_path: Path) -> None:
    times = [
        '{"id":"a"}',
        '{"at":"2025-01-01T00:00:00Z"}',
        "{broken",
        '{"at":"2025-01-01T03:00:00+02:00"}',
        '{"at":"2025-01-01 02:00:00.5"}',
        '{"at":"infinity"}',
        '{"at":"not a time"}',
    ]
    produce_files(
        log,
        stream(event_time="at"),
        [write(tmp_path / "a.ndjson", "\n".join(times).encode())],
        record_time="event",
    )
    hours = [0, 0, 0, 1, 2, 2, 2]
    found = [row["record_time"].replace(microsecond=0) for row in appended(log)]
    assert found == [datetime(2025, 1, 1, hour, tzinfo=UTC) for hour in hours]


def test_records_in_front_of_the_first_time_wait_for_it_over_chunks(
    log: EmbeddedLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "headrace.produce.files.line_chunks", lambda file, stop: lines.line_chunks(file, stop, chunk_bytes=9)
    )
    content = b'{"id":1}\n{"id":2}\n\n{"id":3}\n{"arrived":"2025-01-01T05:00:00Z"}\n{"id":4}\n'
    file = write(tmp_path / "a.ndjson", content)
    report = produce_files(log, stream(), [file], record_time="field:arrived")
    assert [row["record_time"] for row in appended(log)] == [datetime(2025, 1, 1, 5, tzinfo=UTC)] * 5
    assert report.timeless == 0


def test_a_file_without_any_time_gets_the_logs(log: EmbeddedLog, tmp_path: Path) -> None:
    file = write(tmp_path / "a.ndjson", b"{}\n{}\n")
    assert produce_files(log, stream(), [file], record_time="field:arrived").timeless == 2
    assert produce_files(log, stream(), [file]).timeless == 0
    assert [row["record_time"] for row in appended(log)] == [NOW] * 4


def test_a_load_with_given_times_stops_the_idle_clock_until_it_ends(log: EmbeddedLog, tmp_path: Path) -> None:
    file = write(tmp_path / "a.ndjson", b'{"at":"2025-01-01T00:00:00Z"}\n')
    idle = []

    def look(_: ProduceProgress) -> None:
        idle.append(bool(log.read({0: 1}, rows_max=1, bytes_max=1, wait=timedelta(0)).idle_since))

    produce_files(log, stream(event_time="at"), [file], record_time="event", on_progress=look)
    assert idle == [False]
    assert log.read({0: 1}, rows_max=1, bytes_max=1, wait=timedelta(0)).idle_since


@pytest.mark.parametrize("record_time", ["yesterday", "field:", "event"])
def test_record_times_that_cannot_be_are_refused(log: EmbeddedLog, tmp_path: Path, record_time: str) -> None:
    with pytest.raises(ProfileError):
        produce_files(log, stream(), [write(tmp_path / "a.ndjson", b"1\n")], record_time=record_time)


def test_csv_fields_mean_what_the_stream_declares(log: EmbeddedLog, tmp_path: Path) -> None:
    content = (
        "\ufeffid,at,amount,count,ok,tags,note,extra\r\n"
        '007,2026-03-01 10:00:00,12.50,3,TRUE,"[""a"",""b""]",007,1.5\r\n'
        '"x, ""y""\nz",,,1.0,maybe,oops,true,\r\n'
        '"",2026-03-01T10:00:00Z,abc,-4,false,[],é,1e5\r\n'
    )
    produce_files(log, stream(), [write(tmp_path / "a.csv", content.encode())])
    assert objects(log) == [
        {
            "id": "007",
            "at": "2026-03-01 10:00:00",
            "amount": 12.5,
            "count": 3,
            "ok": True,
            "tags": ["a", "b"],
            "note": "007",
            "extra": 1.5,
        },
        {
            "id": 'x, "y"\nz',
            "at": None,
            "amount": None,
            "count": 1.0,
            "ok": "maybe",
            "tags": "oops",
            "note": True,
            "extra": None,
        },
        {
            "id": "",
            "at": "2026-03-01T10:00:00Z",
            "amount": "abc",
            "count": -4,
            "ok": False,
            "tags": [],
            "note": "é",
            "extra": 1e5,
        },
    ]
    assert b'"amount":12.50,' in values(log)[0]


def test_documents_in_csv_and_parquet_stay_documents(log: EmbeddedLog, tmp_path: Path) -> None:
    pipeline = hr.Pipeline("documents")
    pipeline.stream("events", schema="id VARCHAR, doc JSON")
    content = b'id,doc\na,"{""k"": [1, 2]}"\nb,word\nc,\n'
    produce_files(log, pipeline.streams[0], [write(tmp_path / "a.csv", content)])
    connection = duckdb.connect()
    connection.execute("CREATE TABLE rows AS SELECT 'd' AS id, CAST('{\"k\": 3}' AS JSON) AS doc")
    connection.execute(f"COPY rows TO '{tmp_path / 'b.parquet'}' (FORMAT parquet)")
    produce_files(log, pipeline.streams[0], [tmp_path / "b.parquet"])
    assert [row["doc"] for row in objects(log)] == [{"k": [1, 2]}, "word", None, {"k": 3}]


def test_csv_with_semicolons_or_tabs_is_read(log: EmbeddedLog, tmp_path: Path) -> None:
    produce_files(log, stream(), [write(tmp_path / "a.csv", b"id;count\na,b;2\n")])
    produce_files(log, stream(), [write(tmp_path / "a.tsv", b"id\tcount\nc\t3\n")])
    assert objects(log) == [{"id": "a,b", "count": 2}, {"id": "c", "count": 3}]


def test_a_csv_line_with_missing_fields_is_refused_with_its_number_and_not_its_content(
    log: EmbeddedLog, tmp_path: Path
) -> None:
    file = write(tmp_path / "a.csv", b"id,count\na,1\nsecret\nb,2\n")
    with pytest.raises(RefusedError, match=r"a\.csv, line 3: cannot be read") as refused:
        produce_files(log, stream(), [file])
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("header", [b"", b"id,id\n", b"id,,x\n", b"\n"])
def test_a_csv_file_without_usable_column_names_is_refused(
    log: EmbeddedLog, tmp_path: Path, header: bytes
) -> None:
    with pytest.raises(RefusedError, match="column names"):
        produce_files(log, stream(), [write(tmp_path / "a.csv", header)])


def test_parquet_rows_keep_their_types(log: EmbeddedLog, tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    duckdb.execute(
        f"""COPY (SELECT 'x"y' AS id, 12345678901234567890.1234::DECIMAL(38,4) AS amount, 42::BIGINT AS count,
            1.5::DOUBLE AS d, -0.05::DECIMAL(4,4) AS share, 'NaN'::DOUBLE AS nan,
            TIMESTAMP '2026-03-01 10:00:00.5' AS at,
            TIMESTAMPTZ '2026-03-01 10:00:00+02' AS zoned, true AS ok, NULL::INT AS nothing,
            ['a', NULL] AS tags,
            {{'q': 1, 'when': [DATE '2026-03-01'], 'more': {{'z': 0.10::DECIMAL(4,2)}}}} AS s,
            MAP {{'k': 1.50::DECIMAL(4,2), 'n': NULL}} AS m, '\\x00\\xFF'::BLOB AS raw
            FROM range(2)) TO '{file}'"""
    )
    produce_files(log, stream(key="id"), [file])
    assert appended(log)[1]["key"] == b'x"y'
    assert objects(log)[0] == {
        "id": 'x"y',
        "amount": 12345678901234567890.1234,
        "count": 42,
        "d": 1.5,
        "share": -0.05,
        "nan": "nan",
        "at": "2026-03-01T10:00:00.500000Z",
        "zoned": "2026-03-01T08:00:00.000000Z",
        "ok": True,
        "nothing": None,
        "tags": ["a", None],
        "s": {"q": 1, "when": ["2026-03-01"], "more": {"z": 0.1}},
        "m": {"k": 1.5, "n": None},
        "raw": "AP8=",
    }
    assert b'"amount":12345678901234567890.1234,' in values(log)[0]
    assert b'{"z":0.10}' in values(log)[0]


def test_a_file_of_another_kind_is_refused(log: EmbeddedLog, tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="cannot be read"):
        produce_files(log, stream(), [write(tmp_path / "a.parquet", b"not parquet")])
    with pytest.raises(ProfileError, match="which format"):
        produce_files(log, stream(), [write(tmp_path / "a.dat", b"1\n")])
    with pytest.raises(RefusedError, match="JSON array"):
        produce_files(log, stream(), [write(tmp_path / "a.json", b' [{"id": 1}]')])
    assert values(log) == []


def test_every_missing_file_is_named_before_anything_is_appended(log: EmbeddedLog, tmp_path: Path) -> None:
    good = write(tmp_path / "a.ndjson", b"1\n")
    with pytest.raises(RefusedError, match=r"one\.ndjson.*two\.csv"):
        produce_files(log, stream(), [good, tmp_path / "one.ndjson", tmp_path / "two.csv"])
    assert values(log) == []


def test_a_stopped_run_goes_on_where_it_stopped(log: EmbeddedLog, tmp_path: Path) -> None:
    one = write(tmp_path / "a.ndjson", b"".join(b"%d\n" % at for at in range(10)))
    two = write(tmp_path / "b.ndjson", b"".join(b"%d\n" % at for at in range(10, 20)))
    stop = threading.Event()

    def stop_in_the_middle(progress: ProduceProgress) -> None:
        if progress.records >= 7:
            stop.set()

    report = produce_files(
        log, stream(), [one, two], rate=20_000.0 / 1000, stop=stop, on_progress=stop_in_the_middle
    )
    assert report.stopped
    assert report.resume_at == 7
    rest = produce_files(log, stream(), [one, two], skip=report.resume_at)
    assert (rest.records, rest.skipped, rest.resume_at) == (13, 7, 20)
    assert values(log) == [b"%d" % at for at in range(20)]


def test_progress_reaches_the_size_of_all_files(log: EmbeddedLog, tmp_path: Path) -> None:
    files = [write(tmp_path / "a.ndjson", b"1\n2\n"), write(tmp_path / "b.csv", b"id\nx\n")]
    told: list[ProduceProgress] = []
    produce_files(log, stream(), files, on_progress=told.append)
    assert told[-1] == ProduceProgress(3, 9, 9)


def test_a_rate_is_kept_and_progress_moves_with_it(log: EmbeddedLog, tmp_path: Path) -> None:
    file = write(tmp_path / "a.ndjson", b"1\n" * 40)
    told: list[ProduceProgress] = []
    report = produce_files(log, stream(), [file], rate=100, on_progress=told.append)
    assert report.seconds >= 0.35  # 40 records, of which the first five need not wait
    assert [progress.bytes_read for progress in told] == [10, 20, 30, 40, 50, 60, 70, 80]
    assert told[-1] == ProduceProgress(40, 80, 80)


class Unready:
    """A log that is not ready for the first few appends."""

    def __init__(self, log: EmbeddedLog, failures: int) -> None:
        self._log = log
        self._failures = failures

    def append(self, records: pa.Table) -> object:
        self._failures -= 1
        if self._failures >= 0:
            raise TransientError("not ready")
        return self._log.append(records)


def test_a_log_that_is_not_ready_is_tried_again(log: EmbeddedLog, tmp_path: Path) -> None:
    report = produce_files(Unready(log, 2), stream(), [write(tmp_path / "a.ndjson", b"1\n")])  # type: ignore[arg-type]
    assert report.records == 1
    assert values(log) == [b"1"]


def test_a_refusal_in_the_middle_says_how_many_are_in_the_log(tmp_path: Path) -> None:
    log = open_embedded_log(tmp_path / "log.db", "events", bytes_max=40, durable=False)
    files = [write(tmp_path / f"{name}.ndjson", b"x" * 30 + b"\n") for name in "ab"]
    with pytest.raises(RefusedError, match=r"is full.*1 records were appended before; go on with skip = 1"):
        produce_files(log, stream(), files)
    log.close()


@pytest.mark.parametrize("rate", [0, -1, math.nan, math.inf])
def test_a_rate_that_is_not_positive_is_refused(log: EmbeddedLog, rate: float) -> None:
    with pytest.raises(ProfileError, match="positive"):
        produce_files(log, stream(), [], rate=rate)
