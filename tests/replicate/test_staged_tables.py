"""Tables whose rows are written as files: in the target they are the ones that a follower copies."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from targets import DeltaTarget, ParquetTarget

import headrace as hr
from headrace.engine.local import LocalEngine
from headrace.engine.spark.outside import OutsideTable
from headrace.errors import RefusedError
from headrace.log import Log, open_embedded_log
from headrace.replicate.follower import Follower
from headrace.replicate.staged import RowsStage
from headrace.sql import plan_pipeline
from headrace.sql.plan import PipelinePlan
from headrace.store import Store
from headrace.store.outside import listed_names
from headrace.testing.records import append_table
from headrace.testing.replica_runs import Kept, catch_up

_COLUMNS = {
    "whole": "n",
    "tiny": "CAST(n AS UTINYINT)",
    "large": "CAST(n AS UBIGINT) + 18446744073709551000",
    "huge": "CAST(n AS HUGEINT) * 1000000000000000000000",
    "money": "CAST(n AS DECIMAL(12,2)) / 4",
    "ratio": "CASE n WHEN 1 THEN 'nan'::DOUBLE WHEN 2 THEN 'inf'::DOUBLE ELSE n / 3 END",
    "text": "CASE WHEN n % 2 = 0 THEN NULL ELSE 'nö' || n END",
    "bytes": "encode('x' || n)",
    "yes": "n > 1",
    "unique_id": "CAST('00000000-0000-0000-0000-00000000000' || n AS UUID)",
    "document": "CAST('{\"a\": [' || n || ', null]}' AS JSON)",
    "day": "DATE '2026-03-01' + CAST(n AS INTEGER)",
    "clock": "TIME '12:00:00' + to_hours(n)",
    "at": "TIMESTAMP '2026-03-01 10:30:00.123456' + to_hours(n)",
    "exact": "CAST(TIMESTAMP '2026-03-01 10:30:00' + to_hours(n) AS TIMESTAMP_NS)",
    "span": "to_hours(n)",
    "list": "[n, NULL]",
    "nested": "{'a': n, 'b': [{'c': 'x' || n}]}",
    "mapped": "MAP {'k' || n: n}",
}
Target = DeltaTarget | ParquetTarget


class _Engine(LocalEngine):
    """Writes the rows of a table as executors do."""

    stage: RowsStage

    def _learn_state(self) -> None:
        super()._learn_state()
        self._writers["typed"] = OutsideTable(self._writers["typed"].plan, self.stage)


def _planned(columns: Mapping[str, str]) -> PipelinePlan:
    pipeline = hr.Pipeline("types")
    pipeline.stream("events", schema="n BIGINT NOT NULL")
    listed = ", ".join(f"{sql} AS {name}" for name, sql in columns.items())
    pipeline.table("typed", f"SELECT {listed} FROM events")
    return plan_pipeline(pipeline)


def _target(kind: str, lake: Path) -> Target:
    return DeltaTarget(str(lake)) if kind == "delta" else ParquetTarget(lake)


@contextmanager
def _read(
    folder: Path, plan: PipelinePlan, log: Log, target: Target, *, outside: bool = True
) -> Iterator[Follower]:
    """Read what is in the log; a follower of the store that has not begun."""
    options = target.replica(tables=("typed",))
    places = {"typed": "the lake"} if outside else {}
    store = Store.open(folder / "store.duckdb", plan, identities={"events": log.identity}, outside=places)
    (table,) = plan.tables
    made: type[LocalEngine] = LocalEngine
    if outside:
        stage = RowsStage.of(table, options, Path(options.path), store.status().store_id)
        stage.prepare(listed_names(store.connection, "typed"))
        made = type("_Staged", (_Engine,), {"stage": stage})
    engine = made(plan, {"events": log}, store)
    follower = Follower("lake", options, plan, store, Kept())
    try:
        engine.run(threading.Event(), until_caught_up=True)
        yield follower
    finally:
        follower.stop(0)
        engine.close()
        store.close()


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    found = open_embedded_log(tmp_path / "log.db", "events", durable=False)
    found.append(append_table([b'{"n": %d}' % number for number in range(1, 6)]))
    yield found
    found.close()


@pytest.mark.parametrize("kind", ["delta", "parquet"])
def test_every_type_looks_the_same_whoever_wrote_it(tmp_path: Path, log: Log, kind: str) -> None:
    found, schemas = [], set()
    for name, outside in (("store", False), ("files", True)):
        target = _target(kind, tmp_path / name / "lake")
        with _read(tmp_path / name, _planned(_COLUMNS), log, target, outside=outside) as follower:
            follower.start()
            catch_up(follower)
        found.append(sorted(target.rows("typed"), key=lambda row: int(row["whole"])))
        if isinstance(target, DeltaTarget):
            schemas.add(target.table("typed").schema().to_json())
    copied, written = found
    assert len(copied) == 5
    assert [repr(row) for row in written] == [repr(row) for row in copied]
    assert len(schemas) <= 1


@pytest.mark.parametrize("kind", ["delta", "parquet"])
def test_a_driver_that_lost_its_store_fills_a_table_that_was_moved_away(
    tmp_path: Path, log: Log, kind: str
) -> None:
    lake, plan = tmp_path / "lake", _planned({"whole": "n"})
    target = _target(kind, lake)
    with _read(tmp_path / "lost", plan, log, target) as follower:
        follower.start()
        catch_up(follower)
    with _read(tmp_path / "new", plan, log, target) as follower:
        follower.start()
        with pytest.raises(RefusedError, match="filled from another store"):
            catch_up(follower)
        (lake / "typed").rename(tmp_path / "away")
        if kind == "parquet":
            (lake / "_headrace" / "typed" / "manifest.json").unlink()
        follower.resume()
        catch_up(follower)
    assert sorted(row["whole"] for row in target.rows("typed")) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("kind", ["delta", "parquet"])
def test_a_table_that_somebody_deleted_is_not_filled_with_a_part_of_its_rows(
    tmp_path: Path, log: Log, kind: str
) -> None:
    lake, plan = tmp_path / "lake", _planned({"whole": "n"})
    target = _target(kind, lake)
    for _ in range(2):
        with _read(tmp_path, plan, log, target) as follower:
            follower.start()
            if not (tmp_path / "away").exists():
                catch_up(follower)
                (lake / "typed").rename(tmp_path / "away")
                if kind == "parquet":
                    (lake / "_headrace" / "typed" / "manifest.json").unlink()
                log.append(append_table([b'{"n": 6}']))
                continue
            with pytest.raises(RefusedError, match="nowhere else"):
                catch_up(follower)
    assert target.rows("typed") == []


@pytest.mark.parametrize("kind", ["delta", "parquet"])
def test_files_of_a_store_that_was_set_back_stay_though_the_target_is_beyond_their_epochs(
    tmp_path: Path, log: Log, kind: str
) -> None:
    lake, plan, folder = tmp_path / "lake", _planned({"whole": "n"}), tmp_path / "store"
    target = _target(kind, lake)

    def send_and_read(first: int, last: int, *, follow: bool) -> None:
        for number in range(first, last):
            log.append(append_table([b'{"n": %d}' % number]))
            with _read(folder, plan, log, target) as follower:
                if follow:
                    follower.start()
                    catch_up(follower)

    send_and_read(6, 7, follow=True)
    shutil.copy(folder / "store.duckdb", tmp_path / "backup")
    send_and_read(7, 10, follow=True)
    there = target.rows("typed")
    shutil.copy(tmp_path / "backup", folder / "store.duckdb")
    send_and_read(10, 20, follow=False)
    with _read(folder, plan, log, target) as follower:
        waiting = sorted((lake / "_headrace" / "typed").glob("rows-*/*"))
        assert len(waiting) >= 10
        follower.start()
        with pytest.raises(RefusedError, match="set back"):
            catch_up(follower)
    assert sorted((lake / "_headrace" / "typed").glob("rows-*/*")) == waiting
    assert target.rows("typed") == there
