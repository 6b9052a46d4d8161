"""Every function of this DuckDB stands in one of our lists, and only in one."""

from __future__ import annotations

import duckdb

from headrace.sql import functions


def names_of(kind: str) -> set[str]:
    rows = duckdb.connect().execute(
        "SELECT DISTINCT lower(function_name) FROM duckdb_functions() WHERE function_type = ?", [kind]
    )
    return {row[0] for row in rows.fetchall()}


REFUSED = functions.CLOCK | functions.CHANCE | functions.FILES | functions.SESSION | functions.ROW_MAKING
AGGREGATES = functions.SHORT_LIST | functions.ORDERED_AGGREGATES | functions.OTHER_AGGREGATES


def test_every_scalar_function_and_macro_of_duckdb_is_in_a_list() -> None:
    unknown = {
        name
        for name in names_of("scalar") | names_of("macro")
        if not functions.is_pure(name) and name not in REFUSED | AGGREGATES
    }
    assert unknown == set(), "judge these: add each to a list of sql/functions.py"


def test_every_aggregate_of_duckdb_is_in_a_list() -> None:
    assert names_of("aggregate") - AGGREGATES == set()


def test_no_function_is_both_allowed_and_refused() -> None:
    lists = [functions.PURE, functions.CLOCK, functions.CHANCE, functions.FILES, functions.SESSION,
             functions.ROW_MAKING, functions.SHORT_LIST, functions.ORDERED_AGGREGATES,
             functions.OTHER_AGGREGATES]  # fmt: skip
    for position, names in enumerate(lists):
        for others in lists[position + 1 :]:
            assert names & others == set()


def test_the_lists_hold_nothing_that_duckdb_does_not_have() -> None:
    known = names_of("scalar") | names_of("macro") | names_of("aggregate")
    assert functions.PURE - known == set()
    assert AGGREGATES - known - {"geomean"} == set()
