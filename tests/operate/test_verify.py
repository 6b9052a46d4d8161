"""`headrace verify`: a slice through both engines, on a real broker and Spark, and what it says of them."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka.admin import AdminClient
from rich.console import Console

from headrace.cli.app import run
from headrace.cli.verify_commands import _progress
from headrace.operate.verify import Progress

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

PROFILES = """
[profiles.local]
streams.visits = {{ log = "embedded", partitions = 2 }}

[profiles.cluster]
engine = "spark"
spark.master = "local[2]"
spark.checkpoint = "checkpoint"
store.path = "cluster.duckdb"
streams.visits = {{ log = "kafka", brokers = "{brokers}", topic = "{topic}" }}
streams.shops = {{ log = "kafka", brokers = "{brokers}", topic = "{topic}-shops" }}
"""

PIPELINE = '''
import sys

import headrace as hr
import pyarrow as pa

pipeline = hr.Pipeline("verified")
pipeline.stream(
    "visits",
    schema="id VARCHAR NOT NULL, seen TIMESTAMP NOT NULL, shop VARCHAR, price DECIMAL(8,2)",
    event_time="seen",
    allowed_lateness="1 minute",
    unique="id",
    expect={"has_price": "price IS NOT NULL"},
)
pipeline.stream("shops", schema="name VARCHAR NOT NULL")
pipeline.table(
    "by_minute",
    """SELECT window_start, shop, count(*) AS visits, sum(price) AS price, avg(price) AS average
    FROM visits GROUP BY window(seen, '1 minute'), shop""",
    keep="1 minute",
)
pipeline.table(
    "sessions", "SELECT window_start, count(*) AS n FROM visits GROUP BY session_window(seen, '9 s')"
)
pipeline.table("names", "SELECT name FROM shops")
pipeline.table("busy", "SELECT shop, sum(visits) AS visits FROM by_minute GROUP BY shop")
'''

DIFFERENT = '''

@pipeline.function(arguments=["VARCHAR"], returns="VARCHAR")
def told_as(shops: pa.Array) -> pa.Array:
    """Breaks the rule that a function depends on its arguments alone."""
    on_spark = "pyspark.worker" in sys.modules
    return pa.array([f"<i>{shop}</i>" if on_spark else shop for shop in shops.to_pylist()])

pipeline.table("told", "SELECT id, told_as(shop) AS shop FROM visits WHERE id < 'v003'", key="id")
'''


class Verified:
    """A project with records in its embedded log."""

    def __init__(self, folder: Path, brokers: str, *more: str) -> None:
        self.folder, self.brokers = folder, brokers
        folder.mkdir()
        (folder / "pipeline.py").write_text(PIPELINE + "".join(more))
        topic = f"verified-{uuid.uuid4().hex[:8]}"
        (folder / "headrace.toml").write_text(PROFILES.format(brokers=brokers, topic=topic))
        self.append("visits", *(self._visit(number) for number in range(120)), "{broken", self._visit(5))
        self.append("shops", *(json.dumps({"name": name}) for name in "abc"))

    def _visit(self, number: int) -> str:
        price = None if number % 40 == 7 else f"{number}.25"
        minute, second = divmod(number * 7, 60)
        if number % 30 == 11:
            minute = 0
        seen = f"2026-03-01T12:{minute:02}:{second:02}"
        at = f"2026-03-01T12:{number * 7 // 60:02}:{number * 7 % 60:02}"
        return json.dumps(
            {"id": f"v{number:03}", "seen": seen, "shop": "abc"[number % 3], "price": price and float(price)}
            | {"arrived": at}
        )

    def append(self, stream: str, *lines: str) -> None:
        file = self.folder / f"{stream}.ndjson"
        file.write_text("".join(f"{line}\n" for line in lines))
        assert self.headrace("produce", stream, str(file), *self._times(stream)) == 0

    def _times(self, stream: str) -> list[str]:
        return ["--record-time", "field:arrived"] if stream == "visits" else []

    def headrace(self, *words: str) -> int:
        return run([words[0], "-C", str(self.folder), *words[1:]])

    def topics(self) -> list[str]:
        admin = AdminClient({"bootstrap.servers": self.brokers, "log_level": 0})
        return [name for name in admin.list_topics(timeout=10).topics if name.startswith("headrace-verify-")]


def _json(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.slow
def test_engines_that_agree_are_called_equal_and_nothing_is_left_behind(
    kafka_broker: str, spark_session: SparkSession, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project = Verified(tmp_path / "project", kafka_broker)
    before = sorted(path.name for path in project.folder.rglob("*") if "cache" not in str(path))
    known = set(project.topics())
    capsys.readouterr()
    assert (
        project.headrace("verify", "--profile", "cluster", "--from", "local", "--last", "all", "--json") == 0
    )
    found = _json(capsys)
    assert (found["equal"], found["different"], found["records"]) == (True, 0, 125)
    rows = {f"{one['kind']} {one['name']}".strip(): one["rows_local"] for one in found["compared"]}
    assert rows["table by_minute"] > 20  # also those older than the minute that the table keeps
    assert rows["late rows visits"] >= 3
    assert rows["dead letters"] == 4
    assert {one["stream"] for one in found["slice"]} == {"visits", "shops"}
    assert found["spark"]["epochs"] >= 1
    assert set(project.topics()) <= known
    after = sorted(path.name for path in project.folder.rglob("*") if "cache" not in str(path))
    assert after == before


@pytest.mark.slow
def test_engines_that_differ_give_an_exit_code_of_their_own_and_name_the_cell(
    kafka_broker: str, spark_session: SparkSession, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project = Verified(tmp_path / "project", kafka_broker, DIFFERENT)
    report = tmp_path / "report.html"
    capsys.readouterr()
    words = ["verify", "--profile", "cluster", "--from", "local", "--last", "all", "--report", str(report)]
    assert project.headrace(*words) == 4
    said = capsys.readouterr().out
    assert "different: 3 places" in said
    cell = said.index("  id = v001")
    place = next(line for line in said[cell:].splitlines() if "records: " in line).strip()
    assert "    shop: local b\n          Spark <i>b</i>\n" in said[cell:]
    stream, partition, offset = place.removeprefix("records: ").split("/")
    peek = ["log", "peek", stream, "-C", str(project.folder), "--offset", f"{partition}:{offset}", "-n", "1"]
    assert run(peek) == 0
    assert '"v001"' in capsys.readouterr().out
    page = report.read_text()
    assert "&lt;i&gt;b&lt;/i&gt;" in page
    assert "<i>" not in page
    assert "<script" not in page.lower()


@pytest.mark.slow
def test_where_spark_says_more_of_an_error_is_there_after_it(kafka_broker: str, tmp_path: Path) -> None:
    project = Verified(tmp_path / "project", kafka_broker)
    broken, temporary = tmp_path / "python", tmp_path / "temporary"
    broken.write_text("#!/bin/sh\necho this one is broken >&2\nexit 3\n")
    broken.chmod(0o755)
    temporary.mkdir()
    profiles = project.folder / "headrace.toml"
    setting = f'spark.pyspark.python = "{broken}"\nspark.checkpoint'
    profiles.write_text(profiles.read_text().replace("spark.checkpoint", setting))
    words = ["verify", "-C", str(project.folder), "--profile", "cluster", "--from", "local", "--last", "all"]
    ended = subprocess.run(
        [sys.executable, "-m", "headrace", *words],
        env={**os.environ, "TMPDIR": str(temporary)},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert ended.returncode == 1, ended.stderr
    assert "Traceback" not in ended.stderr
    (named,) = set(re.findall(r"/\S+spark\.log", ended.stderr))
    assert "this one is broken" in Path(named).read_text(encoding="utf-8")
    assert list(temporary.glob("headrace-*")) == [Path(named).parent]


def test_without_brokers_the_error_says_what_is_needed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project = Verified(tmp_path / "project", "127.0.0.1:9")
    assert project.headrace("verify", "--last", "all") == 2
    said = capsys.readouterr().err
    assert "profile 'local' does not have stream 'visits', 'shops' on Kafka" in said
    assert "--profile cluster --from local" in said


def test_two_ways_to_name_a_slice_exclude_each_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project = Verified(tmp_path / "project", "127.0.0.1:9")
    assert project.headrace("verify", "--last", "1h", "--offsets", "visits/0:0-1") == 2
    assert "--last and --offsets exclude each other" in capsys.readouterr().err
    assert project.headrace("verify", "--offsets", "visits/0:0-999") == 1
    assert "does not hold offsets 0 to 999" in capsys.readouterr().err


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_the_newest_hour_of_the_topics_of_a_profile_goes_through_both_engines(
    kafka_broker: str, spark_session: SparkSession, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project = Verified(tmp_path / "project", kafka_broker)
    known, now = set(project.topics()), datetime.now(UTC)
    sent = [
        {"id": f"t{n % 55}", "seen": (now - timedelta(seconds=n % 55)).isoformat(), "shop": "abc"[n % 3]}
        | ({} if n == 7 else {"price": 1.25})
        for n in range(60)
    ]
    visits = project.folder / "now.ndjson"
    visits.write_text("".join(f"{json.dumps(one)}\n" for one in sent) + "{broken\n")
    for stream, file in (("visits", visits), ("shops", project.folder / "shops.ndjson")):
        assert project.headrace("produce", stream, str(file), "--profile", "cluster") == 0
    capsys.readouterr()
    assert project.headrace("verify", "--profile", "cluster", "--json") == 0
    found = _json(capsys)
    assert (found["equal"], found["different"], found["records"]) == (True, 0, 64)
    rows = {f"{one['kind']} {one['name']}".strip(): one["rows_spark"] for one in found["compared"]}
    assert (rows["table names"], rows["dead letters"]) == (3, 2)
    assert rows["table by_minute"] >= 3
    assert set(project.topics()) <= known


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_what_log_peek_prints_goes_through_both_engines_too(
    kafka_broker: str, spark_session: SparkSession, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project = Verified(tmp_path / "project", kafka_broker)
    file = tmp_path / "records.ndjson"
    capsys.readouterr()
    peek = ["log", "peek", "visits", "-C", str(project.folder), "--from-beginning", "-n", "60", "--json"]
    assert run(peek) == 0
    file.write_text(capsys.readouterr().out)
    assert len(file.read_text().splitlines()) == 60
    assert project.headrace("verify", "--profile", "cluster", "--file", str(file), "--json") == 0
    found = _json(capsys)
    assert (found["equal"], found["different"], found["records"]) == (True, 0, 60)
    rows = {f"{one['kind']} {one['name']}".strip(): one["rows_spark"] for one in found["compared"]}
    assert rows["table by_minute"] > 2


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_named_offsets_go_through_both_engines_while_a_bar_tells_how_far_they_are(
    kafka_broker: str,
    spark_session: SparkSession,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    project = Verified(tmp_path / "project", kafka_broker)
    shown = on_terminal(monkeypatch)
    capsys.readouterr()
    words = ["--profile", "cluster", "--from", "local", "--json"]
    named = [word for span in ("visits/0:5-56", "shops/0:1-2") for word in ("--offsets", span)]
    assert project.headrace("verify", *words, *named) == 0
    found = _json(capsys)
    assert (found["equal"], found["different"], found["records"]) == (True, 0, 52)
    spans = {(one["stream"], one["partition"]): (one["start"], one["end"]) for one in found["slice"]}
    assert spans == {("visits", 0): (5, 56), ("shops", 0): (1, 2)}
    rows = {f"{one['kind']} {one['name']}".strip(): one["rows_spark"] for one in found["compared"]}
    assert rows["table names"] == 1
    assert rows["table by_minute"] > 2
    for step in ("copying the slice", "local engine", "Spark"):
        assert step in shown.getvalue()
    assert shown.getvalue().count("52 of 52 records") >= 3


def on_terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """Let commands believe that they talk to a terminal, and return what they write there beside answers."""
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=100)
    monkeypatch.setattr("headrace.cli.output.error_console", lambda: console)
    return shown


def test_a_bar_on_a_terminal_says_of_each_step_how_many_records_are_through(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown = on_terminal(monkeypatch)
    with _progress() as show:
        show(Progress("copy", 0, 1200))
        show(Progress("copy", 1200, 1200))
        show(Progress("local", 700, 1200))
        show(Progress("spark", 0, 1200))
        show(Progress("compare", 0, 0))
    lines = shown.getvalue().splitlines()
    last = {
        step: [line for line in lines if step in line][-1] for step in ("copying the slice", "local engine")
    }
    assert "1,200 of 1,200 records" in last["copying the slice"]
    assert "700 of 1,200 records" in last["local engine"]
    assert any("Spark" in line and "0 of 1,200 records" in line for line in lines)
    assert any("comparing" in line for line in lines)


def test_elsewhere_than_on_a_terminal_there_is_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    monkeypatch.setattr("headrace.cli.output.error_console", lambda: Console(file=shown, width=100))
    with _progress() as show:
        show(Progress("copy", 3, 5))
    assert shown.getvalue() == ""
