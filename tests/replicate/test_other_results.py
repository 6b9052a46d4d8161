"""Tables that show something else of the state that a store holds: other columns, another HAVING."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from targets import FilesTarget, ParquetTarget

from headrace.declare import Pipeline
from headrace.testing.pipeline_test import PipelineTest
from headrace.testing.replica_runs import catch_up, following, sorted_rows, tell_expired

START = "2026-03-01T12:00:00"
USERS = "SELECT who, count(*) AS n, max(heat) AS hot FROM events GROUP BY who"
WINDOWS = "SELECT window_start, who, count(*) AS n FROM events GROUP BY window(seen, '10 minutes'), who"
VISITS = "SELECT who, window_start, count(*) AS n FROM events GROUP BY session_window(seen, '5 minutes'), who"
ONE = "SELECT count(*) AS n, max(heat) AS hot FROM events"
MORE = " HAVING count(*) > 1"


@contextmanager
def shop(folder: Path, **tables: str) -> Iterator[PipelineTest]:
    """Run the pipeline on the store that is in `folder`."""
    pipeline = Pipeline("shop")
    pipeline.stream(
        "events",
        schema="seen TIMESTAMP NOT NULL, who VARCHAR, heat DOUBLE",
        event_time="seen",
        allowed_lateness="1 minute",
    )
    for name, query in tables.items():
        pipeline.table(name, query)
    with PipelineTest(pipeline, folder=folder, start=START) as test:
        yield test


def send(test: PipelineTest, *who: str, minute: int = 0) -> None:
    at = f"2026-03-01T12:{minute:02d}:00"
    test.send("events", [{"seen": at, "who": each, "heat": 4.5} for each in who], at=at)
    test.run()


def copied(test: PipelineTest, *targets: Any, **options: Any) -> None:
    for target in targets:
        with following(test, target.replica(**options)) as follower:
            catch_up(follower)


def agree(test: PipelineTest, target: Any, *tables: str) -> None:
    for table in tables:
        assert sorted_rows(target.rows(table)) == sorted_rows(test.table(table)), table


def test_a_replica_follows_another_having_of_a_store_that_exists(tmp_path: Path) -> None:
    two, three, few = " HAVING count(*) > 1", " HAVING count(*) > 2", " HAVING count(*) < 2"
    changes = [("", two), (two, ""), (two, three), (three, two), (two, few)]
    each = [(query, *change) for query in (USERS, WINDOWS, VISITS) for change in changes]
    first = {f"t{number}": query + having for number, (query, having, _) in enumerate(each)}
    second = {f"t{number}": query + having for number, (query, _, having) in enumerate(each)}
    near, far = FilesTarget(tmp_path / "near"), FilesTarget(tmp_path / "far")
    with shop(tmp_path / "shop", **first) as test:
        send(test, "ann", "bob", "bob", "cyd", "cyd", "cyd")
        copied(test, near, far)
    with shop(tmp_path / "shop", **second) as test:
        copied(test, near)  # before any record comes
        agree(test, near, *second)
        assert [said.split()[1] for said in test.store.notices] == [f"'{name}'" for name in second]
        send(test, "ann")
        send(test, "bob", minute=1)
        copied(test, near)
        agree(test, near, *second)
    with shop(tmp_path / "shop", **second) as test:
        assert test.store.notices == []
        copied(test, far)  # it was away all the while
        agree(test, far, *second)


def test_few_changes_are_read_without_asking_for_their_number_or_for_rows_that_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(*_: Any, **__: Any) -> None:
        raise AssertionError("the counters had told")

    target = FilesTarget(tmp_path / "target")
    with shop(tmp_path / "shop", users=USERS, windows=WINDOWS, visits=VISITS) as test:
        send(test, "ann")
        with following(test, target.replica()) as follower:
            catch_up(follower)
            with monkeypatch.context() as patch:
                for name in ("epoch_sizes", "removed_keys"):
                    patch.setattr(f"headrace.replicate.copying_rows.{name}", asked)
                send(test, "bob")
                catch_up(follower)
            agree(test, target, "users", "windows", "visits")
            send(test, "ann", minute=3)  # the visit is another one: the row of before leaves
            catch_up(follower)
            agree(test, target, "users", "windows", "visits")


def test_a_row_that_leaves_by_a_having_of_later_is_told_once(tmp_path: Path) -> None:
    with shop(tmp_path, t=USERS) as test:
        send(test, "ann", "bob", "bob")
    with shop(tmp_path, t=USERS + " HAVING count(*) < 3") as test:
        send(test, "cyd", "cyd", "cyd")  # was never in it
        send(test, "bob")
    with shop(tmp_path, t=USERS + " HAVING count(*) < 3") as test:
        removed = test.query('SELECT "key" FROM _headrace._removed')
        assert removed == [{"key": '{"who":"bob"}'}]
        assert [row["who"] for row in test.table("t")] == ["ann"]


def test_rows_whose_keys_are_json_texts_leave_the_target(tmp_path: Path) -> None:
    query = "SELECT CAST(who AS JSON) AS what, count(*) AS n FROM events GROUP BY what HAVING count(*) < 2"
    said = ('"abc"', '"1"', '"2026-01-01"', '{"a":"b"}', "true", '["1",2]')
    target = FilesTarget(tmp_path / "target")
    with shop(tmp_path / "shop", t=query) as test:
        send(test, *said)
        copied(test, target)
        assert len(target.rows("t")) == len(said)
        send(test, *said[:-1])
        copied(test, target)
        assert target.rows("t") == [{"what": ["1", 2], "n": 1}]


@pytest.mark.parametrize("kind", [FilesTarget, ParquetTarget])
def test_rows_whose_keys_are_json_leave_the_target_by_the_digits_that_they_have(
    tmp_path: Path, kind: Any
) -> None:
    query = "SELECT CAST(who AS JSON) AS what, count(*) AS n FROM events GROUP BY what HAVING count(*) < 2"
    said = ("1.50", "1e2", "-0.0", '{"a": 1.0,  "b": [2.50]}', '"1.50"', "12345678901234567890123", "null")
    target = kind(tmp_path / "target")
    with shop(tmp_path / "shop", t=query) as test:
        send(test, *said, "7.0")
        copied(test, target)
        assert len(target.rows("t")) == len(said) + 1
        send(test, *said)
        copied(test, target)
        assert [row["n"] for row in target.rows("t")] == [1]


@pytest.mark.parametrize(
    "key",
    [
        "MAP {who: 1}",
        "MAP {1: who}",
        "{'a': MAP {who: 1.50}}",
        "[MAP {who: 1}]",
        "[who, 'x, y']",
        "{'who': who, 'd': CAST(12345678901234567.25 AS DECIMAL(20, 2))}",
        "{'who': who, 'b': CAST('\\xAA' AS BLOB)}",
        "{'b': CAST('\\xAA\\x22' AS BLOB), 'j': CAST('1.50' AS JSON), 'who': who}",
        "[{'b': encode(concat('\\', who, 'ä\"')), 'j': CAST('{\"a\":  1.50}' AS JSON)}]",
        "MAP {encode(who): [CAST('1e2' AS JSON), CAST('null' AS JSON)]}",
        "{'b': [CAST('\\x00' AS BLOB)], 'BLOB': concat(who, chr(10), 'BLOB')}",
        "[CAST('1.50' AS JSON), CAST(concat('\"', who, '\"') AS JSON)]",
        "{'JSON': CAST('{\"a\":  1.50}' AS JSON), 'who': who}",
        "MAP {who: [CAST('1e2' AS JSON), CAST('null' AS JSON)]}",
        "{'a': MAP {CAST(concat('[-0.0,\"', who, '\"]') AS JSON): who}}",
    ],
)
def test_rows_leave_the_target_by_keys_that_hold_other_values(tmp_path: Path, key: str) -> None:
    query = f"SELECT {key} AS what, count(*) AS n FROM events GROUP BY what HAVING count(*) < 2"
    target = ParquetTarget(tmp_path / "target")
    with shop(tmp_path / "shop", t=query) as test:
        send(test, "ann", "bob")
        copied(test, target)
        assert len(target.rows("t")) == 2
        send(test, "ann")
        copied(test, target)
        assert len(target.rows("t")) == 1


def test_keys_that_a_version_before_wrote_down_leave_the_target(tmp_path: Path) -> None:
    query = "SELECT CAST(who AS JSON) AS what, count(*) AS n FROM events GROUP BY what HAVING count(*) < 2"
    said, target = ('"abc"', "true", '{"a":1}'), ParquetTarget(tmp_path / "target")
    with shop(tmp_path / "shop", t=query) as test:
        send(test, *said)
        copied(test, target)
        send(test, *said)
        with test.store.transaction():
            (exact,) = test.store.connection.execute(
                'SELECT list("key" ORDER BY "key") FROM _headrace._removed WHERE "key" LIKE \'%"=what"%\''
            ).fetchall()[0]
            assert len(exact) == len(said)
            of_before = "to_json(struct_pack(what := json_extract(\"key\", '$.what')))"
            test.store.connection.execute(f'UPDATE _headrace._removed SET "key" = {of_before}')
        copied(test, target)
        assert target.rows("t") == []


def test_rows_that_expire_leave_the_target_by_the_digits_of_their_keys(tmp_path: Path) -> None:
    pipeline = Pipeline("shop")
    pipeline.stream(
        "events",
        schema="seen TIMESTAMP NOT NULL, who VARCHAR",
        event_time="seen",
        allowed_lateness="1 minute",
    )
    pipeline.table("latest", "SELECT CAST(who AS JSON) AS what, seen FROM events", key="what", keep="1 hour")
    pipeline.table(
        "counts",
        "SELECT window_start, CAST(who AS JSON) AS what, count(*) AS n FROM events "
        "GROUP BY window(seen, '10 minutes'), what",
        keep="1 hour",
    )
    target = ParquetTarget(tmp_path / "target")
    with PipelineTest(pipeline, folder=tmp_path / "shop", start=START) as test:
        tell_expired(test, copy=("latest", "counts"))
        for hour, what in ((12, "1.50"), (14, "2.50"), (18, "3.50")):
            at = f"2026-03-01T{hour}:00:00"
            test.send("events", {"seen": at, "who": what}, at=at)
            test.run()
            copied(test, target, expired="delete")
        for table in ("latest", "counts"):
            agree(test, target, table)
            assert len(target.rows(table)) < 3


@pytest.mark.parametrize("kind", [FilesTarget, ParquetTarget])
def test_a_replica_follows_columns_that_are_computed_otherwise(tmp_path: Path, kind: Any) -> None:
    target = kind(tmp_path / "target")
    view = "SELECT sum(hot) AS heat FROM users"
    with shop(tmp_path / "shop", users=USERS, one=ONE, calm=WINDOWS, heat=view) as test:
        send(test, "ann", "bob")
        copied(test, target)
        agree(test, target, "users", "one", "heat")
    otherwise = {
        "users": USERS.replace("max(heat)", "max(heat) * 100"),
        "one": ONE.replace("max(heat)", "-max(heat)"),
    }
    with shop(tmp_path / "shop", **otherwise, calm=WINDOWS, heat=view) as test:
        assert [row["hot"] for row in test.table("users")] == [450.0, 450.0]
        copied(test, target)
        agree(test, target, "users", "one", "calm", "heat")
        assert ["(column 'hot' is computed otherwise)" in each for each in test.store.notices] == [True, True]
        assert {row["_epoch"] for row in test.query("SELECT _epoch FROM _state.calm")} == {1}
    renamed = {"users": USERS.replace("AS hot", "AS hottest"), "one": ONE}
    with shop(tmp_path / "shop", **renamed, calm=WINDOWS) as test:
        copied(test, target)
        rows = {row["who"]: row["hottest"] for row in target.rows("users")}
        assert rows == {"ann": 4.5, "bob": 4.5}
        assert "column 'hottest' is new, column 'hot' is gone" in test.store.notices[-2]


def test_a_closed_window_that_shows_something_else_is_appended_with_a_higher_revision(tmp_path: Path) -> None:
    target = FilesTarget(tmp_path / "target")
    with shop(tmp_path / "shop", t=WINDOWS) as test:
        send(test, "ann")
        send(test, "ann", minute=15)
        copied(test, target, mode="append")
    with shop(tmp_path / "shop", t=WINDOWS.replace("count(*)", "count(*) * 10")) as test:
        copied(test, target, mode="append")
        send(test, "ann", minute=35)
        copied(test, target, mode="append")
    found = [(str(row["window_start"])[11:16], row["_revision"], row["n"]) for row in target.rows("t")]
    assert sorted(found) == [("12:00", 0, 1), ("12:00", 1, 10), ("12:10", 0, 10)]


def test_a_table_that_changes_before_the_first_record_is_no_news(tmp_path: Path) -> None:
    with shop(tmp_path, t=USERS):
        pass
    with shop(tmp_path, t=USERS + MORE) as test:
        assert test.store.notices == []
        send(test, "ann", "bob", "bob")
        assert [row["who"] for row in test.table("t")] == ["bob"]


def test_a_store_of_before_results_were_written_down_goes_on_with_another_having(tmp_path: Path) -> None:
    target = FilesTarget(tmp_path / "target")
    with shop(tmp_path / "shop", t=USERS, calm=USERS) as test:
        send(test, "ann", "bob", "bob")
        copied(test, target)
        test.store.connection.execute("DELETE FROM _headrace.meta WHERE name LIKE 'result:%'")
    with shop(tmp_path / "shop", t=USERS + MORE, calm=USERS) as test:
        assert ["'t'" in each for each in test.store.notices] == [True]
        copied(test, target)
        agree(test, target, "t", "calm")
