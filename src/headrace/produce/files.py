"""Appends files to a log: NDJSON, CSV, Parquet, or NDJSON from standard input."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import Event
from typing import Any, Literal

import pyarrow as pa

from headrace.declare import Stream
from headrace.errors import HeadraceError, ProfileError, RefusedError, TransientError
from headrace.log.protocol import Log
from headrace.produce.columns import csv_chunks, parquet_chunks
from headrace.produce.fields import Fields, time_field, utc_connection
from headrace.produce.lines import Chunk, is_pipe, line_chunks

__all__ = ["FileFormat", "ProduceProgress", "ProduceReport", "produce_files"]

FileFormat = Literal["ndjson", "csv", "parquet"]

_FORMAT_OF_SUFFIX: dict[str, FileFormat] = {
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".json": "ndjson",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
}
_APPENDS_A_SECOND = 20  # with a rate: often enough to look even, seldom enough to be cheap
_RETRIES_MAX = 6  # then the run ends: no `BackOff`, which waits for ever, by chance, and tells of it
_RETRY_FIRST_S = 0.2


@dataclass(frozen=True)
class ProduceProgress:
    """How far a run has come. `bytes_total` is None when a pipe is among the files, as standard input is."""

    records: int
    bytes_read: int
    bytes_total: int | None


@dataclass(frozen=True)
class ProduceReport:
    """What a run did. `records` are durable in the log, in the order of the files.

    skipped      records passed over because `skip` asked for it
    timeless     records that got the log's clock although their own time was asked for: none was found
    lines_empty  empty lines of NDJSON: not records
    stopped      whether it was stopped before the end; run again with `skip` = `resume_at` to go on
    """

    records: int
    skipped: int
    timeless: int
    lines_empty: int
    bytes_read: int
    seconds: float
    stopped: bool

    @property
    def resume_at(self) -> int:
        """How many records of these files are in the log."""
        return self.skipped + self.records


def produce_files(
    log: Log,
    stream: Stream,
    files: Sequence[str | Path],
    *,
    format: FileFormat | None = None,
    record_time: str = "now",
    rate: float | None = None,
    skip: int = 0,
    stop: Event | None = None,
    on_progress: Callable[[ProduceProgress], None] | None = None,
) -> ProduceReport:
    """Append the records of `files` to `log`, in their order; `-` is NDJSON from standard input.

    `format` None: by the file's name. `record_time`: `now` (the log's clock), `event`, or `field:NAME`; with
    the last two the stream counts as being loaded (`Log.load`). `rate`: records a second. `skip`: pass over
    so many records first, to go on after a stop. Setting `stop` ends the run between two appends.

    Every file is looked at before the first record is appended. Raises ProfileError for wrong options, and
    RefusedError when a file cannot be read or the log refuses; both say how many records were appended.
    """
    if rate is not None and not 0 < rate < math.inf:
        raise ProfileError(f"a rate of {rate} records/s", fix="give a positive rate, or none for unlimited")
    field = time_field(stream, record_time)
    formats = [_format_of(file, format) for file in files]
    total = _total_bytes(files, formats)
    run = _Run(log, rate, skip, stop or Event(), on_progress, total, timed=field is not None)
    connect = cache(utc_connection)  # plain lines need none, and loading DuckDB takes a while
    try:
        with log.load() if field is not None else nullcontext():
            for file, kind in zip(files, formats, strict=True):
                fields = Fields(connect, stream.key, field)
                run.append_file(_chunks(file, kind, stream, connect, run.stop), fields)
    except HeadraceError as error:
        resumable = f"; go on with skip = {run.skipped + run.records}" if run.records else ""
        error.message += f" ({run.records:,} records were appended before{resumable})"
        raise
    finally:
        if connect.cache_info().currsize:
            connect().close()
    return run.report()


def _format_of(file: str | Path, format: FileFormat | None) -> FileFormat:
    if str(file) == "-":
        if format not in (None, "ndjson"):
            raise ProfileError(f"standard input as {format}", fix="only NDJSON can be piped; name a file")
        return "ndjson"
    if format is not None:
        return format
    path = Path(file)
    suffix = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    found = _FORMAT_OF_SUFFIX.get(suffix.lower())
    if found is None:
        raise ProfileError(
            f"{file}: its name does not say which format it has", fix="add --format ndjson, csv or parquet"
        )
    return found


def _total_bytes(files: Sequence[str | Path], formats: Sequence[FileFormat]) -> int | None:
    """Return the size of all files, None where one is a pipe.

    Raises RefusedError naming every one that cannot be read. Nothing is taken out of a pipe for that: what
    is read of it here would be missing later.
    """
    total, pipes, wrong = 0, False, []
    for file, kind in zip(files, formats, strict=True):
        if is_pipe(file):
            pipes = True
            if kind != "ndjson":
                raise RefusedError(
                    f"{file}: a pipe, which can be read once only, as {kind}",
                    fix="only NDJSON can be piped: write it to a file first",
                )
            continue
        try:
            with Path(file).open("rb") as opened:
                opened.read(1)
            total += Path(file).stat().st_size
        except OSError as error:
            wrong.append(f"{file}: {error.strerror}")
    if wrong:
        raise RefusedError("; ".join(wrong), fix="check the names and that you may read them")
    return None if pipes else total


def _chunks(
    file: str | Path, kind: FileFormat, stream: Stream, connect: Callable[[], Any], stop: Event
) -> Iterator[Chunk]:
    if kind == "parquet":
        return parquet_chunks(Path(file), connect())
    if kind == "csv":
        return csv_chunks(Path(file), stream, connect())
    if str(file).endswith(".json") and not is_pipe(file):
        _require_lines(Path(file))
    return line_chunks(file, stop)


def _require_lines(file: Path) -> None:
    """Refuse one large JSON array: line by line every record of it would be malformed."""
    with file.open("rb") as opened:
        start = opened.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
    if start.startswith(b"["):
        raise RefusedError(
            f"{file}: a JSON array, not one record per line",
            fix=f"convert it: jq -c '.[]' {file} > {file.stem}.ndjson",
        )


class _Run:
    """Counts, paces and retries one run."""

    def __init__(
        self,
        log: Log,
        rate: float | None,
        skip: int,
        stop: Event,
        on_progress: Callable[[ProduceProgress], None] | None,
        bytes_total: int | None,
        *,
        timed: bool,
    ) -> None:
        self.stop = stop
        self.records = 0
        self.skipped = 0
        self.timeless = 0
        self._log = log
        self._rate = rate
        self._timed = timed
        self._skip = skip
        self._on_progress = on_progress
        self._bytes_total = bytes_total
        self._bytes_before = 0
        self._bytes_read = 0
        self._lines_empty = 0
        self._started = time.monotonic()

    def append_file(self, chunks: Iterator[Chunk], fields: Fields) -> None:
        self._bytes_before = self._bytes_read
        for chunk, table in fields.tables(chunks):
            if self.stop.is_set():
                return
            self._lines_empty += chunk.lines_empty
            passed = min(self._skip - self.skipped, table.num_rows)
            self.skipped += passed
            began, ended = self._bytes_read, self._bytes_before + chunk.bytes_read
            for piece in self._pieces(table.slice(passed)):
                if not self._append(piece):
                    return
                passed += piece.num_rows
                self._bytes_read = began + (ended - began) * passed // table.num_rows
                self._tell()
            if self._bytes_read != ended:  # all of it was passed over, or empty
                self._bytes_read = ended
                self._tell()

    def _pieces(self, table: pa.Table) -> Iterator[pa.Table]:
        """Give `table` in pieces when they are due."""
        if self._rate is None:
            if table.num_rows:
                yield table
            return
        step = max(1, int(self._rate / _APPENDS_A_SECOND))
        for start in range(0, table.num_rows, step):
            due = self._started + self.records / self._rate
            self.stop.wait(max(due - time.monotonic(), 0))
            yield table.slice(start, step)

    def _append(self, piece: pa.Table) -> bool:
        """Append `piece`; False when the run was stopped instead."""
        pause = _RETRY_FIRST_S
        for attempt in range(_RETRIES_MAX + 1):
            if self.stop.is_set():
                return False
            try:
                self._log.append(piece)
            except TransientError:
                if attempt == _RETRIES_MAX:
                    raise
                self.stop.wait(pause)
                pause *= 2
            else:
                self.records += piece.num_rows
                self.timeless += piece.column("record_time").null_count if self._timed else 0
                return True
        return False

    def _tell(self) -> None:
        if self._on_progress is not None:
            self._on_progress(ProduceProgress(self.records, self._bytes_read, self._bytes_total))

    def report(self) -> ProduceReport:
        return ProduceReport(
            self.records,
            self.skipped,
            self.timeless,
            self._lines_empty,
            self._bytes_read,
            time.monotonic() - self._started,
            self.stop.is_set(),
        )
