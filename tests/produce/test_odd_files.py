"""Files that are none, that are broken, or that are called as a pattern is."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import headrace as hr
from headrace.errors import RefusedError
from headrace.log import EmbeddedLog, open_embedded_log
from headrace.produce.files import produce_files

pipeline = hr.Pipeline("test")
pipeline.stream("events", schema="id VARCHAR NOT NULL, at TIMESTAMP", event_time="at")
STREAM = pipeline.streams[0]


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EmbeddedLog]:
    opened = open_embedded_log(tmp_path / "log.db", "events", durable=False)
    yield opened
    opened.close()


def ids(log: EmbeddedLog) -> list[str]:
    given = log.read({}, rows_max=1_000_000, bytes_max=1 << 30, wait=timedelta(0))
    return sorted(json.loads(value)["id"] for value in given.records.column("value").to_pylist())


@contextmanager
def piped(content: bytes) -> Iterator[str]:
    """The name under which a shell passes a pipe on, as in `produce events <(zcat day.gz)`."""
    reads, writes = os.pipe()

    def write() -> None:
        with suppress(BrokenPipeError), os.fdopen(writes, "wb") as file:  # nobody may read it
            file.write(content)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield f"/dev/fd/{reads}"
    finally:
        os.close(reads)
        writer.join()


def test_nothing_of_a_pipe_is_lost(log: EmbeddedLog) -> None:
    names = [f"{number:06}" for number in range(20_000)]
    with piped(b"".join(b'{"id": "%s"}\n' % name.encode() for name in names)) as pipe:
        report = produce_files(log, STREAM, [pipe], format="ndjson")
    assert report.records == len(names)
    assert ids(log) == names


def test_a_pipe_that_would_have_to_be_read_twice_is_refused(log: EmbeddedLog) -> None:
    with piped(b"id\n1\n") as pipe, pytest.raises(RefusedError, match="can be read once only") as refused:
        produce_files(log, STREAM, [pipe], format="csv")
    assert "NDJSON" in refused.value.fix


def test_a_silent_pipe_that_is_named_does_not_keep_a_run_from_stopping(log: EmbeddedLog) -> None:
    reads, writes = os.pipe()
    os.write(writes, b'{"id": "1"}\n')
    stop = threading.Event()
    try:
        report = produce_files(
            log, STREAM, [f"/dev/fd/{reads}"], format="ndjson", stop=stop, on_progress=lambda _: stop.set()
        )
    finally:
        os.close(reads)
        os.close(writes)
    assert (report.records, report.stopped) == (1, True)


@pytest.mark.parametrize("name", ["day[1]", "day?", "d*", "[", "a]b"])
@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_file_that_is_called_as_a_pattern_is_read_and_no_other(
    log: EmbeddedLog, tmp_path: Path, name: str, form: str
) -> None:
    folder = tmp_path / "some[where]"
    folder.mkdir()
    for stem, value in (("day1", "other"), ("days", "other"), (name, "wanted")):
        file = folder / f"{stem}.{form}"
        if form == "csv":
            file.write_text(f"id\n{value}\n")
        else:
            pq.write_table(pa.table({"id": [value]}), file)
    produce_files(log, STREAM, [folder / f"{name}.{form}"])
    assert ids(log) == ["wanted"]


def test_a_gzip_file_that_is_damaged_in_the_middle_is_refused(log: EmbeddedLog, tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(b"".join(b'{"id": "%d"}\n' % n for n in range(5_000))))
    packed[20:40] = bytes(20)
    file = tmp_path / "a.ndjson.gz"
    file.write_bytes(packed)
    with pytest.raises(RefusedError, match=r"a\.ndjson\.gz: not a whole gzip file"):
        produce_files(log, STREAM, [file])


@pytest.mark.parametrize(
    "content",
    [b"id\n1\n", gzip.compress(b"id\n1\n", mtime=0)[:20], b"\x1f\x8b" + bytes(40)],
    ids=["text", "cut", "zeros"],
)
def test_csv_that_is_no_gzip_in_spite_of_its_name_is_refused(
    log: EmbeddedLog, tmp_path: Path, content: bytes
) -> None:
    file = tmp_path / "a.csv.gz"
    file.write_bytes(content)
    with pytest.raises(RefusedError, match=r"a\.csv\.gz: (not a whole gzip file|cannot be read)"):
        produce_files(log, STREAM, [file])


def test_csv_in_utf_16_is_refused_with_what_to_do(log: EmbeddedLog, tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("id,at\n1,2026-03-01T12:00:00Z\n", encoding="utf-16")
    with pytest.raises(RefusedError, match="line 1: not UTF-8 text") as refused:
        produce_files(log, STREAM, [file])
    assert "iconv" in refused.value.fix


def test_a_file_of_one_endless_line_is_no_csv(log: EmbeddedLog, tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_bytes(b"x" * 300_000)
    with pytest.raises(RefusedError, match="line 1: not a list of different column names"):
        produce_files(log, STREAM, [file])


@pytest.mark.slow
def test_standard_input_that_is_closed_is_refused(tmp_path: Path) -> None:
    headrace = [sys.executable, "-m", "headrace"]
    subprocess.run([*headrace, "new", "weather"], cwd=tmp_path, check=True, capture_output=True)
    done = subprocess.run(
        ["bash", "-c", '"$@" <&-', "bash", *headrace, "produce", "readings", "-"],
        cwd=tmp_path / "weather", capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "error: standard input is closed" in done.stderr
    assert "fix: " in done.stderr
