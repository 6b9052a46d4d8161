"""`kill -9` of a driver on Spark: files, topics, a webhook and a search server hold what the oracle says."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import canonical
import pytest
from crash_pipeline import append_table, arrivals, pipeline
from kafka_project import end
from spark_project import PASSES_S_MAX, SparkProject

from headrace.sql import plan_pipeline
from servers.spark import SPARK_CONF

sys.path.append(str(Path(__file__).parents[1] / "replicate"))

from json_targets import KafkaTarget, WebhookTarget
from search_target import SearchTarget
from targets import FilesTarget

_RECORDS = 4_000
_KILLS = 2
_RUN = ("run", "--profile", "cluster", "--until-caught-up")
_REPLICAS = """
replicas.changes = {{ kind = "files", path = "changes", tables = ["*"] }}
replicas.topics = {{ kind = "kafka", brokers = "{brokers}", prefix = "{topics}", tables = ["*"] }}
replicas.hook = {{ kind = "webhook", url = "{hook}", path = "hook", tables = ["*"] }}
replicas.search = {{ kind = "opensearch", url = "{search}", prefix = "{indices}", tables = ["*"], \
cursors = ".{indices}cursors" }}
"""


@pytest.fixture
def targets(kafka_broker: str, opensearch_server: str, tmp_path: Path) -> Iterator[Mapping[str, Any]]:
    with ExitStack() as undo:
        hook = WebhookTarget(tmp_path / "hook")
        undo.callback(hook.stop)
        search = SearchTarget(opensearch_server)
        undo.callback(search.close)
        yield {
            "files": FilesTarget(tmp_path / "changes"),
            "kafka": KafkaTarget(kafka_broker),
            "webhook": hook,
            "opensearch": search,
        }


def _typed(rows: list[dict[str, Any]], table: str) -> list[dict[str, Any]]:
    """Rows with the types of their columns: JSON has no instants and no decimals."""
    (plan,) = [each for each in plan_pipeline(pipeline).tables if each.name == table]
    kinds = {column.name: column.type for column in plan.columns}
    return [{name: _value(value, kinds.get(name, "")) for name, value in row.items()} for row in rows]


def _value(value: Any, kind: str) -> Any:
    if isinstance(value, str) and kind.startswith("TIMESTAMP"):
        return datetime.fromisoformat(value)
    if value is not None and kind.startswith("DECIMAL"):
        scale = int(kind.rstrip(")").rpartition(",")[2])
        return Decimal(value).quantize(Decimal(1).scaleb(-scale))
    return int(value) if value is not None and kind == "HUGEINT" else value


@pytest.mark.soak
@pytest.mark.timeout(2400)
def test_replicas_behind_spark_hold_what_the_oracle_says_though_the_driver_is_killed(
    kafka_broker: str, targets: Mapping[str, Any], tmp_path: Path
) -> None:
    places = {
        "brokers": kafka_broker,
        "topics": targets["kafka"].prefix,
        "hook": f"http://127.0.0.1:{targets['webhook'].port}/hook",
        "search": targets["opensearch"].url,
        "indices": targets["opensearch"].prefix,
    }
    with SparkProject(tmp_path, kafka_broker, SPARK_CONF, _REPLICAS.format(**places)) as project:
        sent = arrivals(_RECORDS, seed=16)
        project.log.append(append_table(sent))
        chance = random.Random(16)
        for kill in range(_KILLS):
            driver = project.headrace(*_RUN)
            share = len(sent) // (_KILLS + 1)
            project.passes(driver, kill * share + 1 + chance.randrange(share))
            end(driver)
        assert project.headrace(*_RUN).wait(PASSES_S_MAX) == 0, project.said()
        tables = project.check(sent)["tables"]
    different = [
        line
        for kind, target in targets.items()
        for name, rows in tables.items()
        for line in canonical.differences(rows, _copied(target, name, [*rows[0]]), f"{kind}/{name}")
    ]
    assert not different, "\n".join(different[:20])


def _copied(target: Any, table: str, columns: list[str]) -> list[dict[str, Any]]:
    rows = _typed(target.rows(table), table)
    return canonical.rows({name: row[name] for name in columns} for row in rows)
