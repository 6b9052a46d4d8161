"""The process of one query of the SQL console: `python -m headrace.web.page.console_process DESCRIPTOR`.

It reads two lines of JSON and writes two: {sql, rows_max, relations} is answered by {wants}, the columns that
the query names; {places}, where the file of the descriptor holds them as streams of Arrow, by {rows}. Instead
of either it may say {refused, fix, late}.
"""

from __future__ import annotations

import json
import mmap
import os
import resource
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

import duckdb
import pyarrow as pa

from headrace.errors import HeadraceError, RefusedError, TransientError
from headrace.store.names import quoted
from headrace.store.queries import check_query, run_query
from headrace.web.page.console_limits import ANSWER_BYTES_MAX, MEMORY_BYTES_MAX, QUERY_MEMORY, SECONDS_MAX
from headrace.web.page.values import columns_of, rows_of

__all__ = ["answer", "console_database"]

_CPU_S = 30
_NICE = 10  # the engine comes first

# What takes columns that the query does not name, in the words of DuckDB's tree.
_EVERY_COLUMN = frozenset({"STAR", "NATURAL", "PIVOT", "POSITIONAL", "POSITIONAL_REFERENCE"})

Relations = Mapping[str, list[tuple[str, str]]]
"""Columns of each relation: name and DuckDB's type."""


def answer(descriptor: int) -> None:
    """Serve one query."""
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_S, _CPU_S))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    asked = json.loads(sys.stdin.readline())
    try:
        relations: Relations = asked["relations"]
        connection = console_database()
        wanted = _wanted(connection, asked["sql"], relations)
        _say({"wants": wanted})
        places = json.loads(sys.stdin.readline())["places"]
        os.nice(_NICE)
        _put(connection, descriptor, places, relations)
        _say({"rows": _rows(connection, asked["sql"], asked["rows_max"])})
    except HeadraceError as error:
        late = isinstance(error, TransientError)
        _say({"refused": error.message, "fix": error.fix, "late": late})
    except MemoryError:
        _say({"refused": "the query needs too much memory", "fix": "ask for less", "late": False})


def _say(message: dict[str, Any]) -> None:
    text = json.dumps(message)
    if len(text) >= ANSWER_BYTES_MAX:
        raise _too_large()
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def console_database() -> Any:
    """Return an empty database that reads no file, loads no extension and changes no setting."""
    connection = duckdb.connect(
        ":memory:", config={"memory_limit": QUERY_MEMORY, "threads": 1, "temp_directory": ""}
    )
    for setting, value in (
        ("TimeZone", "UTC"),
        ("python_enable_replacements", "false"),
        ("autoinstall_known_extensions", "false"),
        ("autoload_known_extensions", "false"),
        ("enable_external_access", "false"),
        ("lock_configuration", "true"),
    ):
        connection.execute(f"SET {setting} = '{value}'")
    return connection


def _wanted(connection: Any, sql: str, relations: Relations) -> dict[str, list[str]]:
    """Return the columns that are to be copied: those that the query may mean, at least one."""
    for name, columns in relations.items():
        shape = ", ".join(f"{quoted(column)} {kind}" for column, kind in columns)
        connection.execute(f"CREATE TABLE {quoted(name)} ({shape})")
    tree = check_query(connection, sql)
    words = set(_strings(tree))
    said = {word.lower() for word in words}
    every = bool(words & _EVERY_COLUMN) or _has_rows(tree)
    wanted = {}
    for name, columns in relations.items():
        if name.lower() in said:  # also for a common table expression of that name: harmless
            names = [column for column, _ in columns]
            wanted[name] = [each for each in names if every or each.lower() in said] or names[:1]
    return wanted


def _strings(node: Any) -> Iterator[str]:
    """Give every name, word and literal in the tree of a query."""
    if isinstance(node, str):
        yield node
    for part in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from _strings(part)


def _has_rows(tree: Any) -> bool:
    """Return whether a table's name or alias stands for its whole row, or columns are renamed by place."""
    tables, values = set[str](), set[str]()

    def walk(node: Any) -> bool:
        if isinstance(node, dict):
            if node.get("column_name_alias"):
                return True
            if node.get("type") == "BASE_TABLE":
                tables.update({node["table_name"].lower(), node["alias"].lower()})
            if node.get("class") == "COLUMN_REF" and len(node["column_names"]) == 1:
                values.add(node["column_names"][0].lower())
            node = list(node.values())
        return isinstance(node, list) and any(walk(part) for part in node)

    return walk(tree) or bool(tables & values)


def _put(
    connection: Any, descriptor: int, places: Mapping[str, tuple[int, int]], relations: Relations
) -> None:
    """Put what was copied in the place of the empty tables, with the types that they have in the store."""
    if not places:
        return
    # Pages of a file that is only read are no memory of the process: they do not count against its limit.
    copied = memoryview(mmap.mmap(descriptor, 0, prot=mmap.PROT_READ))
    for name, (begin, end) in places.items():
        rows = pa.ipc.open_stream(pa.py_buffer(copied[begin:end])).read_all()
        types = dict(relations[name])
        columns = ", ".join(
            f"CAST({quoted(each)} AS {types[each]}) AS {quoted(each)}" for each in rows.column_names
        )
        connection.execute(f"DROP TABLE {quoted(name)}")
        connection.register(f"_copied_{name}", rows)
        connection.execute(
            f"CREATE TEMP VIEW {quoted(name)} AS SELECT {columns} FROM {quoted('_copied_' + name)}"
        )


def _rows(connection: Any, sql: str, rows_max: int) -> dict[str, Any]:
    begun = time.perf_counter()
    table = run_query(connection, sql, rows_max=rows_max + 1, seconds_max=SECONDS_MAX)
    if table.nbytes > ANSWER_BYTES_MAX:
        raise _too_large()
    return {
        "columns": columns_of(table),
        "rows": rows_of(table.slice(0, rows_max)),
        "cut": table.num_rows > rows_max,
        "seconds": round(time.perf_counter() - begun, 4),
    }


def _too_large() -> RefusedError:
    return RefusedError("the answer is too large", fix="ask for fewer rows or columns, shorter values")


if __name__ == "__main__":
    answer(int(sys.argv[1]))
