"""The page's API, asked over HTTP while a commerce pipeline runs: numbers, queries, redrive, events."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from page_support import DEADLINE_S, RunningPage, eventually, running_page

from headrace.errors import RefusedError
from headrace.operate import open_log, redrive_parts
from headrace.web.page.describe import description
from headrace.web.page.values import plain
from headrace.web.serving import bound_socket

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningPage]:
    with running_page(tmp_path_factory.mktemp("page") / "commerce") as made:
        yield made


def query(page: RunningPage, sql: str, **more: Any) -> tuple[int, Any]:
    status, answer, _ = page.ask("POST", "/api/query", {"sql": sql, **more})
    return status, answer


def test_the_ledger_of_the_page_is_the_ledger(page: RunningPage) -> None:
    _, told, _ = page.ask("GET", "/api/ledger")
    stream = told["streams"]["events"]
    assert told["balanced"]
    assert stream["read"] == sum(stream["outcomes"].values()) > 0
    kept = page.runtime.answers.ledger()
    assert kept["epoch"] > told["epoch"] or kept["streams"]["events"] == stream


def test_every_page_of_the_api_answers_while_the_pipeline_runs(page: RunningPage) -> None:
    paths = re.findall(r'"(/api/[^"{]*)": \{\n\s+"get"', description())
    assert len(paths) >= 10
    for path in set(paths) - {"/api/live", "/api/history"}:
        assert page.ask("GET", path)[0] == 200, path
    assert page.ask("GET", "/api/history?names=headrace_up")[0] == 200
    _, overview, _ = page.ask("GET", "/api/overview")
    for table in overview["tables"]:
        status, rows, _ = page.ask("GET", f"/api/tables/{table['name']}/rows?limit=3")
        assert status == 200
        assert [each["name"] for each in rows["columns"]] == [each["name"] for each in table["columns"]]
    for number in range(overview["panels"]):
        assert page.ask("GET", f"/api/panels/{number}/rows")[0] == 200


def test_prometheus_reads_the_metrics_of_a_run_at_the_pages_port(page: RunningPage) -> None:
    status, text, headers = page.ask("GET", "/metrics")
    assert (status, headers["content-type"].partition(";")[0]) == (200, "text/plain")
    assert "headrace_up 1.0" in text
    assert 'headrace_records_read_total{stream="events"}' in text


def test_a_dead_letter_is_corrected_previewed_and_given_back(page: RunningPage) -> None:
    mark = "give me back"
    page.send(
        json.dumps(
            {"event_id": "x1", "event_type": mark, "user_id": "u", "device": "mobile", "timestamp": "never"}
        ).encode()
    )

    def letters() -> list[Any]:
        found = page.ask("GET", "/api/dead-letters?outcome=malformed&limit=500")[1]["letters"]
        return [each for each in found if mark in (each["value"] or "")]

    eventually(lambda: len(letters()) == 1)
    [letter] = letters()
    assert (letter["text"], letter["accepted"]) == (True, False)
    when = page.runtime.logs["events"].now().isoformat()
    corrected = json.loads(letter["value"]) | {"event_type": "search", "timestamp": when}
    asked = {"addresses": [letter["address"]], "value": json.dumps(corrected)}
    status, preview, _ = page.ask("POST", "/api/dead-letters/preview", asked)
    assert (status, preview["records"], preview["samples"][0]["changed"]) == (200, 1, True)
    status, done, _ = page.ask("POST", "/api/dead-letters/redrive", asked)
    assert (status, done) == (200, {"records": 1})
    told = page.ask("GET", "/api/journal?contains=given%20back")[1]["lines"]
    assert [(line["event"], line["facts"]["records"], line["facts"]["by"]) for line in told] == [
        ("records given back", 1, "page")
    ]
    counted = "SELECT count(*) AS n FROM events_clean WHERE event_id = 'x1'"
    eventually(lambda: query(page, counted)[1]["rows"] == [[1]])
    assert page.ask("GET", "/api/ledger")[1]["balanced"]
    assert [each["accepted"] for each in letters()] == [True]


def broken(page: RunningPage, name: str, **facts: Any) -> bytes:
    """An event that is right but for `facts`."""
    when = page.runtime.logs["events"].now().isoformat()
    known = {"event_id": name, "event_type": "search", "user_id": "u", "device": "mobile", "timestamp": when}
    return json.dumps(known | facts).encode()


def test_a_group_holds_shows_and_gives_back_the_records_that_broke_its_rule_first(page: RunningPage) -> None:
    both = {"device": "toaster", "rating": 9}

    def groups() -> dict[str, int]:
        found = page.ask("GET", "/api/dead-letters/groups")[1]
        return {each["rule"]: each["records"] for each in found if each["outcome"] == "rejected"}

    assert not {"expect:known_device", "expect:rating_in_range"} & set(groups())
    page.send(*(broken(page, f"both-{n}", **both) for n in range(3)), broken(page, "one", rating=9))
    eventually(lambda: groups().get("expect:known_device") == 3)
    assert groups()["expect:rating_in_range"] == 1
    for rule, records in (("expect:known_device", 3), ("expect:rating_in_range", 1)):
        chosen = {"stream": "events", "outcome": "rejected", "rule": rule}
        listed = page.ask("GET", "/api/dead-letters?" + urlencode(chosen))[1]["letters"]
        assert [each["reasons"][0]["rule"] for each in listed] == [rule] * records
        assert page.ask("POST", "/api/dead-letters/preview", chosen)[1]["records"] == records
    given = chosen | {"assignments": ["rating=5"]}
    assert page.ask("POST", "/api/dead-letters/redrive", given)[1] == {"records": 1}
    counted = "SELECT event_id FROM events_clean WHERE event_id = 'one' OR event_id LIKE 'both-%'"
    eventually(lambda: query(page, counted)[1]["rows"] == [["one"]])
    found = {each["rule"]: each for each in page.ask("GET", "/api/dead-letters/groups")[1]}
    told = [found[rule] for rule in ("expect:known_device", "expect:rating_in_range")]
    assert [(each["records"], each["accepted"]) for each in told] == [(3, 0), (1, 1)]


def test_a_panel_is_told_with_the_words_that_its_query_begins_with(page: RunningPage) -> None:
    panels = {each["title"]: each for each in page.ask("GET", "/api/panels")[1]}
    rate = panels["Success rate"]
    assert rate["about"].startswith("accepted / read, over the last hour")
    assert rate["query"].startswith("-- accepted / read"), "the query is shown as it was written"
    assert panels["Events per second"]["about"] == ""


def test_every_value_that_a_query_may_give_is_shown(page: RunningPage) -> None:
    asked = (
        "SELECT 'infinity'::TIMESTAMPTZ AS a, '-infinity'::DATE AS b, DATE '12345-01-02' AS c, "
        "[INTERVAL '1 day 2 hours'] AS d, TIMESTAMP_NS '2026-01-01 00:00:00.000000001' AS e, "
        "TIME '24:00:00' AS f, '12:34:56+05:30'::TIMETZ AS g, '0101'::BIT AS h, {'a': [1]}::VARIANT AS i, "
        "340282366920938463463374607431768211455::UHUGEINT AS j"
    )
    status, found, _ = page.ask("POST", "/api/query", {"sql": asked})
    assert status == 200
    assert found["rows"] == [["infinity", "-infinity", "12345-01-02", ["1 day 02:00:00"],
                              "2026-01-01T00:00:00.000000001", "24:00:00", "12:34:56+05:30", "0101",
                              "{'a': [1]}", "340282366920938463463374607431768211455"]]  # fmt: skip
    assert [each["kind"] for each in found["columns"][-2:]] == ["text", "number"]


@pytest.mark.parametrize(("bound", "value"), [("LETTERS_AT_ONCE", 4), ("BYTES_AT_ONCE", 500)])
def test_a_large_group_is_given_back_in_parts_and_each_record_once_though_it_fails_again(
    page: RunningPage, monkeypatch: pytest.MonkeyPatch, bound: str, value: int
) -> None:
    monkeypatch.setattr(redrive_parts, bound, value)
    held: list[int] = []
    asked = page.runtime.store.dead_letters

    def counted(**wanted: Any) -> Any:
        found = asked(**wanted)
        held.append(found.num_rows if "value" in found.column_names else 0)
        return found

    monkeypatch.setattr(page.runtime.store, "dead_letters", counted)
    chosen = {"stream": "events", "outcome": "rejected", "rule": "expect:known_type"}
    page.send(*(broken(page, f"{bound}-{n}", event_type="dance") for n in range(10)))
    eventually(lambda: page.ask("POST", "/api/dead-letters/preview", chosen)[1]["records"] == 10)
    status, said, _ = page.ask("POST", "/api/dead-letters/redrive", chosen)
    assert (status, said) == (200, {"records": 10})
    lane = "SELECT count(*) AS n FROM dead_letters WHERE lane = 'redrive' AND contains(decode(value), "
    eventually(lambda: query(page, f"{lane}'{bound}')")[1]["rows"] == [[10]])
    given = chosen | {"assignments": ["event_type=search"]}
    assert page.ask("POST", "/api/dead-letters/redrive", given)[1] == {"records": 10}
    distinct = "count(*) AS n, count(DISTINCT event_id) AS m"
    taken = f"SELECT {distinct} FROM events_clean WHERE event_id LIKE '{bound}-%'"
    eventually(lambda: query(page, taken)[1]["rows"] == [[10, 10]])
    assert 0 < max(held) <= 4
    assert page.ask("POST", "/api/dead-letters/preview", chosen)[1]["records"] == 0


def test_no_record_is_given_back_where_one_of_them_cannot_be_changed(
    page: RunningPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redrive_parts, "LETTERS_AT_ONCE", 1)

    def given_back() -> int:
        log = open_log(page.project, "events")
        try:
            return sum(each.end for each in log.lane("redrive").partitions())
        finally:
            log.close()

    before, read = given_back(), page.read()
    page.send(broken(page, "odd", user_id=5), b"{broken", broken(page, "odder", user_id=5))
    eventually(lambda: page.read() >= read + 3)
    asked = {"stream": "events", "outcome": "malformed", "assignments": ["user_id=u5"]}
    status, said, _ = page.ask("POST", "/api/dead-letters/redrive", asked)
    assert (status, "not a JSON object" in said["error"]) == (422, True)
    assert given_back() == before


def test_late_rows_are_grouped_by_how_much_too_late_they_came(page: RunningPage) -> None:
    def groups() -> list[tuple[float, float | None, int]]:
        found = page.ask("GET", "/api/late/groups")[1]
        return [(each["over_seconds"], each["below_seconds"], each["records"]) for each in found]

    before = {over: records for over, _, records in groups()}
    now, allowed = page.runtime.logs["events"].now(), page.runtime.plan.streams["events"].stream
    for seconds in (30, 300, 300, 1_800, 90_000):
        at = (now - allowed.allowed_lateness - timedelta(seconds=seconds)).isoformat()
        page.send(broken(page, f"late-by-{seconds}", timestamp=at))
    more = {0: 1, 60: 2, 600: 1, 3_600: 1}
    after = {over: before.get(over, 0) + more[over] for over in more}
    eventually(lambda: {over: records for over, _, records in groups()} == after)
    assert [(over, below) for over, below, _ in groups()] == [(0, 60), (60, 600), (600, 3_600), (3_600, None)]
    ledger = page.runtime.store.ledger().outcomes("events")
    assert sum(records for _, _, records in groups()) == ledger["late"]
    rows = page.ask("GET", "/api/late/events/rows?over_seconds=60&below_seconds=600&limit=500")[1]
    names = [each["name"] for each in rows["columns"]]
    assert (names[0], "event_id" in names, len(rows["rows"])) == ("_too_late_seconds", True, after[60])
    assert all(60 <= row[0] < 600 for row in rows["rows"])
    assert [row[names.index("event_id")] for row in rows["rows"]][:2] == ["late-by-300"] * 2
    assert page.ask("GET", "/api/late/nothing/rows")[0] == 422


def test_what_cannot_be_given_back_is_refused_in_words(page: RunningPage) -> None:
    for asked, words in (
        ({}, "nothing was chosen"),
        ({"addresses": ["nonsense"]}, "address"),
        ({"addresses": ["events:0:99999999"]}, "no dead letter"),
        ({"outcome": "malformed", "value": "{}"}, "one address"),
        ({"outcome": "malformed", "value": "{}", "assignments": ["a=1"]}, "at once"),
    ):
        status, answer, _ = page.ask("POST", "/api/dead-letters/redrive", asked)
        assert status == 422, asked
        assert words in answer["error"], asked


def events(page: RunningPage, last: str = "") -> tuple[http.client.HTTPConnection, Iterator[dict[str, Any]]]:
    connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=DEADLINE_S)
    connection.request("GET", "/api/live", headers={"Last-Event-ID": last} if last else {})
    answer = connection.getresponse()
    assert answer.headers["content-type"].startswith("text/event-stream")

    def each() -> Iterator[dict[str, Any]]:
        event: dict[str, Any] = {}
        while line := answer.readline().decode():
            name, _, value = line.rstrip("\n").partition(": ")
            if name in ("id", "event"):
                event[name] = value
            elif name == "data":
                event["data"] = json.loads(value)
            elif not name and event:
                yield event
                event = {}

    return connection, each()


def test_a_path_that_no_file_can_have_is_a_place_of_the_page(page: RunningPage) -> None:
    for path in ("/" + "x" * 300, "/a%00b"):
        status, text, _ = page.ask("GET", path)
        assert (status, type(text)) == (200, str)


def test_records_of_the_log_are_chosen_by_a_condition_in_sql(page: RunningPage) -> None:
    def peeked(where: str) -> tuple[int, Any]:
        status, answer, _ = page.ask("GET", f"/api/log/events/records?last=500&where={quote(where)}")
        return status, answer

    everything = peeked("")[1]
    parsed = {each["address"]: json.loads(each["value"]) for each in everything if each["form"] == "json"}
    mobile = [at for at, facts in parsed.items() if facts.get("device") == "mobile"]
    assert 0 < len(mobile) < len(everything)
    status, found = peeked("device = 'mobile' -- and nothing else")
    assert (status, [each["address"] for each in found]) == (200, mobile)
    one = everything[7]
    where = f'partition = {one["partition"]} AND "offset" = {one["offset"]} AND record_time <= now()'
    assert peeked(where)[1] == [one]
    assert [each["address"] for each in peeked("value->>'$.device' = 'mobile'")[1]] == mobile
    for wrong in ("device =", "true; SELECT 1", "nothing = 1", "key IN (FROM read_text('/etc/passwd'))"):
        status, answer = peeked(wrong)
        assert status == 422, wrong
        assert "root:" not in str(answer)
    assert peeked("true) UNION ALL SELECT NULL WHERE (true")[0] == 200
    assert peeked("false) UNION ALL SELECT 'x' AS other WHERE (true")[0] in (200, 422)


def test_a_burst_of_malformed_records_is_told_with_the_ledgers_number(page: RunningPage) -> None:
    before = page.runtime.store.ledger().outcomes("events").get("malformed", 0)
    connection, stream = events(page)
    try:
        assert next(stream)["event"] == "hello"
        page.send(*[b"not json"] * 40)
        told = 0
        for event in stream:
            if event["event"] == "status":
                told = event["data"]["streams"]["events"]["outcomes"].get("malformed", 0)
            if told >= before + 40:
                break
        assert told == page.runtime.store.ledger().outcomes("events")["malformed"]
    finally:
        connection.close()


def test_a_reader_that_comes_back_gets_what_it_missed_once(page: RunningPage) -> None:
    connection, stream = events(page)
    page.send(b"{}")
    seen = next(event for event in stream if event["event"] == "epochs")
    connection.close()
    page.send(b"{}", b"{}")
    last = seen["data"]["epochs"][-1]["epoch"]
    connection, stream = events(page, seen["id"])
    try:
        hello = next(stream)
        assert hello["data"]["fresh"] is False
        more = next(event for event in stream if event["event"] == "epochs")
        assert more["data"]["epochs"][0]["epoch"] == last + 1
    finally:
        connection.close()
    connection, stream = events(page, "another-run-5")
    assert next(stream)["data"]["fresh"] is True
    connection.close()


def test_only_so_many_pages_are_served_at_once(page: RunningPage) -> None:
    opened = [events(page)[0] for _ in range(31)]
    try:
        more = [page_of(page) for _ in range(3)]
        opened += [connection for connection, _ in more]
        assert 503 in [status for _, status in more]
    finally:
        for connection in opened:
            connection.close()
    eventually(lambda: page.ask("GET", "/api/status")[0] == 200)


def page_of(page: RunningPage) -> tuple[http.client.HTTPConnection, int]:
    connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=DEADLINE_S)
    connection.request("GET", "/api/live")
    return connection, connection.getresponse().status


def test_values_reach_a_browser_unchanged_or_as_text() -> None:
    assert plain(2**53) == 2**53
    assert plain(2**53 + 1) == str(2**53 + 1)
    assert plain(float("inf")) == "inf"
    assert plain(b"\xff<script>") == "\\xff<script>"
    assert plain("\ud800") == "\\ud800"
    assert plain({"a": [b"x", None]}) == {"a": ["x", None]}
    assert len(plain("x" * 1_000_000)) < 21_000


def test_a_port_is_taken_from_the_moment_on_at_which_it_was_given() -> None:
    with bound_socket("127.0.0.1", 0) as first, pytest.raises(RefusedError, match="in use"):
        bound_socket("127.0.0.1", first.getsockname()[1])


def test_the_types_of_the_page_are_made_of_the_api_as_it_is() -> None:
    assert (ROOT / "ui" / "openapi.json").read_text() == description(), "the API has changed: make client"
