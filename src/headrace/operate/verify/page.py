"""A verdict for people: lines of text, or one HTML file with every text from data escaped and no script."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime
from html import escape
from typing import Any

from headrace.declare.words import printable
from headrace.operate.verify.comparing import Compared, Difference
from headrace.operate.verify.verdict import Verdict

__all__ = ["told_differences", "verdict_page"]

_CELL_MAX = 400

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
.equal { color: #0a6b3d; } .different { color: #b3261e; }
table { border-collapse: collapse; width: 100%; } caption { text-align: left; padding-bottom: .3rem; }
th, td { border-bottom: 1px solid #d7dce4; padding: .3rem .6rem; text-align: left; vertical-align: top; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
td { overflow-wrap: anywhere; } code { font-size: .9em; }
@media (prefers-color-scheme: dark) { body { background: #14181f; color: #e4e8ee; }
th, td { border-color: #333b48; }
.equal { color: #6bd6a0; } .different { color: #ff8f86; } }
""".strip()


def _written(value: Any) -> str:
    """Return a value as text, the whole of it: with all digits, bytes as text where they are."""
    if value is None:
        return "NULL"
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z") if value.tzinfo else value.isoformat()
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {_written(each)}" for name, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_written, value)) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def told_differences(verdict: Verdict, *, each_max: int) -> Iterator[str]:
    """Give lines that name table, key, column, both values and the records behind; few of each table."""
    for compared in verdict.compared:
        if not compared.different:
            continue
        yield f"{compared.title}:"
        for one in compared.differences[:each_max]:
            yield f"  {_key_text(one) or '(its one row)'}"
            yield f"    {one.column}: local {_short(one.local)}"
            yield f"    {' ' * len(one.column)}  Spark {_short(one.spark)}"
            if one.behind:
                yield f"    records: {_records_text(one)}"
        if compared.different > each_max:
            yield f"  and {compared.different - min(each_max, len(compared.differences)):,} more"
        yield ""


def _key_text(one: Difference) -> str:
    return ", ".join(f"{name} = {_short(value)}" for name, value in one.key.items())


def _records_text(one: Difference) -> str:
    more = one.behind - len(one.records)
    return ", ".join(one.records) + (f" and {more:,} more" if more > 0 else "")


def _short(value: Any) -> str:
    """Return a value on one line that cannot move a terminal's cursor."""
    safe = printable(_written(value))
    return safe if len(safe) <= _CELL_MAX else safe[: _CELL_MAX - 1] + "…"


def verdict_page(verdict: Verdict, made: datetime) -> str:
    """Return the page; `made` is when."""
    state = "equal" if verdict.equal else "different"
    title = f"headrace verify: {verdict.pipeline}: {state}"
    facts = [
        ("pipeline", verdict.pipeline),
        ("profile", verdict.profile),
        ("records", f"{verdict.records:,}"),
        ("local engine", f"{verdict.local.epochs:,} epochs, {verdict.local.seconds:.1f} s"),
        ("Spark", f"{verdict.master}: {verdict.spark.epochs:,} micro-batches, {verdict.spark.seconds:.1f} s"),
        ("made", _written(made)),
    ]
    if verdict.conflicting:
        facts.append(("copies with other content", f"{verdict.conflicting:,}; see docs/verify.md"))
    spans = [
        (stream, partition, start, end)
        for stream, places in verdict.spans.items()
        for partition, (start, end) in sorted(places.items())
    ]
    parts = [
        f'<h1 class="{state}">{_text(_headline(verdict))}</h1>',
        _table("What was run", ("", ""), facts),
        _table("Records", ("stream", "partition", "from offset", "before offset"), spans),
        _table(
            "What was compared",
            ("what", "rows, local", "rows, Spark", "differences"),
            [(one.title, one.rows_local, one.rows_spark, one.different) for one in verdict.compared],
        ),
        *(_differences(one) for one in verdict.compared if one.different),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>{_text(title)}</title>\n<style>\n{_STYLE}\n</style>\n</head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body>\n</html>\n"
    )


def _headline(verdict: Verdict) -> str:
    if verdict.equal:
        return "Both engines answer the same"
    return f"The engines differ in {verdict.different:,} places"


def _differences(compared: Compared) -> str:
    more = compared.different - len(compared.differences)
    rows = [
        (_key_text(one), one.column, _short(one.local), _short(one.spark), _records_text(one))
        for one in compared.differences
    ]
    heading = f"<h2>{_text(compared.title)}</h2>"
    note = f"<p>and {more:,} more differences</p>" if more else ""
    return heading + _table("", ("key", "column", "local", "Spark", "records"), rows) + note


def _table(caption: str, header: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    head = "".join(f'<th scope="col">{_text(name)}</th>' for name in header)
    body = "\n".join("<tr>" + "".join(_cell(value) for value in row) + "</tr>" for row in rows)
    above = f"<caption>{_text(caption)}</caption>" if caption else ""
    return f"<table>{above}<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table>"


def _cell(value: Any) -> str:
    if isinstance(value, int):
        return f'<td class="number">{value:,}</td>'
    return f"<td>{_text(str(value))}</td>"


def _text(text: str) -> str:
    return escape(text if len(text) <= _CELL_MAX else text[: _CELL_MAX - 1] + "…")
