"""What an API says reaches the log as it came: bytes, and every digit of a number."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from polled_api import Reply, api, page, poller, values

from headrace.log import open_embedded_log
from headrace.log.protocol import Log
from headrace.produce.polled_json import read_items


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    opened = open_embedded_log(tmp_path / "log.db", "users")
    yield opened
    opened.close()


_DIGITS = "9" * 5_000
_NUMBERS = (
    '{"id": 12345678901234567890, "price": 1234567890123456.789,\t"zero": -0.0, "rate":1.10}',
    '{"id": 2, "far": 1e400, "name": "K\u00f6ln \\ud800", "list": [ 0.30000000000000000004 ]}',
    f'{{"id": 3, "many": {_DIGITS}}}',
    '{"id": 3, "id": 4}',
    "[1.10]",
    "1.10",
)


def numbers(path: str, request: int) -> Reply:
    """An answer whose numbers no double holds; what `results` held before is overwritten, as JSON has it."""
    text = f'{{"results": [0], "info": {{"n": [1, {{}}]}}, "results": [{" , ".join(_NUMBERS)}] }}'
    return 200, {}, text.encode()


def test_an_item_reaches_the_log_as_it_came(log: Log) -> None:
    with api(numbers) as server:
        report = poller(server, log, key="id").run(pages=1)
    assert values(log) == [each.encode() for each in _NUMBERS]
    assert (report.records, report.malformed) == (len(_NUMBERS), 0)


def test_what_flatten_makes_has_the_digits_that_came(log: Log) -> None:
    def flatten(item: Any, now: datetime) -> dict[str, Any]:
        if item["id"] == 4:
            return {"id": 4, "list": (item, Decimal("1.5")), 5: None, None: True}
        halved = item.get("rate", 1.5) / 2
        return {**item, "halved": halved}

    with api(numbers) as server:
        report = poller(server, log, flatten=flatten, key="rate").run(pages=1)
    first, second, third, fourth, *aside = values(log)
    assert first == (
        b'{"id": 12345678901234567890, "price": 1234567890123456.789, "zero": -0.0, "rate": 1.10, '
        b'"halved": 0.55}'
    )
    assert second == (
        b'{"id": 2, "far": 1e400, "name": "K\\u00f6ln \\ud800", "list": [0.30000000000000000004], '
        b'"halved": 0.75}'
    )
    assert third == f'{{"id": 3, "many": {_DIGITS}, "halved": 0.75}}'.encode()
    assert fourth == b'{"id": 4, "list": [{"id": 4}, "1.5"], "5": null, "null": true}'
    assert aside == [b"[1.10]", b"1.10"]
    assert (report.records, report.malformed) == (4, 2)


def test_an_integer_that_python_cannot_write_sets_its_item_aside_and_nothing_else(log: Log) -> None:
    def flatten(item: Any, now: datetime) -> dict[str, Any]:
        return {"id": item["id"], "power": 10 ** (5_000 if item["id"] == "1-1" else 2)}

    with api(page) as server:
        report = poller(server, log, flatten=flatten).run(pages=1)
    assert values(log) == [b'{"id": "1-0", "power": 100}', b'{"id": "1-1"}', b'{"id": "1-2", "power": 100}']
    assert (report.records, report.malformed) == (2, 1)


def test_a_key_has_the_digits_that_came(log: Log) -> None:
    with api(lambda path, request: (200, {}, b'{"results": [{"id": 1.10}, {"id": %d}]}' % 10**30)) as server:
        poller(server, log, key="id").run(pages=1)
    read = log.read({}, rows_max=10, bytes_max=1 << 20, wait=timedelta())
    assert read.records.sort_by("offset").column("key").to_pylist() == [b"1.10", b"1" + b"0" * 30]


@pytest.mark.parametrize(
    ("body", "path", "found"),
    [
        (b'\xef\xbb\xbf{"a": {"b": [1, 2]}}', "a.b", [b"1", b"2"]),
        ('["\u00e4"]'.encode("utf-16"), "", ['"\u00e4"'.encode()]),
        (b' { "a" : [ ] } ', "a", []),
        (b'{"a": 1}', "a", None),
        (b'{"a": 1}', "a.b", None),
        (b'{"b": []}', "a", None),
        (b"[[1]]", "a", None),
        (b'{"a": [1]} x', "a", None),
        (b'{"a": [1', "a", None),
        (b'{"a": [1]]', "a", None),
    ],
)
def test_items_are_found_where_they_are_said_to_be(body: bytes, path: str, found: list[bytes] | None) -> None:
    items = read_items(body, path)
    assert (None if items is None else [each.text for each in items]) == found
