"""The rules of a replica's writer, chunk by chunk; part of `headrace.testing.replicas`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from headrace.errors import RefusedError
from headrace.replicate.protocol import (
    Chunk,
    Cursor,
    NamedColumn,
    Position,
    ReplicaWriter,
    TableShape,
    Task,
    version_of,
    write_chunks,
)
from headrace.testing.replica_runs import Kept, sorted_rows

if TYPE_CHECKING:
    from headrace.testing.replicas import ReplicaTarget

__all__ = ["OTHERS", "THINGS", "WriterConformance"]

THINGS = TableShape(
    name='some "things"',
    columns=(
        NamedColumn("who", "VARCHAR"),
        NamedColumn("seen", "TIMESTAMP WITH TIME ZONE"),
        NamedColumn("n", "BIGINT"),
        NamedColumn("amount", "DECIMAL(12,2)"),
        NamedColumn("note", "VARCHAR"),
    ),
    key=("who", "seen"),
)
OTHERS = replace(THINGS, name="others")
_TYPES = {
    "VARCHAR": pa.string(),
    "TIMESTAMP WITH TIME ZONE": pa.timestamp("us", tz="UTC"),
    "BIGINT": pa.int64(),
    "DECIMAL(12,2)": pa.decimal128(12, 2),
}
_SEEN = datetime(2026, 3, 1, 12, tzinfo=UTC)
FIRST = Cursor(store_id="a-store", replica="copy", generation=1, position=Position())


def thing(who: str | None, n: int, note: str = "", *, epoch: int = 1, generation: int = 1) -> dict[str, Any]:
    """Return a row of `THINGS`."""
    amount = Decimal(n) / 4
    version = version_of(generation, epoch)
    return {"who": who, "seen": _SEEN, "n": n, "amount": amount, "note": note, "_version": version}


def gone(who: str | None, *, epoch: int) -> dict[str, Any]:
    """Return a key of `THINGS` that is removed."""
    return {"who": who, "seen": _SEEN, "_version": version_of(1, epoch)}


def arrow(rows: Sequence[dict[str, Any]], names: Sequence[str], shape: TableShape) -> pa.Table:
    """Return rows as the follower would give them."""
    types = {column.name: _TYPES[column.type] for column in shape.columns}
    schema = pa.schema([*((name, types[name]) for name in names), ("_version", pa.int64())])
    return pa.Table.from_pylist(list(rows), schema)


def chunk(
    rows: Sequence[dict[str, Any]] = (),
    removed: Sequence[dict[str, Any]] = (),
    *,
    epoch: int = 1,
    cursor: Cursor = FIRST,
    sweep_below: int = 0,
    shape: TableShape = THINGS,
) -> Chunk:
    """Return a chunk that moves the cursor to `epoch`."""
    return Chunk(
        table=shape,
        rows=arrow(rows, [column.name for column in shape.columns], shape),
        removed=arrow(removed, shape.key, shape),
        cursor=replace(cursor, position=Position.at(epoch)),
        sweep_below=sweep_below,
    )


@contextmanager
def opened(
    target: ReplicaTarget, shape: TableShape = THINGS, *more: TableShape, **options: Any
) -> Iterator[ReplicaWriter]:
    """Open a writer for a table, or several."""
    kept = Kept()
    task = Task(
        replica="copy",
        pipeline="tests",
        tables=(shape, *more),
        set_aside=kept.refusals.extend,
        store_id=FIRST.store_id,
    )
    writer = target.replica(**options).open(task)  # type: ignore[attr-defined]
    try:
        yield writer
    finally:
        writer.close()


class WriterConformance:
    """The rules of `ReplicaWriter`, as tests.

    `null_keys` says whether a key may be NULL in the target; a subclass sets it to False where none can be.
    """

    null_keys = True

    @property
    def nobody(self) -> str | None:
        """A value of a key: NULL where that can be."""
        return None if self.null_keys else "nobody"

    def notes(self, target: ReplicaTarget, table: str = THINGS.name) -> dict[str | None, str]:
        """Return the note of everybody in the target."""
        rows = target.rows(table)
        assert len({row["who"] for row in rows}) == len(rows), "a key is there twice"
        return {row["who"]: row["note"] for row in rows}

    def test_rows_and_cursor_are_there_after_a_write(self, target: ReplicaTarget) -> None:
        rows = [thing("ann", 1, 'it\'s "ok"\n\\N\tü'), thing(self.nobody, -2), thing("", 3)]
        with opened(target) as writer:
            assert writer.cursors() == {}
            writer.take(THINGS.name, None, FIRST)
            assert writer.cursors() == {THINGS.name: FIRST}
            writer.write(chunk(rows, epoch=1))
        assert sorted_rows(target.rows(THINGS.name)) == sorted_rows(rows)
        with opened(target) as writer:
            assert writer.cursors() == {THINGS.name: replace(FIRST, position=Position.at(1))}

    def test_writing_a_chunk_twice_leaves_what_once_leaves(self, target: ReplicaTarget) -> None:
        both = chunk([thing("ann", 1), thing(self.nobody, 2)], [gone("bob", epoch=1)], epoch=1)
        with opened(target) as writer:
            writer.take(THINGS.name, None, FIRST)
            writer.write(both)
            before = sorted_rows(target.rows(THINGS.name))
            writer.write(both)
            assert sorted_rows(target.rows(THINGS.name)) == before
            # And a part of the same span again, as another cut after a crash may bring it.
            writer.write(chunk([thing("ann", 1)], epoch=2))
        assert sorted_rows(target.rows(THINGS.name)) == before

    def test_rows_without_a_key_are_added_once_however_often_the_chunk_is_written(
        self, target: ReplicaTarget
    ) -> None:
        shape = replace(THINGS, name="log", key=())
        rows = chunk([thing("ann", 1), thing("ann", 1), thing(self.nobody, 2)], epoch=1, shape=shape)
        with opened(target, shape) as writer:
            writer.take(shape.name, None, FIRST)
            writer.write(rows)
            writer.write(rows)
            writer.write(chunk([thing("ann", 1, epoch=2)], epoch=2, shape=shape))
        assert [row["who"] for row in sorted_rows(target.rows("log"))].count("ann") == 3
        assert len(target.rows("log")) == 4

    def test_a_row_never_replaces_one_with_a_greater_version(self, target: ReplicaTarget) -> None:
        with opened(target) as writer:
            writer.take(THINGS.name, None, FIRST)
            writer.write(
                chunk([thing("ann", 1, "new", epoch=5), thing(self.nobody, 1, "new", epoch=5)], epoch=5)
            )
            older = [thing("ann", 2, "old", epoch=4), thing(self.nobody, 2, "old", epoch=4)]
            writer.write(chunk(older, [gone("ann", epoch=4), gone(self.nobody, epoch=4)], epoch=6))
            assert self.notes(target) == {"ann": "new", self.nobody: "new"}
            writer.write(chunk([thing("ann", 3, "newer", epoch=7)], epoch=7))
        assert self.notes(target) == {"ann": "newer", self.nobody: "new"}

    def test_removed_rows_go_and_may_come_again(self, target: ReplicaTarget) -> None:
        with opened(target) as writer:
            writer.take(THINGS.name, None, FIRST)
            writer.write(chunk([thing("ann", 1), thing("bob", 2), thing(self.nobody, 3)], epoch=1))
            writer.write(
                chunk([], [gone("ann", epoch=2), gone(self.nobody, epoch=2), gone("eve", epoch=2)], epoch=2)
            )
            assert self.notes(target) == {"bob": ""}
            again = [thing(self.nobody, 4, "again", epoch=3), thing("bob", 5, "again", epoch=3)]
            writer.write(chunk(again, [gone("bob", epoch=3)], epoch=3))
        assert self.notes(target) == {self.nobody: "again", "bob": "again"}

    def test_a_writer_of_an_older_generation_is_refused(self, target: ReplicaTarget) -> None:
        newer = replace(FIRST, generation=2)
        with opened(target) as old, opened(target) as new:
            old.take(THINGS.name, None, FIRST)
            old.write(chunk([thing("ann", 1, "old")], epoch=1))
            new.take(THINGS.name, replace(FIRST, position=Position.at(1)), newer)
            with pytest.raises(RefusedError, match="taken over"):
                old.write(chunk([thing("ann", 2, "zombie", epoch=9)], epoch=9))
            new.write(chunk([thing("ann", 3, "new", epoch=2, generation=2)], epoch=2, cursor=newer))
        assert self.notes(target) == {"ann": "new"}

    def test_of_two_that_take_a_table_at_once_one_is_refused(self, target: ReplicaTarget) -> None:
        with opened(target) as one, opened(target) as other:
            one.take(THINGS.name, None, FIRST)
            with pytest.raises(RefusedError, match="taken over"):
                other.take(THINGS.name, None, FIRST)
            one.take(THINGS.name, FIRST, replace(FIRST, generation=2))
            with pytest.raises(RefusedError, match="taken over"):
                other.take(THINGS.name, FIRST, replace(FIRST, generation=2))

    def test_a_sweep_takes_out_what_older_generations_wrote(self, target: ReplicaTarget) -> None:
        with opened(target) as writer:
            writer.take(THINGS.name, None, FIRST)
            writer.write(chunk([thing("ann", 1), thing("bob", 2), thing(self.nobody, 3)], epoch=9))
            second = replace(FIRST, generation=2, sweep_below=version_of(2, 0))
            writer.take(THINGS.name, replace(FIRST, position=Position.at(9)), second)
            writer.write(chunk([thing("bob", 4, "again", epoch=1, generation=2)], epoch=1, cursor=second))
            done = replace(second, sweep_below=0)
            writer.write(chunk(epoch=1, cursor=done, sweep_below=version_of(2, 0)))
        assert self.notes(target) == {"bob": "again"}

    def test_a_sweep_spares_what_was_there_before_the_target_was_adopted(self, target: ReplicaTarget) -> None:
        before = [thing("ann", 1), thing("bob", 2), thing(self.nobody, 3)]
        adopted = replace(FIRST, generation=2, kept_below=version_of(2, 0))
        with opened(target) as writer:
            writer.take(THINGS.name, None, FIRST)
            writer.write(chunk(before, epoch=9))
            writer.take(THINGS.name, replace(FIRST, position=Position.at(9)), adopted)
            rows = [thing("bob", 4, "ours", epoch=2, generation=2), thing("cyd", 5, epoch=2, generation=2)]
            writer.write(chunk(rows, epoch=2, cursor=adopted, sweep_below=version_of(2, 2)))
        assert self.notes(target) == {"ann": "", self.nobody: "", "bob": "ours", "cyd": ""}
        with opened(target) as writer:
            assert writer.cursors()[THINGS.name] == replace(adopted, position=Position.at(2))
            again = [thing("bob", 6, "again", epoch=3, generation=2)]
            writer.write(chunk(again, epoch=3, cursor=adopted, sweep_below=version_of(2, 3)))
        assert self.notes(target) == {"ann": "", self.nobody: "", "bob": "again"}

    def test_a_chunk_without_rows_moves_the_cursor(self, target: ReplicaTarget) -> None:
        with opened(target) as writer:
            writer.take(THINGS.name, None, FIRST)
            writer.write(chunk(epoch=7))
            assert writer.cursors()[THINGS.name].position == Position.at(7)

    def test_chunks_of_two_tables_are_there_each_with_its_cursor(self, target: ReplicaTarget) -> None:
        first = chunk([thing("ann", 1, "here")], epoch=1)
        with opened(target, THINGS, OTHERS) as writer:
            for shape in (THINGS, OTHERS):
                writer.take(shape.name, None, FIRST)
            there = [thing("ann", 2, "there", epoch=2), thing("bob", 2, "there", epoch=2)]
            write_chunks(writer, [first, chunk(there, epoch=2, shape=OTHERS)])
            assert self.notes(target) == {"ann": "here"}
            assert self.notes(target, OTHERS.name) == {"ann": "there", "bob": "there"}
            # One that was written before, and one that takes out and sweeps.
            rows, below = [thing("cyd", 3, "later", epoch=3)], version_of(1, 3)
            swept = chunk(rows, [gone("bob", epoch=3)], epoch=3, shape=OTHERS, sweep_below=below)
            write_chunks(writer, [first, swept])
        assert self.notes(target) == {"ann": "here"}
        assert self.notes(target, OTHERS.name) == {"cyd": "later"}
        with opened(target, THINGS, OTHERS) as writer:
            at = {table: cursor.position for table, cursor in writer.cursors().items()}
        assert at == {THINGS.name: Position.at(1), OTHERS.name: Position.at(3)}

    def test_a_writer_that_was_replaced_in_one_table_writes_that_one_no_more_in_whatever_company(
        self, target: ReplicaTarget
    ) -> None:
        newer = replace(FIRST, generation=2)
        with opened(target, THINGS, OTHERS) as old, opened(target, THINGS, OTHERS) as new:
            for shape in (THINGS, OTHERS):
                old.take(shape.name, None, FIRST)
            write_chunks(old, [chunk([thing("ann", 1, "old")], shape=shape) for shape in (THINGS, OTHERS)])
            new.take(OTHERS.name, replace(FIRST, position=Position.at(1)), newer)
            late = [thing("ann", 2, "late", epoch=9)]
            with pytest.raises(RefusedError, match="taken over"):
                write_chunks(old, [chunk(late, epoch=9, shape=shape) for shape in (THINGS, OTHERS)])
            rows = [thing("bob", 3, "new", epoch=2, generation=2)]
            new.write(chunk(rows, epoch=2, cursor=newer, shape=OTHERS))
            there = new.cursors()
        assert self.notes(target, OTHERS.name) == {"ann": "old", "bob": "new"}
        assert there[OTHERS.name] == replace(newer, position=Position.at(2))
        # The other table stands before its chunk or behind it, and never behind it without the row.
        assert there[THINGS.name].position in (Position.at(1), Position.at(9))
        assert there[THINGS.name].position == Position.at(1) or self.notes(target) == {"ann": "late"}

    def test_a_column_that_is_new_is_added(self, target: ReplicaTarget) -> None:
        with opened(target) as writer:
            writer.take(THINGS.name, None, FIRST)
            writer.write(chunk([thing("ann", 1)], epoch=1))
        wider = replace(THINGS, columns=(*THINGS.columns, NamedColumn("extra", "BIGINT")))
        with opened(target, wider) as writer:
            writer.write(chunk([{**thing("bob", 2), "extra": 5}], epoch=2, shape=wider))
        extras = {row["who"]: row.get("extra") for row in target.rows(THINGS.name)}
        assert extras == {"ann": None, "bob": 5}

    def test_a_column_of_another_type_is_refused_with_what_to_do(self, target: ReplicaTarget) -> None:
        with opened(target):
            pass
        target.differ(THINGS.name)
        with pytest.raises(RefusedError, match="'n'") as raised, opened(target):
            pass
        assert "replicas rebuild" in raised.value.fix
