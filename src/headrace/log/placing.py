"""What every log does with records before it takes them: their columns, and the partition of each."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headrace.errors import RefusedError
from headrace.log.partitioner import partitions_of
from headrace.log.protocol import APPEND_SCHEMA

__all__ = ["Placing"]


class Placing:
    """Places the records of one log, which `place` names in errors; remembers whose turn it is."""

    def __init__(self, place: str) -> None:
        self._place = place
        self._turn: int | None = None

    def append_table(self, records: pa.Table) -> pa.Table:
        """Return `records` with the columns of APPEND_SCHEMA. Raises RefusedError for others."""
        if records.schema == APPEND_SCHEMA:
            return records
        unknown = sorted(set(records.column_names) - set(APPEND_SCHEMA.names))
        if unknown:
            raise RefusedError(
                f"{self._place}: records with a column '{unknown[0]}'",
                fix=f"a log takes the columns {', '.join(APPEND_SCHEMA.names)}",
            )
        try:
            columns = [
                records.column(field.name).cast(field.type)
                if field.name in records.column_names
                else pa.chunked_array([pa.nulls(records.num_rows, field.type)])
                for field in APPEND_SCHEMA
            ]
        except pa.ArrowInvalid as error:
            raise RefusedError(
                f"{self._place}: records whose columns have other types: {error}",
                fix=f"give a table with the schema {', '.join(f'{f.name} {f.type}' for f in APPEND_SCHEMA)}",
            ) from error
        return pa.Table.from_arrays(columns, schema=APPEND_SCHEMA)

    def targets(
        self, given: pa.ChunkedArray, keys: pa.ChunkedArray, partitions: int
    ) -> npt.NDArray[np.int64]:
        """Return the partition of each record: the given one, else by its key, else by turns."""
        target: npt.NDArray[np.int64] = pc.fill_null(given, -1).to_numpy().astype(np.int64)
        placed = pc.is_valid(given).to_numpy()
        wrong = placed & ((target < 0) | (target >= partitions))
        if wrong.any():
            raise RefusedError(
                f"{self._place}: a record for partition {target[wrong][0]}; there are {partitions}",
                fix="open the log with more partitions, or leave the partition out",
            )
        by_key = ~placed & pc.is_valid(keys).to_numpy()
        if by_key.any():
            chosen = keys.filter(pa.array(by_key)).combine_chunks()
            if isinstance(chosen, pa.ChunkedArray):
                chosen = pa.concat_arrays(chosen.chunks)
            target[by_key] = partitions_of(chosen, partitions)
        rest = ~placed & ~by_key
        if rest.any():
            target[rest] = self.next_turn(partitions)
        return target

    def next_turn(self, partitions: int) -> int:
        """Return the partition of the next records without a key."""
        # Records without a key stay together, one partition an append: whole batches are cheaper to handle.
        self._turn = 0 if self._turn is None else self._turn + 1
        return self._turn % partitions
