"""Outcomes that follow from time, derived columns and expectations; their order; the counts of rules."""

from __future__ import annotations

import json
import pickle
from datetime import timedelta
from decimal import Decimal

import pyarrow as pa
import pytest
from row_stages import NOON, PLACE, records, stream_plan

from headrace.declare import Expect, Function
from headrace.errors import InternalError
from headrace.log.protocol import RECORD_SCHEMA
from headrace.rows import DEAD_SCHEMA, RULE_SCHEMA, RowStage

SCHEMA = "id VARCHAR, at TIMESTAMP, count INT"


def record(at=NOON, **fields):
    return json.dumps({"id": "a", "at": at.isoformat(), **fields}).encode()


def run(plan, values, *, at=NOON, lane="main", threads=1):
    stage = RowStage(plan, threads=threads)
    try:
        return stage.run(records(values, at=at), lane=lane)
    finally:
        stage.close()


def outcomes(result):
    names = dict.fromkeys(result.timely.column("_offset").to_pylist(), "timely")
    names |= dict.fromkeys(result.late.column("_offset").to_pylist(), "late")
    names |= {letter["offset"]: letter["outcome"] for letter in result.dead.to_pylist()}
    return [names[offset] for offset in sorted(names)]


def rules(result):
    return {row["rule"]: (row["checked"], row["warned"], row["rejected"]) for row in result.rules.to_pylist()}


def test_the_edges_of_lateness_and_of_the_future_are_exact():
    second = timedelta(microseconds=1)
    times = [
        NOON - timedelta(minutes=5) - second,
        NOON - timedelta(minutes=5),
        NOON + timedelta(minutes=1),
        NOON + timedelta(minutes=1) + second,
    ]
    result = run(stream_plan(SCHEMA), [record(at) for at in times])
    assert outcomes(result) == ["late", "timely", "timely", "future"]
    (letter,) = result.dead.to_pylist()
    assert letter["event_time"] == times[3]
    assert letter["reasons"] == [
        {"rule": "future", "detail": "event time is 0:01:00.000001 ahead of record time"}
    ]


def test_a_redriven_record_is_never_late_and_never_in_the_future():
    times = [NOON - timedelta(days=400), NOON + timedelta(days=400)]
    assert outcomes(run(stream_plan(SCHEMA), [record(at) for at in times], lane="redrive")) == ["timely"] * 2


def test_a_stream_without_event_time_uses_record_time():
    result = run(stream_plan(SCHEMA, event_time=None, unique=("id",)), [record(NOON - timedelta(days=9))])
    assert outcomes(result) == ["timely"]
    assert result.timely.column("_event_time").to_pylist() == [NOON]


def test_a_record_without_an_event_time_is_malformed():
    (letter,) = run(stream_plan(SCHEMA), [b'{"id":"a"}', record()]).dead.to_pylist()
    assert letter["reasons"] == [{"rule": "event_time", "detail": "column at is missing or NULL"}]


def test_rejected_comes_before_future_and_late():
    plan = stream_plan(SCHEMA, expect=[("positive", Expect("count > 0"))])
    times = [NOON - timedelta(days=1), NOON, NOON + timedelta(days=1)]
    assert outcomes(run(plan, [record(at, count=0) for at in times])) == ["rejected"] * 3


def test_every_rule_that_fails_is_listed_and_null_is_not_true():
    plan = stream_plan(
        SCHEMA,
        derive=[("double", "count * 2", "INTEGER"), ("more", "double + 1", "INTEGER")],
        expect=[
            ("small", Expect("more < 5")),
            ("known", Expect("id IN ('a', 'b')")),
            ("even", Expect("count % 2 = 0", on_violation="warn")),
        ],
    )
    values = [record(count=1), record(count=9, id="z"), record(), record(count=2)]
    result = run(plan, values)
    assert outcomes(result) == ["timely", "rejected", "rejected", "rejected"]
    reasons = [[reason["rule"] for reason in letter["reasons"]] for letter in result.dead.to_pylist()]
    assert reasons == [["expect:small", "expect:known"], ["expect:small"], ["expect:small"]]
    assert result.timely.column("more").to_pylist() == [3]
    assert rules(result) == {
        "derive:double": (4, 0, 0),
        "derive:more": (4, 0, 0),
        "expect:small": (4, 0, 3),
        "expect:known": (4, 0, 1),
        "expect:even": (4, 3, 0),
    }


def test_rules_are_counted_by_minute_of_record_time_without_malformed_records():
    plan = stream_plan(SCHEMA, event_time=None, expect=[("positive", Expect("count > 0"))])
    times = [NOON, NOON + timedelta(seconds=59), NOON + timedelta(minutes=1), NOON]
    stage = RowStage(plan)
    result = stage.run(records([record(count=1), record(count=0), b" " + record(count=0), b"{"], at=times))
    stage.close()
    assert result.rules.schema == RULE_SCHEMA
    assert sorted((row["minute"], row["checked"], row["rejected"]) for row in result.rules.to_pylist()) == [
        (NOON, 2, 1),
        (NOON + timedelta(minutes=1), 1, 1),
    ]


def test_a_derived_column_that_raises_rejects_its_record_alone():
    plan = stream_plan(SCHEMA, derive=[("number", "CAST(id AS INTEGER)", "INTEGER")])
    result = run(plan, [record(id="1"), record(id="x"), b"{", record(id=None), b" " + record(id="y")])
    assert outcomes(result) == ["timely", "rejected", "malformed", "timely", "rejected"]
    assert [letter["reasons"][0]["rule"] for letter in result.dead.to_pylist()] == [
        "derive:number",
        "json",
        "derive:number",
    ]
    assert sorted(result.timely.select(["_offset", "number"]).to_pydict().items()) == [
        ("_offset", [3, 0]),
        ("number", [None, 1]),
    ]


def test_an_expectation_that_raises_is_not_true():
    plan = stream_plan(SCHEMA, expect=[("number", Expect("CAST(id AS INTEGER) > 0"))])
    assert outcomes(run(plan, [record(id="1"), record(id="x")])) == ["timely", "rejected"]


@pytest.mark.parametrize(
    "twice",
    [
        {"derive": [("square", "CAST(id AS INTEGER) * CAST(id AS INTEGER)", "INTEGER")]},
        {
            "derive": [
                ("one", "CAST(id AS INTEGER)", "INTEGER"),
                ("two", "CAST(id AS INTEGER) + 1", "INTEGER"),
            ]
        },
        {"expect": [("square", Expect("CAST(id AS INTEGER) * CAST(id AS INTEGER) > 0"))]},
        {
            "expect": [
                ("least", Expect("CAST(id AS INTEGER) > 0")),
                ("most", Expect("CAST(id AS INTEGER) < 9")),
            ]
        },
        {
            "expect": [
                ("in_time", Expect("10 // count > 0 AND count < 9")),
                ("part", Expect("10 // count < 99")),
            ]
        },
        {"expect": [("mine", Expect("mine(count) > 0 AND true")), ("more", Expect("mine(count) + 1 > 0"))]},
    ],
)
def test_what_raises_in_two_places_rejects_its_record_alone(twice):
    plan = stream_plan(SCHEMA, **twice, functions=(function(raising_at_nothing),))
    values = [record(id="1", count=1), record(id="x", count=0), b" " + record(id="3", count=3)]
    assert outcomes(run(plan, values)) == ["timely", "rejected", "timely"]


def raising_at_nothing(counts):
    if 0 in counts.to_pylist():
        raise ValueError("the value 0 of a customer")
    return plus_one(counts)


def function(call, arguments=("INTEGER",), returns="INTEGER"):
    return Function("mine", arguments, returns, call, PLACE)


def plus_one(counts):
    return pa.array([None if count is None else count + 1 for count in counts.to_pylist()], pa.int32())


def raising(counts):
    if 7 in counts.to_pylist():
        raise ValueError("the value 7 of a customer")
    return plus_one(counts)


def too_short(counts):
    return plus_one(counts)[1:] if 7 in counts.to_pylist() else plus_one(counts)


def of_another_type(counts):
    return pa.array(["x"] * len(counts)) if 7 in counts.to_pylist() else plus_one(counts)


@pytest.mark.parametrize("call", [raising, too_short, of_another_type])
def test_a_user_function_that_fails_rejects_the_records_for_which_it_does(call):
    plan = stream_plan(SCHEMA, derive=[("next", "mine(count)", "INTEGER")], functions=(function(call),))
    result = run(plan, [record(count=count) for count in (1, 7, 3)] + [record()])
    assert outcomes(result) == ["timely", "rejected", "timely", "timely"]
    assert result.timely.column("next").to_pylist() == [2, 4, None]
    (letter,) = result.dead.to_pylist()
    assert letter["reasons"] == [{"rule": "derive:next", "detail": "the expression failed for this record"}]


def test_a_user_function_may_be_used_in_an_expectation():
    plan = stream_plan(SCHEMA, expect=[("next", Expect("mine(count) < 5"))], functions=(function(raising),))
    assert outcomes(run(plan, [record(count=count) for count in (1, 7, 9)])) == [
        "timely",
        "rejected",
        "rejected",
    ]


def test_a_plan_that_cannot_run_says_so():
    with pytest.raises(InternalError, match="the row query does not run"):
        run(stream_plan(SCHEMA, derive=[("x", "nowhere + 1", "INTEGER")]), [record()])


def test_copies_share_a_key_and_conflicting_ones_differ_in_content():
    plan = stream_plan(SCHEMA, unique=("id", "count"))
    later = record(NOON + timedelta(seconds=1), count=1)
    values = [record(count=1), b" " + record(count=1), later, record(), record(count=1)]
    result = run(plan, values)
    keys = dict(zip(result.timely.column("_offset").to_pylist(), result.timely.to_pylist(), strict=True))
    assert keys[0]["_key_hash"] == keys[1]["_key_hash"] == keys[4]["_key_hash"]
    assert keys[0]["_key_hash"] != keys[2]["_key_hash"]
    assert keys[3]["_key_hash"] is None
    assert keys[0]["_content_hash"] == keys[4]["_content_hash"] != keys[1]["_content_hash"]


def test_names_with_dots_and_spaces_work():
    plan = stream_plan('"a.b" INT NOT NULL, "c d" VARCHAR, "select" STRUCT("x.y" INT)', event_time=None)
    result = run(plan, [b'{"a.b":1,"c d":"x","select":{"x.y":2}}', b'{"a":{"b":1}}', b' {"a.b":1,"c d":"5"}'])
    assert outcomes(result) == ["timely", "malformed", "timely"]
    assert result.timely.select(["a.b", "c d", "select"]).to_pylist() == [
        {"a.b": 1, "c d": "x", "select": {"x.y": 2}},
        {"a.b": 1, "c d": "5", "select": None},
    ]


def test_decimals_are_exact_and_rounded_half_up():
    plan = stream_plan("d DECIMAL(38,10), m DECIMAL(5,2)", event_time=None)
    cases = [
        (b"0.12345678905", "0.1234567891"),
        (b"1234567890123456789012345678.0123456789", None),
        (b"-2.5e-10", "-3E-10"),
    ]
    result = run(plan, [b'{"d":' + text + b',"m":1.005}' for text, _ in cases])
    values = result.timely.sort_by("_offset").column("d").to_pylist()
    assert values == [Decimal(wanted or text.decode()) for text, wanted in cases]
    assert {str(value) for value in result.timely.column("m").to_pylist()} == {"1.01"}


def test_no_records_give_empty_tables_of_the_right_schema():
    plan = stream_plan(SCHEMA, unique=("id",), expect=[("x", Expect("count > 0"))])
    stage = RowStage(plan)
    full = stage.run(records([record(count=1)]))
    empty = stage.run(records([]))
    nothing = stage.run(RECORD_SCHEMA.empty_table())
    poison = stage.run(records([b"{", None]))
    stage.close()
    for result in (empty, nothing, poison):
        assert result.timely.schema == result.late.schema == full.timely.schema
        assert result.dead.schema == DEAD_SCHEMA
        assert result.rules.schema == RULE_SCHEMA
        assert result.timely.num_rows == 0
    assert (empty.dead.num_rows, poison.dead.num_rows, poison.rules.num_rows) == (0, 2, 0)


def test_slices_and_chunks_and_threads_change_nothing():
    plan = stream_plan(SCHEMA, unique=("id",))
    values = [record(count=at) if at % 100 else b'{"id":5}' for at in range(40_000)]
    whole = records(values)
    one = run(plan, values)
    stage = RowStage(plan, threads=2)
    two = stage.run(whole)
    parts = stage.run(pa.concat_tables([whole.slice(0, 11), whole.slice(11, 20_000), whole.slice(20_011)]))
    middle = stage.run(whole.slice(100, 50))
    stage.close()
    for other in (two, parts):
        assert other.timely.equals(one.timely)
        assert other.dead.equals(one.dead)
    assert middle.timely.num_rows + middle.dead.num_rows == 50


def test_a_stage_can_be_pickled_before_and_after_it_ran():
    stage = RowStage(stream_plan(SCHEMA))
    for _ in range(2):
        copy = pickle.loads(pickle.dumps(stage))
        assert outcomes(copy.run(records([record()]))) == ["timely"]
        copy.close()
        stage.run(records([record()]))
    stage.close()


def test_a_column_of_strings_made_of_digits_is_told_from_numbers():
    plan = stream_plan("id VARCHAR, parts STRUCT(n VARCHAR)[], m MAP(VARCHAR, VARCHAR)", event_time=None)
    strings = [b'{"id":"%d","parts":[{"n":"7"},null,{}],"m":{"x":"1"}}' % at for at in range(300)]
    numbers = [
        b'{"id":%d}',
        b'{"id":"%d","parts":[{"n":7}]}',
        b'{"id":"%d","m":{"x":1}}',
        b'{"id":"%d","parts":[7]}',
    ]
    result = run(plan, strings + [text % at for text in numbers for at in range(60)])
    assert sorted(result.timely.column("_offset").to_pylist()) == list(range(300))
    assert result.timely.sort_by("_offset").column("id").to_pylist() == [str(at) for at in range(300)]
    assert outcomes(result)[300:] == ["malformed"] * 240


def test_of_a_name_that_is_repeated_the_first_value_counts():
    plan = stream_plan("id VARCHAR, n INT, part STRUCT(n INT)", event_time=None)
    texts = [
        b'{"id":"a","n":1,"id":"b","n":2}',
        b'{"n":1,"n":"x","id":"a"}',
        b'{"id":"a","n":1,"part":{"n":1,"n":2}}',
        b'{"n":"x","n":1}',
    ]
    result = run(plan, texts + [b" " + text for text in texts])
    rows = result.timely.sort_by("_offset").select(["id", "n"]).to_pylist()
    assert rows == [{"id": "a", "n": 1}] * 6
    assert result.timely.sort_by("_offset").column("part").to_pylist()[2] == {"n": 1}
    assert outcomes(result) == ["timely", "timely", "timely", "malformed"] * 2
