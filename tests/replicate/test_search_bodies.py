"""How rows are cut into requests of `_bulk`: large ones, of whole rows, with none left out."""

from __future__ import annotations

import json

from headrace.replicate.elasticsearch import ElasticsearchReplica
from headrace.replicate.elasticsearch.encoding import lines_of_rows
from headrace.testing.replica_writes import THINGS, chunk, thing

DEFAULT = ElasticsearchReplica(kind="elasticsearch", url="http://localhost:9200").body_bytes


def test_requests_of_a_long_catch_up_are_of_two_to_ten_megabytes() -> None:
    rows = chunk([thing(f"user {n}", n, "x" * (n % 2_000)) for n in range(20_000)]).rows
    lines = lines_of_rows(THINGS, rows)
    cuts = list(lines.bodies(DEFAULT))
    sizes = [len(lines.body(first, last)) for first, last in cuts]
    assert len(sizes) > 3
    assert all(2_000_000 <= size <= 10_000_000 for size in sizes[:-1])
    assert [first for first, _ in cuts] == [0, *(last for _, last in cuts[:-1])]
    assert cuts[-1][1] == len(rows) == 20_000


def test_a_row_that_is_larger_than_a_request_goes_alone_and_whole() -> None:
    rows = chunk([thing("ann", 1), thing("bob", 2, "x" * 50_000), thing("cyd", 3)]).rows
    lines = lines_of_rows(THINGS, rows)
    bodies = [bytes(lines.body(first, last)).splitlines() for first, last in lines.bodies(10_000)]
    notes = [[json.loads(row)["note"] for row in body[1::2]] for body in bodies]
    assert notes == [[""], ["x" * 50_000], [""]]
