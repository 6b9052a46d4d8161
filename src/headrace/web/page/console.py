"""The SQL console: a stranger's query runs in a process of its own, over copies of the columns that it names.

The store's instance holds the engine's memory, and DuckDB's limits know nothing of one huge value, so the
query gets neither. Decision 9 tells why; `console_process` is the other end.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from headrace.errors import RefusedError, TransientError
from headrace.sql.references import reference_columns
from headrace.sql.system import system_relations
from headrace.store.names import quoted
from headrace.web.page.console_limits import ANSWER_BYTES_MAX, COPY_BYTES_MAX, SECONDS_MAX

if TYPE_CHECKING:
    import pyarrow as pa

    from headrace.operate import Runtime

__all__ = ["ask_about", "ask_console"]

_START_S = 60.0
"""How long a process may take to be there, on a machine that has much to do."""
_GRACE_S = 3.0
"""How long the process has, beyond the query's time, to write the answer or say that it took too long."""
_BATCH_ROWS = 50_000
_ALIGNED = 64
_LEFT_FREE_BYTES = 1 << 30
"""A copy lies on the disk of the store, which must go on writing."""
_Places = dict[str, tuple[int, int]]
"""Where the copy of each relation begins and ends in the file."""

_FIX = "name fewer columns, or ask `headrace sql`, which reads the store itself"


def ask_console(runtime: Runtime, sql: str, *, rows_max: int) -> dict[str, Any]:
    """Return the rows of one SELECT over tables, views and system relations, as `models.Rows` has them.

    Raises RefusedError for what is no such query, needs too much memory or reads too much; TransientError
    when it takes more than 5 seconds.
    """
    plan = runtime.plan
    relations = {table.name: [(each.name, each.type) for each in table.columns] for table in plan.tables}
    for name, columns in system_relations(plan.streams.values()).items():
        relations[name] = [(each.name, each.type) for each in columns]
    for name, reference in plan.references.items():
        relations[name] = [(column.name, column.type) for column in reference_columns(reference)]
    return _ask(runtime, sql, rows_max, relations, partial(_copy, runtime))


def ask_about(
    runtime: Runtime, name: str, rows: pa.Table, types: list[tuple[str, str]], sql: str
) -> dict[str, Any]:
    """Return the rows of one SELECT over `rows`, as a relation `name` with columns of DuckDB's `types`.

    Raises as `ask_console` does.
    """
    import pyarrow as pa

    def copy(wanted: Mapping[str, list[str]], copied: IO[bytes]) -> _Places:
        for columns in wanted.values():
            chosen = rows.select(columns)
            with pa.ipc.new_stream(copied, chosen.schema) as writer:
                writer.write_table(chosen)
        copied.flush()
        return dict.fromkeys(wanted, (0, copied.tell()))

    return _ask(runtime, sql, rows.num_rows, {name: types}, copy)


def _ask(
    runtime: Runtime,
    sql: str,
    rows_max: int,
    relations: Mapping[str, list[tuple[str, str]]],
    copy: Callable[[Mapping[str, list[str]], IO[bytes]], _Places],
) -> dict[str, Any]:
    with (
        tempfile.TemporaryFile(dir=runtime.project.data) as file,
        _process(cast(IO[bytes], file)) as process,
    ):
        # A query is looked at in the other process too: nothing of a stranger's text is parsed in this one.
        wanted = process.ask({"sql": sql, "rows_max": rows_max, "relations": relations}, _START_S)["wants"]
        asked = {name: wanted[name] for name in relations if name in wanted}
        places = copy(asked, cast(IO[bytes], file))
        return cast(dict[str, Any], process.ask({"places": places}, SECONDS_MAX + _GRACE_S)["rows"])


class _Process:
    """The other end. `ask` gives its next answer; a process that is late is killed."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def ask(self, message: Mapping[str, Any], seconds_max: float) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None  # noqa: S101 - pipes, as opened
        late = threading.Event()

        def end() -> None:
            late.set()
            self._process.kill()

        timer = threading.Timer(seconds_max, end)
        timer.daemon = True
        timer.start()
        line = b""
        try:
            with suppress(BrokenPipeError):
                self._process.stdin.write(json.dumps(message).encode() + b"\n")
                self._process.stdin.flush()
            line = self._process.stdout.readline(ANSWER_BYTES_MAX)
        finally:
            timer.cancel()
        if not line.endswith(b"\n"):
            if late.is_set():
                raise TransientError(
                    f"the query took more than {SECONDS_MAX:g} seconds and was stopped",
                    fix="ask for less: filter by a key or a time",
                )
            raise RefusedError(
                "the query needs more memory than the console has, and was stopped",
                fix="ask for less: fewer rows, shorter values",
            )
        answer: dict[str, Any] = json.loads(line)
        if "refused" in answer:
            kind = TransientError if answer["late"] else RefusedError
            raise kind(answer["refused"], fix=answer["fix"])
        return answer


@contextmanager
def _process(copied: IO[bytes]) -> Iterator[_Process]:
    descriptor = copied.fileno()
    process = subprocess.Popen(  # noqa: S603 - our own module; the query goes through a pipe
        [sys.executable, "-m", "headrace.web.page.console_process", str(descriptor)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        pass_fds=(descriptor,),
        cwd="/",
        # Secrets of the profile are read from the environment; a query has none.
        env={"PYTHONPATH": os.pathsep.join(sys.path), "ARROW_DEFAULT_MEMORY_POOL": "system"},
    )
    try:
        yield _Process(process)
    finally:
        process.kill()
        with suppress(OSError):
            process.communicate()


def _copy(runtime: Runtime, wanted: Mapping[str, list[str]], copied: IO[bytes]) -> _Places:
    """Write the columns of each relation as a stream of Arrow; return where each begins and ends.

    All are of one epoch. The transaction ends with the copy: the query itself holds none of the store.
    """
    import duckdb
    import pyarrow as pa

    places: _Places = {}
    if not wanted:
        return places
    end = time.monotonic() + SECONDS_MAX
    late = threading.Event()

    def stop() -> None:
        late.set()
        cursor.interrupt()

    with runtime.store.snapshot() as cursor:
        timer = threading.Timer(SECONDS_MAX, stop)
        timer.daemon = True
        timer.start()
        try:
            for name, columns in wanted.items():
                begin = copied.seek(-(-copied.tell() // _ALIGNED) * _ALIGNED)
                selected = ", ".join(quoted(each) for each in columns)
                reader = cursor.sql(f"SELECT {selected} FROM {quoted(name)}").to_arrow_reader(_BATCH_ROWS)
                with pa.ipc.new_stream(copied, reader.schema) as writer:
                    for batch in reader:
                        writer.write_batch(batch)
                        _check(copied.tell(), end, name, runtime.project.data)
                places[name] = (begin, copied.tell())
        except (duckdb.Error, OSError) as error:  # in the middle of a reader, DuckDB's errors are Arrow's
            if late.is_set():
                raise _too_slow(name) from error
            raise RefusedError(f"'{name}' could not be read: {error}", fix=_FIX) from error
        finally:
            timer.cancel()
    copied.flush()
    return places


def _check(size: int, end: float, name: str, folder: Path) -> None:
    if shutil.disk_usage(folder).free < _LEFT_FREE_BYTES:
        raise RefusedError(
            f"the disk has too little room for a copy of '{name}': the store needs what is left", fix=_FIX
        )
    if size > COPY_BYTES_MAX:
        raise RefusedError(
            f"the query reads more than {COPY_BYTES_MAX // 1024**2} MiB (it was at '{name}')",
            fix=_FIX,
        )
    if time.monotonic() > end:
        raise _too_slow(name)


def _too_slow(name: str) -> TransientError:
    return TransientError(
        f"reading '{name}' took more than {SECONDS_MAX:g} seconds and was stopped",
        fix=_FIX,
    )
