"""How rows and facts look: tables for people, JSON and CSV for scripts."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import cache
from typing import TYPE_CHECKING, Any

import typer

from headrace.cli.arguments import Format
from headrace.declare.words import printable
from headrace.store.values import Instant, values_of

if TYPE_CHECKING:
    import pyarrow as pa
    from rich.console import Console
    from rich.table import Table

    from headrace.log.backoff import Waiting

__all__ = [
    "cell",
    "console",
    "error_console",
    "json_text",
    "print_facts",
    "print_json",
    "print_rows",
    "rows_table",
    "spell_number",
    "spell_rate",
    "told_waiting",
]

_CELL_WIDTH_MAX = 60
_RATE_OVER_S_MIN = 1.0
_PLAIN_WIDTH = 10_000  # not a terminal: nothing is cut or wrapped, whoever reads it may be a program


@cache
def console() -> Console:
    """Return what prints to standard output."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else _PLAIN_WIDTH)


@cache
def error_console() -> Console:
    """Return what prints to standard error: progress and notices, never data."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else _PLAIN_WIDTH)


def print_rows(table: pa.Table, form: Format) -> None:
    """Print a table of rows to standard output."""
    columns = [values_of(column) for column in table.columns]
    rows = list(zip(*columns, strict=True))
    if form is Format.JSON:
        names = _apart(table.column_names)
        shown = (json_text(dict(zip(names, row, strict=True))) for row in rows)
        typer.echo("[" + ",\n ".join(shown) + "]")
    elif form is Format.CSV:
        import csv

        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(table.column_names)
        writer.writerows(["" if value is None else _csv(value) for value in row] for row in rows)
    else:
        console().print(rows_table(table.column_names, rows))


def _apart(names: Sequence[str]) -> list[str]:
    """Return names of which each is there once: a second `a` is `a_1`, as DuckDB calls it."""
    found: list[str] = []
    for name in names:
        number, other = 0, name
        while other in found or (number and other in names):
            number += 1
            other = f"{name}_{number}"
        found.append(other)
    return found


def rows_table(names: Sequence[str], rows: Iterable[Sequence[Any]], *, title: str | None = None) -> Table:
    """Return a table for people; numbers stand right, NULL is shown as such."""
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    kept = list(rows)
    table = Table(box=SIMPLE_HEAD, title=title, title_justify="left", pad_edge=False, show_edge=False)
    for index, name in enumerate(map(printable, names)):
        numeric = any(isinstance(row[index], int | float | Decimal) for row in kept)
        table.add_column(escape(name), justify="right" if numeric else "left", no_wrap=numeric)
    for row in kept:
        table.add_row(*("[dim]NULL[/dim]" if value is None else escape(cell(value)) for value in row))
    return table


def cell(value: Any) -> str:
    """Return a value as people read it; nothing of it commands the terminal."""
    if isinstance(value, datetime):
        text = value.isoformat(sep=" ", timespec="auto")
        return text.removesuffix("+00:00")
    if isinstance(value, Instant):
        return value.replace("T", " ").removesuffix("+00:00")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, float):
        return f"{value:.6g}" if abs(value) < 1e15 else repr(value)
    if isinstance(value, dict | list):
        value = json_text(value)
    text = _text(value) if isinstance(value, bytes) else str(value)
    text = printable(text[: _CELL_WIDTH_MAX + 1], keep="\n\t")
    return text if len(text) <= _CELL_WIDTH_MAX else text[: _CELL_WIDTH_MAX - 1] + "…"


def print_json(document: Any) -> None:
    """Print a document of plain values, indented."""
    typer.echo(json.dumps(document, indent=2, ensure_ascii=False, default=str))


def print_facts(facts: Iterable[tuple[str, str]]) -> None:
    """Print lines of a word and what it is; what a record says in there commands nothing."""
    lines = list(facts)
    width = max((len(name) for name, _ in lines), default=0)
    for name, value in lines:
        typer.echo(f"{name:<{width}}  {printable(value)}")


def told_waiting() -> Callable[[Waiting | None], None]:
    """Return what prints once what a command waits for, and when it goes on."""
    from headrace.operate.waiting import WaitingWords

    words = WaitingWords()

    def tell(pause: Waiting | None) -> None:
        news = words.take(pause)
        if pause is None:
            typer.echo("ready again", err=True)
        elif news:
            typer.echo(words.lines(), err=True)

    return tell


def spell_number(value: float) -> str:
    """Return a number with its thousands apart: `12,345`, `3.4`."""
    return f"{value:,.0f}" if isinstance(value, int) or abs(value) >= 100 else f"{value:,.1f}"


def spell_rate(each_second: float, seconds: float) -> str:
    """Return a rate: `1,234/s`; empty where it is one over less than a second, which says nothing."""
    return f"{spell_number(each_second)}/s" if seconds >= _RATE_OVER_S_MIN else ""


def json_text(value: Any) -> str:
    """Return JSON of a row's value: decimals keep every digit, times are ISO 8601, bytes are text or hex."""
    if value is None or isinstance(value, bool | int | str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, float):
        return json.dumps(value) if value - value == 0 else "null"  # NaN and infinity have no JSON
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json_text(str(k))}: {json_text(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(json_text, value)) + "]"
    return json.dumps(_csv(value), ensure_ascii=False)


def _csv(value: Any) -> Any:
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bytes):
        return _text(value)
    return json_text(value) if isinstance(value, dict | list | Decimal) else str(value)


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return "\\x" + value.hex()
