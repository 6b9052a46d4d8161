"""Instants are the same whoever reads them: NumPy, DuckDB's cast, or the exact reading of one record."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from itertools import product

import pytest
from row_stages import records, stream_plan, told

from headrace.declare import Expect
from headrace.rows import RowStage
from headrace.rows.strict import read_record

SCHEMA = "at TIMESTAMP, other TIMESTAMP, id INT"
YEARS = ("0000", "0001", "1582", "1900", "1969", "1970", "2000", "2024", "2026", "9999")
DAYS = ("01-01", "02-28", "02-29", "02-30", "04-31", "12-31", "00-10", "13-01", "06-00", "06-32")
CLOCKS = (
    "",
    "T00:00",
    " 12:30:00",
    "T23:59:59.999999",
    "T23:59:60Z",
    "T24:00:00Z",
    "T12:60:00",
    "T12:30:00.5",
)
ZONES = ("", "Z", "z", "+00:00", "-00:00", "+0130", "-15:59", "+16:00", "-15")
SPELLED = [
    f"{year}-{day}{clock}{zone}"
    for year, day, clock, zone in product(YEARS, DAYS, CLOCKS, ZONES)
    if clock or not zone
]
DIGITS = [f"2026-02-03T04:05:06.{'123456789'[:count]}{zone}" for count in range(1, 10) for zone in ("Z", "")]
STRANGE = ["2026-02-03T04:05:0éZ", "2026-02-03T04:05:0/Z", "2026-02-03T04:05:0:Z", "2026_02-03T04:05:06Z", ""]


def document(text):
    return json.dumps({"at": text, "other": None, "id": 1}, ensure_ascii=False).encode()


def run(plan, values):
    stage = RowStage(plan)
    try:
        return stage.run(records(values))
    finally:
        stage.close()


@pytest.fixture(scope="module")
def plans():
    free = stream_plan(SCHEMA, event_time=None)
    needed = stream_plan(
        SCHEMA,
        event_time=None,
        expect=[("used", Expect('"at" IS NULL OR "at" IS NOT NULL', on_violation="warn"))],
    )
    return free, needed


def test_every_spelling_of_an_instant_reads_the_same_in_the_query_and_beside_it(plans):
    texts = SPELLED + DIGITS + STRANGE
    free, needed = (run(plan, [document(text) for text in texts]) for plan in plans)
    assert told(free) == told(needed)
    assert 500 < free.timely.num_rows < len(texts) - 500


def test_an_instant_is_what_the_exact_reading_of_its_record_says(plans):
    texts = SPELLED + DIGITS + STRANGE
    plan = plans[0]
    result = run(plan, [document(text) for text in texts])
    instants = dict(
        zip(result.timely.column("_offset").to_pylist(), result.timely.column("at").to_pylist(), strict=True)
    )
    dead = set(result.dead.column("offset").to_pylist())
    for offset, text in enumerate(texts):
        reading = read_record(document(text), plan.stream.schema.columns, None)
        assert bool(reading.reasons) == (offset in dead), text
        if not reading.reasons:
            assert instants[offset] == datetime.fromisoformat(json.loads(reading.text)["at"]), text


def test_instants_of_one_spelling_are_read_together(plans):
    start = datetime(2023, 12, 30, 22, tzinfo=UTC)
    moments = [start + timedelta(milliseconds=7_654_321 * at) for at in range(3_000)]
    for spelled in (
        [moment.isoformat(timespec="milliseconds").replace("+00:00", "Z") for moment in moments],
        [moment.isoformat(timespec="seconds") for moment in moments],
        [moment.isoformat() if at % 3 else None for at, moment in enumerate(moments)],
    ):
        result = run(plans[0], [document(text) for text in spelled])
        expected = [None if text is None else datetime.fromisoformat(text) for text in spelled]
        assert result.timely.column("at").to_pylist() == expected
        assert not result.dead.num_rows
