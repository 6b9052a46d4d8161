"""Which types a column can have that is kept: in a table, or beside the record as a derived column."""

from __future__ import annotations

import re

from headrace.sql.syntax import QueryError

__all__ = ["refuse_kept_type"]

_VARCHAR = "CAST it AS VARCHAR"
_REFUSED = {
    "ENUM": f"{_VARCHAR}; for its order keep a number as well: list_position(['low', 'high'], x)",
    "BIT": _VARCHAR,
    "TIME WITH TIME ZONE": f"{_VARCHAR}, or make it a TIMESTAMP: it has no place on the time line",
    "UNION": f"{_VARCHAR}, or make a STRUCT with one nullable field for each kind",
    "VARIANT": f"{_VARCHAR}, or AS JSON",
    "GEOMETRY": _VARCHAR,
    "UHUGEINT": f"{_VARCHAR}, or AS HUGEINT where it fits",
}
_QUOTED = re.compile(r"\"(?:[^\"]|\"\")*\"|'(?:[^']|'')*'")
# A field of a STRUCT may be named like a type; its name is followed by a space.
_FOUND = re.compile(rf"\b({'|'.join(_REFUSED)})(?=[,)\[(]|$)")


def refuse_kept_type(kind: str, at: int | None = None) -> QueryError | None:
    """Return why a value of a type cannot be kept; None when it can.

    Inside an expression any type may stand: DuckDB computes with it. What is kept travels as Arrow, and is
    read by replicas and people; of these types a part is lost on the way, such as an order, a zone or a bit.
    """
    found = _FOUND.search(_QUOTED.sub("_", kind))
    if found is None:
        return None
    return QueryError(f"a value of the type {found[1]} cannot be kept", _REFUSED[found[1]], at)
