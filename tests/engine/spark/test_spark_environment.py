"""What is sent to executors that have nothing: our packages and those that the profile names."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.engine.spark import SparkSettings, environment
from headrace.engine.spark.environment import pack_environment
from headrace.engine.spark.session import conf_with_environment
from headrace.errors import ProfileError


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An archive without the largest libraries, which take a minute to press together and to look through."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(environment, "_NOT_SENT", {*environment._NOT_SENT, "pyarrow", "numpy"})
        yield pack_environment(tmp_path_factory.mktemp("packed"), ["pyyaml"])


@pytest.mark.slow
def test_the_archive_holds_what_executors_import_and_not_spark_itself(packed: Path) -> None:
    with tarfile.open(packed) as tar:
        names = tar.getnames()
    for wanted in ("headrace/engine/spark/source.py", "duckdb/__init__.py", "yaml/__init__.py"):
        assert wanted in names
    assert not [name for name in names if name.startswith(("pyspark/", "py4j/", "../")) or ".pth" in name]


@pytest.mark.slow
def test_an_archive_is_used_again_until_something_changes(packed: Path) -> None:
    made = packed.stat().st_mtime_ns
    assert pack_environment(packed.parent, ["pyyaml"]) == packed
    assert packed.stat().st_mtime_ns == made
    given = {"spark.archives": "models.zip#models", "spark.executorEnv.PYTHONPATH": "models"}
    settings = SparkSettings(conf=given, environment="archive", environment_packages=("pyyaml",))
    conf = conf_with_environment(settings, packed.parent)
    assert conf["spark.archives"] == f"models.zip#models,{packed}#headrace-environment"
    assert conf["spark.executorEnv.PYTHONPATH"] == "headrace-environment:models"
    assert conf["spark.pyspark.python"].startswith("python3.")


def test_what_is_installed_on_executors_is_left_alone(tmp_path: Path) -> None:
    given = {"spark.pyspark.python": "/opt/headrace/bin/python"}
    assert conf_with_environment(SparkSettings(conf=given), tmp_path) == given


def test_a_package_that_is_not_here_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="no-such-package"):
        pack_environment(tmp_path, ["no-such-package"])
    assert list(tmp_path.iterdir()) == []
