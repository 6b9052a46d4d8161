"""What a table looks like in an index: its name, its mapping, and what may be added to one that is there."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import duckdb

from headrace.errors import ProfileError, RefusedError
from headrace.replicate.protocol import TableShape

if TYPE_CHECKING:
    from headrace.replicate.elasticsearch import ElasticsearchReplica

__all__ = ["TIME", "VERSION", "index_names", "mapping_of", "missing_fields"]

VERSION = "_headrace_version"
"""The field with a row's version: the server's own version of a document cannot be searched for."""
TIME = "@timestamp"
"""The field that a server knows the time of a data stream's documents by."""

_INDEXED_CHARACTERS = 8191
"""A keyword of more characters is kept and not indexed: a term has 32,766 bytes at most."""
_SCALARS: Mapping[str, Mapping[str, Any]] = {
    "BOOLEAN": {"type": "boolean"},
    "TINYINT": {"type": "byte"},
    "UTINYINT": {"type": "short"},
    "SMALLINT": {"type": "short"},
    "USMALLINT": {"type": "integer"},
    "INTEGER": {"type": "integer"},
    "UINTEGER": {"type": "long"},
    "BIGINT": {"type": "long"},
    # There is no larger integer. A number that does not fit is refused, and set aside with its key.
    "UBIGINT": {"type": "long"},
    "HUGEINT": {"type": "long"},
    "UHUGEINT": {"type": "long"},
    "FLOAT": {"type": "float"},
    "DOUBLE": {"type": "double"},
    "DATE": {"type": "date", "format": "strict_date"},
    "BLOB": {"type": "binary"},
    "JSON": {"type": "object", "enabled": False},
}
_INSTANT = {"type": "date", "format": "strict_date_optional_time"}
_TEXT = {"type": "keyword", "ignore_above": _INDEXED_CHARACTERS}
_TAKEN = ("_doc_count", "_feature", "_field_names", "_id", "_ignored", "_index", "_nested_path", "_routing")
_TAKEN_TOO = ("_seq_no", "_size", "_source", "_tier", "_type", "_version", VERSION)
_NOT_IN_NAMES = re.compile(r'[\\/*?"<>| ,#:_\x00-\x1f]')
_NAME_BYTES_MAX = 255


def index_names(replica: ElasticsearchReplica, tables: tuple[TableShape, ...], name: str) -> dict[str, str]:
    """Return the index of every table. Raises ProfileError for two tables that would share one."""
    found: dict[str, str] = {}
    for shape in tables:
        own = (replica.index_names or {}).get(shape.name)
        index = replica.prefix + (own or _NOT_IN_NAMES.sub("-", shape.name.lower()).lstrip("-+"))
        if not index or len(index.encode()) > _NAME_BYTES_MAX or index != index.lower():
            raise ProfileError(
                f"replica '{name}': '{index}' cannot be the index of the table '{shape.name}'",
                fix=f'write index_names = {{ {shape.name} = "…" }}: small letters, no _ in front',
            )
        if index in found.values():
            raise ProfileError(
                f"replica '{name}': two tables would share the index '{index}'",
                fix=f'write index_names = {{ "{shape.name}" = "…" }}',
            )
        found[shape.name] = index
    return found


def mapping_of(shape: TableShape) -> dict[str, Any]:
    """Return the mapping of a table's index. Raises ProfileError for a column that cannot be a field."""
    fields: dict[str, Any] = {}
    for column in shape.columns:
        if column.name in (*_TAKEN, *_TAKEN_TOO) or "." in column.name or not column.name.strip():
            raise ProfileError(
                f"the column '{column.name}' of '{shape.name}' cannot be a field of an index",
                fix="give it another name in the query: SELECT … AS name",
            )
        fields[column.name] = _field_of(column.type)
    return {"dynamic": False, "properties": {**fields, VERSION: {"type": "long"}}}


def _field_of(kind: str) -> dict[str, Any]:
    if kind in _SCALARS:
        return dict(_SCALARS[kind])
    if kind.startswith("TIMESTAMP"):
        return dict(_INSTANT)
    if kind.startswith("DECIMAL"):
        precision, scale = (int(number) for number in re.findall(r"\d+", kind))
        # Searches and sums see a double; the document has every digit, and this says how many are meant.
        return {"type": "long" if scale == 0 and precision <= 18 else "double", "meta": {"type": kind}}
    parsed = duckdb.type(kind)
    if parsed.id in ("list", "array"):
        return _field_of(str(parsed.children[0][1]))
    if parsed.id == "struct":
        return {
            "type": "object",
            "properties": {name: _field_of(str(child)) for name, child in parsed.children},
        }
    if parsed.id in ("map", "union"):
        return {"type": "object", "enabled": False}
    return dict(_TEXT)


def missing_fields(
    shape: TableShape, index: str, wanted: Mapping[str, Any], there: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what has to be added to the mapping `there`. Raises RefusedError where the types differ."""
    for path, mine, other in _differences(wanted["properties"], there.get("properties", {})):
        raise RefusedError(
            f"the field '{path}' of index '{index}' is {other}, and the table '{shape.name}' gives {mine}",
            fix=f"delete the index '{index}', or name another one (index_names); then "
            "`headrace replicas rebuild` fills it",
        )
    return _additions(wanted["properties"], there.get("properties", {}))


def _differences(
    wanted: Mapping[str, Any], there: Mapping[str, Any], path: str = ""
) -> Iterator[tuple[str, str, str]]:
    for name, mine in wanted.items():
        other = there.get(name)
        if other is None:
            continue
        # An object is shown without its type when it has properties.
        kinds = [str(one.get("type", "object")) for one in (mine, other)]
        if kinds[0] != kinds[1]:
            yield path + name, kinds[0], kinds[1]
        yield from _differences(mine.get("properties", {}), other.get("properties", {}), f"{path}{name}.")


def _additions(wanted: Mapping[str, Any], there: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, mine in wanted.items():
        if name not in there:
            found[name] = mine
        elif inner := _additions(mine.get("properties", {}), there[name].get("properties", {})):
            found[name] = {"properties": inner}
    return found
