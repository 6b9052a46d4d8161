"""The one SELECT of the row stage: decode, derive, check, hash.

It reads a relation with "doc" VARCHAR (what is decoded), "original" VARCHAR (the record's own text, only when
trusting) and "record_time" TIMESTAMPTZ. It gives the plan's columns, then "_suspect", "_key_hash" and
"_content_hash" where they apply, "_text_N" and "_parts_N" (see DecodeSql), "_failed_N" per derived column
(only when trying) and "_violated_N" per check. Instants that no expression of the plan needs are given as
their texts, "_text_N" left out, unless trusting (see `free_instants`).
"""

from __future__ import annotations

from headrace.declare import Column
from headrace.rows.decode import INSTANT, DecodeSql, decode_sql, quote
from headrace.sql.plan import StreamPlan

__all__ = ["free_instants", "row_query"]


def free_instants(plan: StreamPlan) -> tuple[int, ...]:
    """The numbers of the declared instants that only `instants` needs to read, not the row query."""
    stream = plan.stream
    expressions = [derived.sql for derived in plan.derived] + [check.sql for check in plan.checks]
    needed = "\n".join(expressions).casefold()
    if stream.name.casefold() in needed:
        return ()  # it may mean the whole row
    hashed = {stream.event_time, *stream.unique} if stream.unique else set()
    return tuple(
        number
        for number, column in enumerate(stream.schema.columns)
        if column.type.sql == INSTANT
        and column.name not in hashed
        and column.name.casefold() not in needed
        and '"' not in column.name  # it is written otherwise in an expression
    )


def row_query(plan: StreamPlan, documents: str, *, trusting: bool, trying: bool) -> str:
    """Return the SELECT over the relation `documents`.

    trusting  the documents were written by `strict`; nothing is doubted
    trying    a derived column or a check that raises fails for its record alone. DuckDB evaluates such an
              expression again row by row, so this form is for batches in which something has raised.
    """
    columns = plan.stream.schema.columns
    decode = decode_sql(columns, trusting=trusting, texts=() if trusting else free_instants(plan))
    original = "original" if trusting else "doc"
    source = f"doc, {original} AS original, record_time FROM {documents}"
    relation = f"SELECT json_transform(doc, {decode.structure}) AS t, {source}"
    relation = _typed(relation, columns, decode)
    name = quote(plan.stream.name)
    for number, derived in enumerate(plan.derived):
        target = quote(derived.name)
        value = f"CAST(({derived.sql}) AS {derived.type})"
        if not trying:
            relation = f"SELECT *, {value} AS {target} FROM ({relation}) AS {name}"
            continue
        # TRY makes an error look like NULL; inside a struct, only an error makes the struct itself NULL.
        tried = _attempt(f"struct_pack(v := {value})")
        attempt = f"SELECT *, {tried} AS _attempt FROM ({relation}) AS {name}"
        relation = (
            f"SELECT * EXCLUDE (_attempt), _attempt.v AS {target}, _attempt IS NULL AS _failed_{number} "
            f"FROM ({attempt})"
        )
    outputs = [quote(column.name) for column in plan.columns]
    outputs += ["_suspect"] if decode.suspect != "false" else []
    outputs += _hashes(plan)
    outputs += [name for name, _ in decode.proofs]
    if trying:
        outputs += [f"_failed_{number}" for number in range(len(plan.derived))]
    for number, check in enumerate(plan.checks):
        condition = _attempt(f"({check.sql})") if trying else f"({check.sql})"
        outputs.append(f"{condition} IS NOT TRUE AS _violated_{number}")
    return f"SELECT {', '.join(outputs)} FROM ({relation}) AS {name}"


def _attempt(expression: str) -> str:
    """Return an expression that is NULL where `expression` fails.

    What several expressions have in common, or one has twice, DuckDB computes before them, outside of their
    TRY: one record would fail the whole batch, for ever. It takes nothing out of a CASE; the condition of
    this one is true of every record.
    """
    return f"CASE WHEN _taken IS NOT NULL THEN TRY({expression}) END"


def _typed(relation: str, columns: tuple[Column, ...], decode: DecodeSql) -> str:
    outputs = [f"{text} AS {quote(column.name)}" for column, text in zip(columns, decode.typed, strict=True)]
    if decode.suspect != "false":
        outputs.append(f"coalesce({decode.suspect}, true) AS _suspect")
    outputs += [f"{text} AS {name}" for name, text in decode.proofs]
    return f"SELECT {', '.join(outputs)}, original AS _original, record_time AS _taken FROM ({relation})"


def _hashes(plan: StreamPlan) -> list[str]:
    unique = plan.stream.unique
    if not unique:
        return []
    names = [quote(name) for name in unique]
    time = quote(plan.stream.event_time) if plan.stream.event_time else "_taken"
    key = f"hash({', '.join([*names, time])})"
    nullable = {column.name for column in plan.stream.schema.columns if column.nullable}
    nullable |= {derived.name for derived in plan.derived}
    doubts = [f"{quote(name)} IS NULL" for name in unique if name in nullable]
    if doubts:
        key = f"CASE WHEN {' OR '.join(doubts)} THEN NULL ELSE {key} END"
    return [f"{key} AS _key_hash", "hash(_original) AS _content_hash"]
