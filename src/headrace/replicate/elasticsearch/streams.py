"""Data streams: tables whose rows are only ever added, in backing indices that the server rolls over.

A document of a stream is created and never changed. Its `_id` is the same whenever its row is sent, so within
a backing index the server refuses what it has (409), and a repeat is harmless. A stream that rolled over
between a row and its repeat would take it twice. So the cursor's document says which backing index was
written when it was saved, and rows are first looked for in those from that one on that no longer are.

A stream has neither versions nor an alias of each writer's own: what a replaced writer had on its way when it
was replaced is taken. Of one store these are rows with the ids that its successor writes, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headrace.errors import ProfileError, RefusedError
from headrace.replicate.elasticsearch.connection import Answer, Connection, reason_of, typed
from headrace.replicate.elasticsearch.mapping import TIME, missing_fields
from headrace.replicate.protocol import TableShape

if TYPE_CHECKING:
    from headrace.replicate.elasticsearch import ElasticsearchReplica

__all__ = ["DataStream", "Seen", "Standing", "time_columns"]

_LOOKED_UP = 5_000
_PRIORITY = 500
"""Above the templates that servers come with (100 to 200)."""
_INSTANTS = ("TIMESTAMP", "DATE")


@dataclass(frozen=True)
class Standing:
    """Where a stream stood: how many backing indices it has had, and which was written, by its UUID."""

    generation: int
    written: str


@dataclass(frozen=True)
class Seen:
    """A look at a stream: where it stands, and what was written since a cursor and no longer is."""

    standing: Standing
    behind: tuple[str, ...]


def time_columns(replica: ElasticsearchReplica, tables: Sequence[TableShape], name: str) -> Mapping[str, str]:
    """Return the column that gives the time of each table that is kept as a data stream.

    Raises ProfileError for a mode that changes rows, a table that is not copied, a column that is no instant.
    """
    wanted = replica.data_streams or {}
    if wanted and replica.mode != "append":
        raise ProfileError(
            f"replica '{name}': rows of a data stream cannot change", fix='write mode = "append" beside it'
        )
    shapes = {shape.name: shape for shape in tables}
    for table, column in wanted.items():
        if table not in shapes:
            raise ProfileError(
                f"replica '{name}': data_streams names '{table}', which this replica does not copy",
                fix="one of: " + ", ".join(shapes),
            )
        names = [one.name for one in shapes[table].columns]
        if TIME in names and column != TIME:
            raise ProfileError(
                f"replica '{name}': '{table}' has a column '{TIME}', as a data stream's time is called",
                fix=f'write data_streams = {{ {table} = "{TIME}" }}, or call the column otherwise',
            )
        instants = [one.name for one in shapes[table].columns if one.type.startswith(_INSTANTS)]
        if column not in instants:
            raise ProfileError(
                f"replica '{name}': '{column}' is no instant of '{table}', and a data stream needs its time",
                fix="one of: " + (", ".join(instants) or "none; select one in the table's query"),
            )
    return dict(wanted)


class DataStream:
    """The stream of one table. Calls may raise TransientError and RefusedError."""

    def __init__(self, connection: Connection, name: str, column: str) -> None:
        self.name = name
        self.column = column
        self._connection = connection

    def ensure(self, shape: TableShape, settings: Mapping[str, Any], mapping: Mapping[str, Any]) -> None:
        """Make template and stream, or check what is there and add the columns that are new."""
        properties = {**mapping["properties"], TIME: {"type": "date"}}
        wanted = {**mapping, "properties": properties}
        found = self._connection.call("GET", f"/{self.name}", accept=(404,))
        if self.name in found.body:
            raise RefusedError(
                f"'{self.name}', which should be the data stream of '{shape.name}', is an index",
                fix=f'delete it, or name another one: index_names = {{ {shape.name} = "…" }}',
            )
        self._ensure_template(shape, settings, wanted)
        if found.status == 404:
            self._asked("PUT", f"/_data_stream/{self.name}", None, accept="resource_already_exists")
            return
        written = self._facts()["indices"][-1]["index_name"]
        missing = missing_fields(shape, self.name, wanted, found.body[written].get("mappings", {}))
        if missing:
            self._connection.call(
                "PUT", f"/{self.name}/_mapping", {"properties": missing}, write_index_only="true"
            )

    def _ensure_template(
        self, shape: TableShape, settings: Mapping[str, Any], wanted: Mapping[str, Any]
    ) -> None:
        """Make the template of what is rolled over to; of one that is there, all but new columns stays."""
        path = f"/_index_template/headrace-{self.name}"
        found = self._connection.call("GET", path, accept=(404,))
        if found.status == 404:
            inner = {"settings": {"index": settings}, "mappings": wanted}
            body = {
                "index_patterns": [self.name], "data_stream": {}, "priority": _PRIORITY, "template": inner
            }  # fmt: skip
            self._asked("PUT", path, body)
            return
        there = found.body["index_templates"][0]["index_template"]
        template = there.setdefault("template", {})
        mapping = template.setdefault("mappings", {})
        missing = missing_fields(shape, self.name, wanted, mapping)
        if missing:
            mapping["properties"] = {**mapping.get("properties", {}), **missing}
            self._asked("PUT", path, there)

    def _asked(self, method: str, path: str, body: Any, accept: str = "") -> None:
        answer = self._connection.call(method, path, body, accept=(400, 405))
        reason = reason_of(answer.body.get("error"))
        if answer.status in (200, 201) or (accept and accept in reason):
            return
        if _knows_no_streams(answer, reason):
            raise RefusedError(
                f"{self._connection.server} has no data streams here ({reason})",
                fix="use OpenSearch, or Elasticsearch in its default distribution; or take data_streams out",
            )
        raise typed(answer.status, reason, self._connection.server)

    def _facts(self) -> Mapping[str, Any]:
        answer = self._connection.call("GET", f"/_data_stream/{self.name}", accept=(404,))
        found = answer.body.get("data_streams")
        return found[0] if found else {}

    def look(self, saved: Standing | None) -> Seen | None:
        """Return what is to be known before rows are sent.

        None: the stream of which the cursor tells was deleted, whether or not one of its name is there.
        """
        facts = self._facts()
        if not facts:
            return None
        uuids = [index["index_uuid"] for index in facts["indices"]]
        standing = Standing(facts["generation"], uuids[-1])
        if saved is None:
            return Seen(standing, ())
        names = tuple(index["index_name"] for index in facts["indices"][:-1])
        if saved.written in uuids:
            return Seen(standing, names[uuids.index(saved.written) :])
        # Taken out by retention, it has a successor of a greater generation; a new stream begins with 1.
        return Seen(standing, names) if standing.generation > saved.generation else None

    def known(self, ids: Sequence[str], behind: Sequence[str]) -> set[str]:
        """Return which documents are in backing indices that are no longer written."""
        found: set[str] = set()
        if not behind or not ids:
            return found
        path = ",".join(behind)
        self._connection.call("POST", f"/{path}/_refresh")
        for first in range(0, len(ids), _LOOKED_UP):
            asked = list(ids[first : first + _LOOKED_UP])
            body = {"size": len(asked), "_source": False, "query": {"ids": {"values": asked}}}
            # A shard that does not answer is no proof that a row is absent.
            answer = self._connection.call(
                "POST", f"/{path}/_search", body, allow_partial_search_results="false"
            )
            found |= {hit["_id"] for hit in answer.body["hits"]["hits"]}
        return found


def _knows_no_streams(answer: Answer, reason: str) -> bool:
    return answer.status == 405 or "no handler found" in reason or "data_stream" in reason
