"""Queries over relations whose rows, sizes and columns change between one question and the next."""

from collections.abc import Iterator

import duckdb
import pyarrow as pa
import pytest

from headrace.engine.local.queries import Queries


@pytest.fixture
def queries() -> Iterator[Queries]:
    connection = duckdb.connect()
    yield Queries(connection)
    connection.close()


def numbers(count: int) -> pa.Table:
    return pa.table({"n": pa.array(range(count), pa.int64())})


def words(*given: str) -> pa.Table:
    return pa.table({"word": pa.array(given, pa.string())})


def test_a_query_sees_the_batch_that_was_put_in_place_last(queries: Queries) -> None:
    asked = 'SELECT count(*) AS rows, sum(n) AS total FROM "_rows"'
    for count in (3, 0, 5, 4_000, 2, 5_000, 2_000):
        queries.batch(numbers(count))
        assert queries.table(asked).to_pylist() == [
            {"rows": count, "total": count * (count - 1) // 2 if count else None}
        ]


def test_streams_with_other_columns_take_turns(queries: Queries) -> None:
    for turn in range(3):
        queries.batch(numbers(turn + 1))
        assert queries.table('SELECT max(n) AS n FROM "_rows" AS a').to_pylist() == [{"n": turn}]
        queries.batch(words("a", str(turn)))
        found = queries.table('SELECT word FROM "_rows" AS b').to_pylist()
        assert [row["word"] for row in found] == ["a", str(turn)]


@pytest.mark.parametrize("rows", [2, 3_000])
def test_an_insert_takes_the_epoch_and_the_rows_in_place(queries: Queries, rows: int) -> None:
    queries.connection.execute("CREATE TABLE kept (n BIGINT, epoch BIGINT)")
    for epoch in (7, 8):
        queries.batch(numbers(rows))
        queries.put("_part it", numbers(rows))
        queries.write('INSERT INTO kept SELECT n, $1 FROM "_part it"', epoch)
    found = queries.once("SELECT epoch, count(*) AS n FROM kept GROUP BY epoch ORDER BY epoch").to_pylist()
    assert found == [{"epoch": 7, "n": rows}, {"epoch": 8, "n": rows}]


def test_one_query_over_columns_that_change_reads_the_rows_in_place_and_not_the_former_ones(
    queries: Queries,
) -> None:
    asked = 'SELECT count(*) AS rows FROM "_rows"'
    for rows in (numbers(5), words("a"), numbers(2), words("b", "c", "d")):
        queries.batch(rows)
        assert queries.table(asked).to_pylist() == [{"rows": rows.num_rows}]
