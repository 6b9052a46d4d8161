"""Changes as lines: in files of CSV, and on the standard output."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pytest

from headrace.errors import RefusedError
from headrace.replicate.files import FilesReplica
from headrace.replicate.stdout import StdoutReplica
from headrace.testing.replica_writes import FIRST, THINGS, chunk, opened, thing
from headrace.testing.replicas import ReplicaConformance

pytestmark = pytest.mark.slow


class CsvTarget:
    """A folder with files of CSV, which DuckDB reads as anybody would."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def replica(self, **options: Any) -> FilesReplica:
        return FilesReplica(**{"path": str(self.folder), "kind": "files", "format": "csv", **options})

    def rows(self, table: str) -> list[dict[str, Any]]:
        if not (self.folder / f"{table}.csv").exists():
            return []
        schema = json.loads((self.folder / f"{table}.schema.json").read_text())
        cells = [f'CAST("{name}" AS {kind}) AS "{name}"' for name, kind in schema["columns"].items()]
        with duckdb.connect() as connection:
            connection.execute("SET TimeZone = 'UTC'")
            lines = connection.sql(
                f"SELECT {', '.join(['_op', '_version::BIGINT AS _version', *cells])} FROM read_csv($path, "
                "header = true, all_varchar = true, allow_quoted_nulls = false, auto_detect = false, "
                "delim = ',', quote = '\"', escape = '\"', parallel = false, columns = $columns)",
                params={
                    "path": str(self.folder / f"{table}.csv"),
                    "columns": dict.fromkeys(("_op", "_version", *schema["columns"]), "VARCHAR"),
                },
            )
            changes = lines.to_arrow_table().to_pylist()
        nested = [name for name, kind in schema["columns"].items() if kind == "JSON"]
        return [decoded(row, nested) for row in applied(changes, schema["key"])]

    def refuse(self, table: str) -> bool:
        return False

    def differ(self, table: str) -> None:
        path = self.folder / f"{table}.schema.json"
        facts = json.loads(path.read_text())
        facts["columns"]["n"] = "VARCHAR"
        path.write_text(json.dumps(facts))

    @contextmanager
    def outage(self) -> Iterator[None]:
        pytest.skip("a folder is never down")
        yield


def decoded(row: dict[str, Any], nested: list[str]) -> dict[str, Any]:
    return {k: json.loads(v) if k in nested and v is not None else v for k, v in row.items()}


def applied(changes: list[dict[str, Any]], key: list[str]) -> list[dict[str, Any]]:
    """What is left when every change has come, in order."""
    rows: dict[Any, dict[str, Any]] = {}
    for number, change in enumerate(changes):
        op, version = change.pop("_op"), change["_version"]
        if op.startswith("sweep"):
            swept = range(int(op.removeprefix("sweep").removeprefix(" from ") or 0), version)
            rows = {known: row for known, row in rows.items() if row["_version"] not in swept}
            continue
        known = tuple(str(change[name]) for name in key) if key else number
        if known in rows and rows[known]["_version"] > version:
            continue
        rows.pop(known, None)
        if op == "put":
            rows[known] = change
    return list(rows.values())


class TestCsv(ReplicaConformance):
    @pytest.fixture
    def target(self, tmp_path: Path) -> CsvTarget:
        return CsvTarget(tmp_path / "target")

    test_a_column_that_is_new_is_added = None

    def test_a_column_that_is_new_is_refused_with_what_to_do(self, target: CsvTarget) -> None:
        with opened(target) as writer:
            writer.take(THINGS.name, None, FIRST)
            writer.write(chunk([thing("ann", 1)], epoch=1))
        narrow = type(THINGS)(name=THINGS.name, columns=THINGS.columns[:4], key=THINGS.key)
        with pytest.raises(RefusedError, match="columns") as raised, opened(target, narrow):
            pass
        assert "ndjson" in raised.value.fix


def test_a_file_that_somebody_has_taken_away_is_told(tmp_path: Path) -> None:
    target = CsvTarget(tmp_path / "target")
    with opened(target) as writer:
        writer.take(THINGS.name, None, FIRST)
        writer.write(chunk([thing("ann", 1)], epoch=1))
        (target.folder / f"{THINGS.name}.csv").unlink()
        with pytest.raises(RefusedError, match="shorter than it was"):
            writer.write(chunk([thing("bob", 1)], epoch=2))


PROJECT = """
import headrace as hr
pipeline = hr.Pipeline("shop")
pipeline.stream("events", schema="seen TIMESTAMP NOT NULL, who VARCHAR", event_time="seen")
pipeline.table("counts", "SELECT who, count(*) AS n FROM events GROUP BY who")
"""


def test_a_run_prints_what_changes_in_lines_that_jq_reads(tmp_path: Path) -> None:
    (tmp_path / "pipeline.py").write_text(PROJECT)
    (tmp_path / "headrace.toml").write_text('[profiles.local]\nreplicas.shown = { kind = "stdout" }\n')
    lines = [{"seen": "2026-03-01T12:00:00", "who": who} for who in ("ann", "bob", "ann")]
    (tmp_path / "events.ndjson").write_text("".join(json.dumps(line) + "\n" for line in lines))
    headrace(tmp_path, "produce", "events", "events.ndjson", "--record-time", "event")
    for _ in range(2):
        said = headrace(tmp_path, "run", "--until-caught-up")
        changes = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
        rows = {change["row"]["who"]: change["row"]["n"] for change in changes if change["op"] == "put"}
        assert rows == {"ann": 2, "bob": 1}
        assert {change["table"] for change in changes} == {"counts"}


def headrace(folder: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "headrace", *words],
        cwd=folder, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_who_stops_reading_the_standard_output_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as printed:
        monkeypatch.setattr(sys, "stdout", printed)

        class Stdout:
            def replica(self, **options: Any) -> StdoutReplica:
                return StdoutReplica(kind="stdout", **options)

        stdout: Any = Stdout()
        with opened(stdout) as writer:
            writer.take(THINGS.name, None, FIRST)
            writer.write(chunk([thing("ann", 1)], epoch=1))
            os.close(reading)
            with pytest.raises(RefusedError, match="nobody reads"):
                writer.write(chunk([thing("bob", 1)], epoch=2))
