"""Rows as JSON and CSV: every value that a store can hold is written so that anybody reads it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from targets import FilesTarget

from headrace.errors import RefusedError
from headrace.replicate.files import FilesReplica, read_files
from headrace.replicate.plain import sound
from headrace.replicate.protocol import (
    REFUSED_MAX,
    Chunk,
    NamedColumn,
    Position,
    Refusal,
    TableShape,
    Task,
    refusal_of,
    version_of,
)
from headrace.replicate.stdout import StdoutReplica
from headrace.testing.replica_writes import FIRST

FAR = ("9999-12-31 23:59:59.5", "10000-01-01 00:00:00", "infinity", "-infinity", "0044-03-15 (BC) 00:00:00")


def chunk_of(*columns: tuple[str, str], values: list[str], epoch: int = 1) -> Chunk:
    """A chunk with `n` and these columns; `values` are rows of SQL."""
    cells = ", ".join(f'c{at}::{kind} AS "{name}"' for at, (name, kind) in enumerate(columns))
    names = ", ".join(f"c{at}" for at in range(len(columns)))
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    rows = connection.sql(
        f"SELECT n::BIGINT AS n, {cells}, {version_of(1, epoch)}::BIGINT AS _version FROM "
        f"(VALUES {', '.join(f'({n}, {value})' for n, value in enumerate(values))}) t(n, {names}) ORDER BY n"
    ).to_arrow_table()
    connection.close()
    named = (NamedColumn("n", "BIGINT"), *(NamedColumn(name, kind) for name, kind in columns))
    shape = TableShape(name="things", columns=named, key=("n",))
    removed = pa.table({"n": pa.array([], pa.int64()), "_version": pa.array([], pa.int64())})
    return Chunk(table=shape, rows=rows, removed=removed, cursor=replace(FIRST, position=Position.at(epoch)))


Sent = Callable[[Chunk], tuple[list[dict[str, Any]], list[Refusal]]]


def exact(text: str) -> Any:
    """Read JSON as its standard has it, numbers as the texts that they are."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    return json.loads(text, parse_int=str, parse_float=str, parse_constant=refuse)


@pytest.fixture(params=["files", "stdout"])
def sent(
    request: pytest.FixtureRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Iterator[Sent]:
    """What becomes of a chunk: the rows as they are read, and what was set aside."""

    def send(chunk: Chunk) -> tuple[list[dict[str, Any]], list[Refusal]]:
        aside: list[Refusal] = []
        task = Task(replica="copy", pipeline="tests", tables=(chunk.table,), set_aside=aside.extend)
        options: Any = StdoutReplica(kind="stdout")
        if request.param == "files":
            options = FilesReplica(kind="files", path=str(tmp_path))
        writer = options.open(task)
        writer.take(chunk.table.name, None, FIRST)
        writer.write(chunk)
        writer.close()
        said = capsys.readouterr().out
        if request.param == "files":
            said = (tmp_path / "things.ndjson").read_text()
        return [exact(line)["row"] for line in said.split("\n") if line], aside

    yield send


def test_json_is_written_with_the_digits_that_it_has(sent: Sent) -> None:
    digits = "1" * 5_000
    texts = [digits, f'{{"a":{digits}}}', "[0.12345678901234567890123,1e400]"]
    rows, aside = sent(chunk_of(("payload", "JSON"), values=[f"'{text}'" for text in texts]))
    assert [row["payload"] for row in rows] == [digits, {"a": digits}, ["0.12345678901234567890123", "1e400"]]
    assert aside == []


def test_what_duckdb_alone_takes_for_json_is_written_as_everybody_reads_it(sent: Sent) -> None:
    texts = ['{"a":1,}', '{ "a, }" :\n[nan, -Infinity,\n] }', '["x\\"nan, ]",null]']
    rows, aside = sent(chunk_of(("payload", "JSON"), values=[f"'{text}'" for text in texts]))
    assert [row["payload"] for row in rows] == [
        {"a": "1"},
        {"a, }": ["NaN", "-Infinity"]},
        ['x"nan, ]', None],
    ]
    assert aside == []


def test_json_that_nobody_could_read_is_set_aside_and_the_other_rows_are_written(sent: Sent) -> None:
    depth = sys.getrecursionlimit() * 10
    rows, aside = sent(chunk_of(("payload", "JSON"), values=[f"'{'[' * depth}{']' * depth}'", "'[1]'"]))
    assert [row["n"] for row in rows] == ["1"]
    assert [(refusal.key, "'payload'" in refusal.reason) for refusal in aside] == [('{"n": 0}', True)]


def test_nan_and_the_infinities_are_texts(sent: Sent) -> None:
    values = [f"'{word}', [1.5, '{word}'::DOUBLE]::VARCHAR" for word in ("nan", "inf", "-inf", "1.5")]
    rows, _ = sent(chunk_of(("x", "DOUBLE"), ("list", "JSON"), values=values))
    assert [row["x"] for row in rows] == ["NaN", "Infinity", "-Infinity", "1.5"]
    assert [row["list"][1] for row in rows] == ["NaN", "Infinity", "-Infinity", "1.5"]


def test_instants_that_python_cannot_hold_are_written(sent: Sent) -> None:
    kinds = (("a", "TIMESTAMP"), ("b", "TIMESTAMP WITH TIME ZONE"), ("c", "DATE"), ("d", "TIMESTAMP_S"))
    rows, _ = sent(chunk_of(*kinds, values=[", ".join([f"'{text}'"] * 4) for text in FAR]))
    assert [row["a"] for row in rows] == [
        "9999-12-31T23:59:59.500000",
        "10000-01-01T00:00:00",
        "infinity",
        "-infinity",
        "-43-03-15T00:00:00",
    ]
    assert [row["b"] for row in rows][:3] == [
        "9999-12-31T23:59:59.500000+00:00",
        "10000-01-01T00:00:00+00:00",
        "infinity",
    ]
    assert [row["c"] for row in rows][:3] == ["9999-12-31", "10000-01-01", "infinity"]
    assert rows[1]["d"] == "10000-01-01T00:00:00"


def test_other_values_are_written_as_the_documents_say(sent: Sent) -> None:
    kinds = {
        "DECIMAL(4,4)": ("-.05", "-0.0500"),
        "HUGEINT": ("170141183460469231731687303715884105", "170141183460469231731687303715884105"),
        "BIGINT": ("9223372036854775807", "9223372036854775807"),
        "BLOB": ("a\\x00", "6100"),
        "TIME": ("12:30:00", "12:30:00"),
        "INTERVAL": ("1 day 2 hours", "1 day 02:00:00"),
        "TIMESTAMP_NS": ("2026-03-01 12:00:00.123456789", "2026-03-01T12:00:00.123456789"),
        "BOOLEAN": ("true", True),
        "VARCHAR": ('a "b"\u2028\x01', 'a "b"\u2028\x01'),
        "UUID": ("00000000-0000-0000-0000-000000000001", "00000000-0000-0000-0000-000000000001"),
    }
    row = ", ".join(f"'{value}'" for value, _ in kinds.values())
    nothing = ", ".join(["NULL"] * len(kinds))
    rows, _ = sent(chunk_of(*((kind, kind) for kind in kinds), values=[row, nothing]))
    assert rows[0] == {"n": "0"} | {kind: wanted for kind, (_, wanted) in kinds.items()}
    assert rows[1] == {"n": "1"} | dict.fromkeys(kinds)


def test_csv_has_what_python_cannot_hold(tmp_path: Path) -> None:
    target = FilesTarget(tmp_path)
    chunk = chunk_of(
        ("seen", "TIMESTAMP"),
        ("payload", "JSON"),
        values=["'infinity', '1' || repeat('0', 5000)", "NULL, '{}'"],
    )
    task = Task(replica="copy", pipeline="tests", tables=(chunk.table,), set_aside=lambda _: None)
    writer = target.replica(format="csv").open(task)
    writer.take("things", None, FIRST)
    writer.write(chunk)
    version = version_of(1, 1)
    assert (tmp_path / "things.csv").read_text().splitlines() == [
        '"_op","_version","n","seen","payload"',
        f'"put",{version},0,"infinity","1{"0" * 5000}"',
        f'"put",{version},1,,"{{}}"',
    ]


def test_files_are_read_back_with_numbers_that_python_refuses(tmp_path: Path) -> None:
    chunk = chunk_of(("payload", "JSON"), values=[f"'{'1' * 5000}'"])
    task = Task(replica="copy", pipeline="tests", tables=(chunk.table,), set_aside=lambda _: None)
    writer = FilesTarget(tmp_path).replica().open(task)
    writer.take("things", None, FIRST)
    writer.write(chunk)
    assert [row["n"] for row in read_files(tmp_path, "things")] == [0]


def test_a_refused_row_is_named_by_an_instant_that_python_cannot_hold() -> None:
    chunk = chunk_of(("seen", "TIMESTAMP"), ("all", "TIMESTAMP[]"), values=["'infinity', ['10000-01-01']"])
    shape = replace(chunk.table, key=("seen", "all"))
    refusal = refusal_of(shape, chunk.rows, 0, "not taken")
    assert json.loads(refusal.key) == {"seen": "infinity", "all": "['10000-01-01 00:00:00']"}


def test_as_many_rows_as_may_be_refused_at_once_are_set_aside_and_more_stop_the_replica() -> None:
    deep = "'" + "[" * 50_000 + "]" * 50_000 + "'"  # more than any Python reads
    refused: list[Refusal] = []

    def chunk_with(count: int) -> Chunk:
        made = chunk_of(("j", "VARCHAR"), values=["'[1]'", deep])
        rows = made.rows.take([0] * 2 + [1] * count)
        columns = (made.table.columns[0], NamedColumn("j", "JSON"))
        return replace(made, rows=rows, table=replace(made.table, columns=columns))

    assert sound(chunk_with(REFUSED_MAX), refused.extend).rows.num_rows == 2
    assert len(refused) == REFUSED_MAX
    with pytest.raises(RefusedError, match="1001 rows of 'things' cannot be written at once: column 'j'"):
        sound(chunk_with(REFUSED_MAX + 1), refused.extend)
    assert len(refused) == REFUSED_MAX
