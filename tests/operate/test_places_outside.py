"""Rows that executors write stay in one place: a profile with another one is refused, unless they moved."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.errors import RefusedError
from headrace.operate import load_project
from headrace.operate.outside import check_places, outside_places
from headrace.sql import plan_pipeline

PIPELINE = """
import headrace as hr

pipeline = hr.Pipeline("places")
pipeline.stream("events", schema="n BIGINT NOT NULL")
pipeline.table("plain", "SELECT n FROM events")
"""
PROFILE = """
[profiles.{name}]
engine = "spark"
streams.events = {{ log = "kafka", brokers = "127.0.0.1:1", topic = "events" }}
spark.rows_by_executors = ["plain"]
replicas.{replica} = {{ kind = "{kind}", path = "{path}", tables = ["plain"] }}
"""


def test_files_in_another_place_are_refused_unless_the_folder_was_moved_there(tmp_path: Path) -> None:
    told = (
        ("before", "lake", "delta", "old"),
        ("after", "lake", "delta", "new"),
        ("named", "pond", "delta", "new"),
        ("parquet", "lake", "parquet", "new"),
    )
    profiles = [
        PROFILE.format(name=name, replica=replica, kind=kind, path=tmp_path / path)
        for name, replica, kind, path in told
    ]
    (tmp_path / "pipeline.py").write_text(PIPELINE)
    (tmp_path / "headrace.toml").write_text("".join(profiles))
    homes = {name: load_project(tmp_path, profile=name) for name, *_ in told}
    plan = plan_pipeline(homes["before"].pipeline)
    place = outside_places(homes["before"], plan)["plain"]
    known = {"store_id": "one", "outside:plain": place}
    waiting = Path("_headrace", "plain", "rows-one")
    (tmp_path / "old" / waiting).mkdir(parents=True)
    check_places(homes["before"], plan, known)
    check_places(homes["after"], plan, {"store_id": "one"})
    with pytest.raises(RefusedError, match=f"{tmp_path}/old.*{tmp_path}/new"):
        check_places(homes["after"], plan, known)
    (tmp_path / "old").rename(tmp_path / "new")
    check_places(homes["after"], plan, known)
    for name in ("named", "parquet"):
        with pytest.raises(RefusedError, match="written elsewhere"):
            check_places(homes[name], plan, known)
