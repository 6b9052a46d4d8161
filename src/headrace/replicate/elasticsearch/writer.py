"""Writes chunks into Elasticsearch or OpenSearch: rows by `_bulk`, then the cursor by compare-and-set.

Rows and cursor cannot be written at once there. What makes a repeat harmless:

- A row is a document with the row's version as an *external* one: the server refuses an older version (409),
  so a chunk that comes again, or late, changes nothing.
- A writer writes through an alias of its own, which it makes when it takes the table, while it takes away
  those of older generations. What a replaced writer sends meets no index, whatever that writer believes. So
  nothing stale can come after a removed row but what was on its way already, and for that the server
  remembers the version of a removed row for `_REMEMBERED` (by default it forgets after 60 s). A document in
  the place of a removed row would guard it for longer, but whoever counts or charts the index would see it.
- Data streams have rules of their own: see streams.py.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from headrace.errors import RefusedError, TransientError
from headrace.replicate.elasticsearch.connection import Answer, Connection, reason_of, typed
from headrace.replicate.elasticsearch.encoding import (
    Lines,
    ids_of,
    lines_of_new,
    lines_of_removed,
    lines_of_rows,
)
from headrace.replicate.elasticsearch.mapping import VERSION, index_names, mapping_of, missing_fields
from headrace.replicate.elasticsearch.streams import DataStream, Seen, Standing, time_columns
from headrace.replicate.plain import sound
from headrace.replicate.protocol import (
    REFUSED_MAX,
    Chunk,
    Cursor,
    Refusal,
    TableShape,
    Task,
    fenced,
    refusal_of,
)

if TYPE_CHECKING:
    from headrace.replicate.elasticsearch import ElasticsearchReplica

__all__ = ["ElasticsearchWriter"]

_REMEMBERED = "5m"
# Rows must be on disk when the cursor says so, whatever a template of the server asks for.
_SAFE = {"gc_deletes": _REMEMBERED, "translog.durability": "request"}
_SWEEP_ROWS = 50_000
_PAUSES_S = (0.1, 0.3, 1.0, 3.0)
_BUSY = frozenset({429, 502, 503, 504})
_STALE = 409
_TOO_LARGE = 413
_OF_A_PIPELINE = ("fail_processor_exception", "ingest_processor_exception", "script_exception")
_VISIBLE = {"later": "false", "wait": "wait_for", "now": "true"}


@dataclass(frozen=True)
class _Saved:
    """A cursor as it is kept: what a compare-and-set has to name, and where a data stream stood."""

    cursor: Cursor | None = None
    place: Mapping[str, int] = field(default_factory=dict)
    standing: Standing | None = None


class ElasticsearchWriter:
    """An open connection; see `ReplicaWriter`."""

    def __init__(self, replica: ElasticsearchReplica, task: Task) -> None:
        self._replica = replica
        self._task = task
        self._indices = index_names(replica, task.tables, task.replica)
        mappings = {shape.name: mapping_of(shape) for shape in task.tables}
        times = time_columns(replica, task.tables, task.replica)
        self._targets: dict[str, str] = {}
        self._connection = Connection(replica, task.replica)
        self._streams = {
            table: DataStream(self._connection, self._indices[table], column)
            for table, column in times.items()
        }
        try:
            self._ensure_cursors()
            for shape in task.tables:
                ensure = self._ensure_stream if shape.name in self._streams else self._ensure_index
                ensure(shape, self._indices[shape.name], mappings[shape.name])
        except BaseException:
            self.close()
            raise

    # --- what has to be there

    def _ensure_cursors(self) -> None:
        if self._connection.call("HEAD", f"/{self._replica.cursors}", accept=(404,)).status == 404:
            settings: dict[str, Any] = {"number_of_shards": 1, "hidden": True}
            if self._replica.number_of_replicas is not None:
                settings["number_of_replicas"] = self._replica.number_of_replicas
            self._create(self._replica.cursors, settings, {"dynamic": False, "properties": {}})

    def _ensure_index(self, shape: TableShape, index: str, wanted: Mapping[str, Any]) -> None:
        """Make the index of a table, or check the one that is there and add the columns that are new."""
        found = self._connection.call("GET", f"/{index}", accept=(404,))
        if found.status == 404:
            # A cursor without its index tells of rows that are gone: the copying begins anew.
            self._forget_cursor(index)
            self._create(index, self._settings(), wanted)
            found = self._connection.call("GET", f"/{index}")
        if index not in found.body:
            raise RefusedError(
                f"'{index}', the index of the table '{shape.name}', is an alias or a data stream",
                fix=f'name another one: index_names = {{ {shape.name} = "…" }}; a stream that append mode '
                "fills stands in data_streams",
            )
        facts = found.body[index]
        missing = missing_fields(shape, index, wanted, facts.get("mappings", {}))
        if missing:
            self._connection.call("PUT", f"/{index}/_mapping", {"properties": missing})
        has = facts.get("settings", {}).get("index", {})
        durability = has.get("translog", {}).get("durability", "request")  # absent: the server's default
        if (has.get("gc_deletes"), durability) != tuple(_SAFE.values()):
            self._connection.call("PUT", f"/{index}/_settings", {"index": _SAFE})

    def _settings(self) -> dict[str, Any]:
        """Return the settings of an index that is made."""
        settings: dict[str, Any] = {"number_of_shards": self._replica.number_of_shards, **_SAFE}
        if self._replica.number_of_replicas is not None:
            settings["number_of_replicas"] = self._replica.number_of_replicas
        return settings

    def _ensure_stream(self, shape: TableShape, index: str, wanted: Mapping[str, Any]) -> None:
        """Make the data stream of a table, or check the one that is there."""
        stream = self._streams[shape.name]
        stream.ensure(shape, self._settings(), wanted)
        saved = self._saved(index)
        if saved.cursor is not None and (saved.standing is None or stream.look(saved.standing) is None):
            self._forget_cursor(index)  # it tells of rows that are gone: the copying begins anew

    def _forget_cursor(self, index: str) -> None:
        self._connection.call("DELETE", self._cursor_path(index), accept=(404,), refresh="true")

    def _create(self, index: str, settings: Mapping[str, Any], mapping: Mapping[str, Any]) -> None:
        body = {"settings": {"index": settings}, "mappings": mapping}
        answer = self._connection.call("PUT", f"/{index}", body, accept=(400,))
        if answer.status == 400 and "resource_already_exists" not in reason_of(answer.body.get("error")):
            raise typed(400, reason_of(answer.body.get("error")), self._connection.server)

    # --- cursors

    def _cursor_path(self, index: str) -> str:
        return f"/{self._replica.cursors}/_doc/{index}"

    def _saved(self, index: str) -> _Saved:
        """Return the cursor of an index, as it is kept."""
        answer = self._connection.call("GET", self._cursor_path(index), accept=(404,))
        if answer.status == 404:
            return _Saved()
        body = answer.body
        facts = dict(body["_source"])
        place = {"if_seq_no": body["_seq_no"], "if_primary_term": body["_primary_term"]}
        stream = facts.pop("stream", None)
        return _Saved(Cursor.of(facts), place, None if stream is None else Standing(**stream))

    def _save(self, table: str, cursor: Cursor, before: _Saved, standing: Standing | None) -> None:
        """Put the cursor there unless somebody else was faster than who saw `before`."""
        params: dict[str, Any] = dict(before.place) if before.place else {"op_type": "create"}
        path = self._cursor_path(self._indices[table])
        facts = cursor.facts() | ({} if standing is None else {"stream": asdict(standing)})
        if self._connection.call("PUT", path, facts, accept=(409,), **params).status == _STALE:
            raise fenced(table)

    def cursors(self) -> Mapping[str, Cursor]:
        """See `ReplicaWriter`."""
        found = {table: self._saved(index).cursor for table, index in self._indices.items()}
        return {table: cursor for table, cursor in found.items() if cursor is not None}

    def take(self, table: str, seen: Cursor | None, cursor: Cursor) -> None:
        """See `ReplicaWriter`."""
        there = self._saved(self._indices[table])
        if (there.cursor is None) != (seen is None):
            raise fenced(table)
        if seen is not None and not seen.same_writer(there.cursor):
            raise fenced(table)
        if there.cursor is None:
            self._refuse_rows_without_cursor(table)
        standing = there.standing
        if table in self._streams and standing is None:
            standing = self._look(table, None).standing
        self._save(table, cursor, there, standing)
        self._own_target(table, cursor.generation)

    def _refuse_rows_without_cursor(self, table: str) -> None:
        """Raise RefusedError when the index has rows of a replica: versions may be above all of ours."""
        index = self._indices[table]
        self._connection.call("POST", f"/{index}/_refresh")
        asked = {"query": {"exists": {"field": VERSION}}}
        if self._connection.call("POST", f"/{index}/_count", asked, terminate_after="1").body.get("count"):
            raise RefusedError(
                f"'{index}', the index of the table '{table}', has rows of a replica, and "
                f"'{self._replica.cursors}' says nothing of them",
                fix=f"bring back '{self._replica.cursors}' (option cursors), or delete '{index}': it is "
                "filled again",
            )

    def _own_target(self, table: str, generation: int) -> None:
        """Make the alias that this writer writes through, and take away those of older generations."""
        if table in self._streams:
            self._targets[table] = self._indices[table]
            return
        index = self._indices[table]
        known = self._connection.call("GET", f"/{index}/_alias").body.get(index, {}).get("aliases", {})
        begin = f"headrace-writer-{index}-"
        alias = f"{begin}{generation}-{secrets.token_hex(4)}"
        older = [name for name in known if name.startswith(begin) and _generation_of(name) <= generation]
        actions: list[dict[str, Any]] = [{"remove": {"index": index, "alias": name}} for name in older]
        actions.append({"add": {"index": index, "alias": alias, "is_write_index": True, "is_hidden": True}})
        answer = self._connection.call("POST", "/_aliases", {"actions": actions}, accept=(404,))
        if answer.status == 404:
            raise TransientError(f"another process takes '{table}' at this moment", fix="it is tried again")
        self._targets[table] = alias

    # --- rows

    def write(self, chunk: Chunk) -> None:
        """See `ReplicaWriter`."""
        table = chunk.table.name
        before = self._saved(self._indices[table])
        if before.cursor == chunk.cursor:
            return  # this very chunk: its answer was lost on the way
        if not chunk.cursor.same_writer(before.cursor):
            raise fenced(table)
        if table not in self._targets:
            self._own_target(table, chunk.cursor.generation)
        chunk = sound(chunk, self._task.set_aside)  # one value that is no line would spoil them all
        refusals: list[Refusal] = []
        standing = None
        if table in self._streams:
            standing = self._add(chunk, before.standing, refusals)
        else:
            self._change(chunk, refusals)
        if chunk.sweep_below:
            self._sweep(table, chunk.sweep_below, chunk.cursor.kept_below)
        if refusals:
            self._task.set_aside(refusals)
        self._save(table, chunk.cursor, before, standing)

    def _change(self, chunk: Chunk, refusals: list[Refusal]) -> None:
        """Send removals and rows."""
        if chunk.removed.num_rows:
            self._send(chunk.table, chunk.removed, lines_of_removed(chunk.table, chunk.removed), refusals)
            refusals.clear()  # a key that the server does not take is none that it could hold
        if chunk.rows.num_rows:
            self._send(chunk.table, chunk.rows, lines_of_rows(chunk.table, chunk.rows), refusals)

    def _add(self, chunk: Chunk, saved: Standing | None, refusals: list[Refusal]) -> Standing:
        """Send rows to a data stream, without those that it has; return where it stood before."""
        shape, rows, rounds = chunk.table, chunk.rows, chunk.cursor.rounds
        stream = self._streams[shape.name]
        seen = self._look(shape.name, saved)
        if seen.behind and rows.num_rows:
            ids = ids_of(shape, rows, rounds=rounds)
            known = stream.known(ids, seen.behind)
            rows = rows.filter(pa.array([each not in known for each in ids]))
        if rows.num_rows:
            lines = lines_of_new(shape, rows, column=stream.column, rounds=rounds)
            self._send(shape, rows, lines, refusals)
        return seen.standing

    def _look(self, table: str, saved: Standing | None) -> Seen:
        seen = self._streams[table].look(saved)
        if seen is None:
            raise TransientError(
                f"the data stream '{self._indices[table]}' was deleted", fix="it is made and filled anew"
            )
        return seen

    def _send(self, shape: TableShape, rows: pa.Table, lines: Lines, refusals: list[Refusal]) -> None:
        for first, last in lines.bodies(self._replica.body_bytes):
            self._send_body(shape, rows, lines, range(first, last), refusals)
            if len(refusals) > REFUSED_MAX:
                raise RefusedError(
                    f"{self._connection.server} refuses more than {REFUSED_MAX} rows of '{shape.name}' at "
                    f"once: {refusals[-1].reason}",
                    fix="correct the index (its mapping, a pipeline of its own), then resume",
                )

    def _send_body(
        self, shape: TableShape, rows: pa.Table, lines: Lines, wanted: Sequence[int], refusals: list[Refusal]
    ) -> None:
        """Send some rows, those again for which the server had no time, and keep what it refuses."""
        reason, stream = "", shape.name in self._streams
        # A request that may have been carried out is not sent to a stream again before a look at it.
        busy = frozenset() if stream else _BUSY
        for pause in (*_PAUSES_S, None):
            body = _joined(lines, wanted)
            answer = self._connection.bulk(
                self._targets[shape.name],
                body,
                refresh=_VISIBLE[self._replica.visible],
                require_alias="false" if stream else "true",
                filter_path="errors,error,items.*.status,items.*.error",
            )
            if answer.status == _TOO_LARGE:
                self._send_halves(shape, rows, lines, wanted, refusals)
                return
            if answer.status not in (200, *busy):
                raise typed(answer.status, reason_of(answer.body.get("error")), self._connection.server)
            if answer.status == 200:
                if answer.content.startswith(b'{"errors":false'):
                    return
                wanted, reason = self._verdicts(shape, rows, answer, wanted, refusals)
                if not wanted:
                    return
            else:
                reason = reason_of(answer.body.get("error"))
            if pause is None:
                raise typed(429, reason, self._connection.server)
            self._connection.pause(pause)

    def _send_halves(
        self, shape: TableShape, rows: pa.Table, lines: Lines, wanted: Sequence[int], refusals: list[Refusal]
    ) -> None:
        """Send what was too large for one request in two."""
        if len(wanted) == 1:
            refusals.append(
                refusal_of(shape, rows, wanted[0], "the row is larger than the server takes (413)")
            )
            return
        half = len(wanted) // 2
        self._send_body(shape, rows, lines, wanted[:half], refusals)
        self._send_body(shape, rows, lines, wanted[half:], refusals)

    def _verdicts(
        self,
        shape: TableShape,
        rows: pa.Table,
        answer: Answer,
        sent: Sequence[int],
        refusals: list[Refusal],
    ) -> tuple[list[int], str]:
        """Judge every item; return the rows to send again, and why the server did not take one of them."""
        again: list[int] = []
        why = ""
        for row, item in zip(sent, answer.body["items"], strict=True):
            (verdict,) = item.values()
            status, error = verdict["status"], verdict.get("error")
            if status < 300 or status == _STALE or (status == 404 and error is None):
                continue
            reason = reason_of(error)
            kind = error.get("type", "") if isinstance(error, dict) else ""
            if status == 404:
                self._gone(shape.name)
            if status in _BUSY:
                again.append(row)
                why = reason
            elif status in (401, 403) or (status >= 500 and kind not in _OF_A_PIPELINE):
                raise typed(status, reason, self._connection.server)
            else:
                refusals.append(refusal_of(shape, rows, row, f"{reason} ({status})"))
        return again, why

    def _gone(self, table: str) -> None:
        """Say why the alias is not there: another writer took it away, or somebody the index."""
        index = self._indices[table]
        if self._connection.call("HEAD", f"/{index}", accept=(404,)).status == 404:
            raise TransientError(
                f"the index '{index}' was deleted while it was written", fix="it is made and filled anew"
            )
        raise fenced(table)

    def _sweep(self, table: str, below: int, first: int) -> None:
        """Take out every row with a version from `first` to `below`, without that one."""
        index = self._indices[table]
        self._connection.call("POST", f"/{index}/_refresh")
        body = {"query": {"range": {VERSION: {"gte": first, "lt": below}}}, "max_docs": _SWEEP_ROWS}
        while True:
            answer = self._connection.call(
                "POST", f"/{index}/_delete_by_query", body,
                conflicts="proceed", refresh="true", timeout="60s", scroll_size=5000,
            ).body  # fmt: skip
            if answer.get("failures"):
                failure = answer["failures"][0]
                raise typed(
                    failure.get("status", 500), reason_of(failure.get("cause")), self._connection.server
                )
            if answer.get("version_conflicts"):
                self._connection.pause(_PAUSES_S[0])  # something wrote meanwhile: look again
            elif not answer.get("deleted"):
                return

    # --- the end

    def interrupt(self) -> None:
        """See `ReplicaWriter`."""
        self._connection.interrupt()

    def close(self) -> None:
        """See `ReplicaWriter`."""
        with suppress(Exception):
            self._connection.close()


def _generation_of(alias: str) -> int:
    number = alias.split("-")[-2]
    return int(number) if number.isdigit() else 0


def _joined(lines: Lines, wanted: Sequence[int]) -> bytes | memoryview:
    if isinstance(wanted, range):
        return lines.body(wanted.start, wanted.stop)
    return b"".join(bytes(lines.body(row, row + 1)) for row in wanted)
