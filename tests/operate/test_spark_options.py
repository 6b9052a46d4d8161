"""What a profile says under `spark.`: two options of ours, and Spark's own settings as they are."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from headrace.operate.profiles import read_profile


def test_settings_reach_spark_by_their_full_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASTER", "spark://host:7077")
    (tmp_path / "headrace.toml").write_text(
        """
[profiles.cluster]
engine = "spark"
spark.master = "${env:MASTER}"
spark.trigger = "5 seconds"
spark.sql.shuffle.partitions = 8
spark.dynamicAllocation.enabled = true
"spark.executor.memory" = "4g"
"""
    )
    profile = read_profile(tmp_path, "cluster")
    assert profile.engine == "spark"
    assert profile.spark.trigger == timedelta(seconds=5)
    assert profile.spark.checkpoint is None
    assert profile.spark.conf == {
        "spark.master": "spark://host:7077",
        "spark.sql.shuffle.partitions": "8",
        "spark.dynamicAllocation.enabled": "true",
        "spark.executor.memory": "4g",
    }
