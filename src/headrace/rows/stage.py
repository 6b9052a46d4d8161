"""Bytes in, outcomes out: the row stage of one stream."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from headrace.errors import InternalError
from headrace.log.arrays import Mask, Rows
from headrace.log.protocol import RECORD_SCHEMA
from headrace.rows.database import RowDatabase, Statement
from headrace.rows.framing import Framing
from headrace.rows.outcomes import Decoded, Malformed, outcomes, rows_of
from headrace.rows.proof import Proof
from headrace.rows.query import free_instants
from headrace.rows.result import RowResult
from headrace.rows.scan import scan
from headrace.rows.strict import Reading, read_record
from headrace.sql.plan import StreamPlan

__all__ = ["RowStage"]

Reasons = tuple[tuple[str, str], ...]
_NO_ROWS: Rows = np.zeros(0, np.int64)
_FEW = 50
_VALUE = RECORD_SCHEMA.get_field_index("value")
_NOTHING: Mapping[int, Reasons] = {}


class RowStage:
    """Decodes, checks and classifies the records of one stream.

    It keeps nothing between calls, so a record's outcome is a function of that record, its record time and
    its lane. It holds an in-memory DuckDB instance of its own, made when it first runs; a pickled stage makes
    another. Calls come from one thread at a time.
    """

    def __init__(self, plan: StreamPlan, framing: Framing | None = None, *, threads: int = 1) -> None:
        self._plan = plan
        self._framing = framing
        self._database = RowDatabase(plan, threads)
        self._proof = Proof(plan.stream.schema.columns, plan.stream.event_time, free_instants(plan))

    def run(self, records: pa.Table, *, lane: str = "main") -> RowResult:
        """Give every record of `records` (RECORD_SCHEMA) its outcome; in lane "redrive" no time is checked.

        Never raises for a record. Raises InternalError when a query of the plan cannot be run at all, and
        TransientError when the framing needs what does not answer now.
        """
        framed, unreadable = records, _NOTHING
        if self._framing is not None:
            documents_of = self._framing.documents(records)
            unreadable = documents_of.unreadable
            records = records.set_column(_VALUE, records.schema.field(_VALUE), documents_of.texts)
        texts = scan(records.column("value"))
        decoded, doubtful, documents = self._read(texts.documents, texts.rows, records.column("record_time"))
        doubts = self._doubts(decoded.table, documents)
        parts = [decoded.where(~doubts)]
        suspects = np.sort(np.concatenate([texts.suspects, doubtful, decoded.rows[doubts]]))
        malformed: list[Malformed] = []
        if len(suspects):
            trusted, malformed = self._judge(records, suspects, unreadable)
            parts += trusted
        # Dead letters keep the bytes that were in the log.
        return outcomes(self._plan, framed, parts, malformed, timed=lane != "redrive")

    def close(self) -> None:
        """Give back the DuckDB instance; the framing belongs to whoever opened it."""
        self._database.close()

    def _read(
        self, documents: pa.ChunkedArray, rows: Rows, times: pa.ChunkedArray
    ) -> tuple[Decoded, Rows, pa.Table]:
        """Decode `documents`; gives what could be, the rows of what could not, the documents that could."""
        if len(rows) < len(times):
            times = times.take(pa.array(rows))
        source = pa.table({"doc": documents, "record_time": times})
        table = self._database.attempt(Statement.DOUBTING, source)
        if table is not None:
            return Decoded(table, rows), _NO_ROWS, source
        # One document that is no JSON takes the whole statement with it: part them, and go on with the good.
        valid: Mask = np.asarray(self._database.run(Statement.VALID, source).column("valid"))
        if not valid.all():
            source = source.filter(pa.array(valid))
            table = self._database.attempt(Statement.DOUBTING, source)
        if table is None:
            table = self._database.attempt(Statement.DOUBTING_TRYING, source)
        if table is None:
            valid = np.zeros(len(rows), np.bool_)
            source = source.slice(0, 0)
            table = self._database.run(Statement.DOUBTING, source)
        return Decoded(table, rows[valid]), rows[~valid], source

    def _doubts(self, table: pa.Table, documents: pa.Table) -> Mask:
        """Which rows of the doubting query are not proved to be what their record in `documents` says."""
        doubts, texts = self._proof.unproved(table)
        if not texts:
            return doubts
        open_texts: Mask = np.logical_or.reduce(list(texts.values())) & ~doubts
        if open_texts.sum() > _FEW:
            # Identifiers made of digits are common; asking DuckDB for their type costs less than `strict`.
            source = documents if open_texts.all() else rows_of(documents, np.flatnonzero(open_texts))
            proved = self._database.strings(source, frozenset(texts))
            if proved is not None:
                open_texts[open_texts] = ~proved
        return doubts | open_texts

    def _judge(
        self, records: pa.Table, suspects: Rows, unreadable: Mapping[int, Reasons]
    ) -> tuple[list[Decoded], list[Malformed]]:
        """Read the suspects exactly: the good ones as a decoded part, the others with their reasons."""
        stream = self._plan.stream
        values = records.column("value").take(pa.array(suspects)).to_pylist()
        good: list[tuple[int, bytes, Reading]] = []
        malformed: list[Malformed] = []
        for row, value in zip(suspects.tolist(), values, strict=True):
            if row in unreadable:
                malformed.append(Malformed(row, unreadable[row]))
                continue
            reading = read_record(value, stream.schema.columns, stream.event_time)
            if reading.reasons:
                malformed.append(Malformed(row, reading.reasons))
            else:
                good.append((row, value, reading))
        if not good:
            return [], malformed
        rows = np.array([row for row, _, _ in good])
        documents = pa.table(
            {
                "doc": pa.array([reading.text for _, _, reading in good], pa.string()),
                "record_time": records.column("record_time").take(pa.array(rows)),
                "original": pa.array([value for _, value, _ in good], pa.binary()).cast(pa.string()),
            }
        )
        for statement in (Statement.TRUSTING, Statement.TRUSTING_TRYING):
            table = self._database.attempt(statement, documents)
            if table is not None:
                return [Decoded(table, rows)], malformed
        raise InternalError(f"stream '{stream.name}': the row query failed over records that were read")
