"""What is told where a package of an extra is not installed: which one it is, and what to type."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from headrace.operate.extras import EXTRAS

ROOT = Path(__file__).parents[2]
DECLARED = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]

PIPELINE = """import headrace as hr

pipeline = hr.Pipeline("shop")
pipeline.stream("events", schema="id VARCHAR NOT NULL, at TIMESTAMP NOT NULL", event_time="at")
pipeline.table("totals", "SELECT id, count(*) AS n FROM events GROUP BY id")
"""
MODEL = "import onnxruntime\n"
KAFKA = 'streams.events = { log = "kafka", brokers = "localhost:1" }\n'
DSN = "postgresql://localhost/shop"

# A profile, the lines before the pipeline, and the command that needs the package.
CASES = {
    "airflow": ("", "", "import headrace.operate.airflow as provider; provider.polling_dag"),
    "cassandra": ('replicas.copy = { kind = "cassandra", hosts = "localhost", keyspace = "shop" }\n', "", ""),
    "delta": ('replicas.copy = { kind = "delta", path = "copy" }\n', "", ""),
    "onnx": ("", MODEL, ""),
    "postgresql": (f'replicas.copy = {{ kind = "postgresql", dsn = "{DSN}" }}\n', "", ""),
    "s3": ('replicas.copy = { kind = "parquet", uri = "s3://shop/copy" }\n', "", ""),
    "spark": (f'engine = "spark"\n{KAFKA}', "", ""),
    "telemetry": ('telemetry.traces = "http://localhost:1"\n', "", ""),
    "tui": ("", "", "watch"),
}
AS_WITHOUT = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {packages!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
"""
COMMAND = "from headrace.cli import main; main()"


def without(packages: tuple[str, ...], code: str, folder: Path, *words: str) -> tuple[int, str]:
    """Run `code` where `packages` are not installed; what it returns and says."""
    done = subprocess.run(
        [sys.executable, "-c", AS_WITHOUT.format(packages=packages) + code, *words],
        cwd=folder, capture_output=True, text=True, timeout=280, check=False,
        env={**os.environ, "COLUMNS": "1000"},
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def project(folder: Path, extra: str) -> Path:
    profile, first, _ = CASES[extra]
    (folder / "headrace.toml").write_text("[profiles.local]\n" + profile)
    (folder / "pipeline.py").write_text(first + PIPELINE)
    return folder


def test_every_extra_of_the_package_is_known_and_tried() -> None:
    assert set(EXTRAS) == set(DECLARED) == set(CASES)
    brought = {line.partition(">")[0].partition("[")[0] for lines in DECLARED.values() for line in lines}
    known = [name for names in EXTRAS.values() for name in names]
    other_names = {"cassandra": "cassandra-driver", "airflow": "apache-airflow"}
    for name in known:
        assert any(each.startswith(other_names.get(name, name)) for each in brought), name


@pytest.mark.slow
@pytest.mark.parametrize("extra", sorted(DECLARED))
def test_a_command_that_needs_an_extra_says_how_to_install_it(extra: str, tmp_path: Path) -> None:
    words = CASES[extra][2]
    command = words.split() or ["run", "--until-caught-up"]
    code, command = (words, []) if words.startswith("import ") else (COMMAND, command)
    status, said = without(EXTRAS[extra], code, project(tmp_path, extra), *command)
    assert status
    assert f"pip install 'headrace[{extra}]'" in said
    assert "this is a bug" not in said
    assert any(f"'{name}" in said or name in said for name in EXTRAS[extra])


@pytest.mark.slow
@pytest.mark.parametrize("extra", sorted({*DECLARED} - {"airflow", "tui"}))
def test_check_says_how_to_install_what_a_run_will_need(extra: str, tmp_path: Path) -> None:
    status, said = without(EXTRAS[extra], COMMAND, project(tmp_path, extra), "check")
    assert status == (2 if extra == "onnx" else 0), said
    assert f"install it: pip install 'headrace[{extra}]'" in said


@pytest.mark.slow
def test_a_run_that_goes_on_says_it_in_a_line_and_in_its_journal(tmp_path: Path) -> None:
    project(tmp_path, "postgresql")
    code = """
import signal, threading
from headrace.operate import replicas
tell = replicas.Replicas.state
def told(self, follower):
    tell(self, follower)
    if follower.state == "refused":
        signal.raise_signal(signal.SIGINT)
replicas.Replicas.state = told
"""
    status, said = without(("psycopg",), code + COMMAND, tmp_path, "run")
    assert not status, said
    fix = "install it: pip install 'headrace[postgresql]'"
    assert "replica 'copy' refused: a PostgreSQL replica needs 'psycopg" in said and f"(fix: {fix})" in said
    lines = (tmp_path / ".headrace" / "logs" / "headrace.log").read_text().splitlines()
    (line,) = [each for each in map(json.loads, lines) if each.get("state") == "refused"]
    assert line["fix"] == fix


@pytest.mark.slow
def test_lineage_that_names_a_database_asks_for_the_driver_of_the_database(tmp_path: Path) -> None:
    project(tmp_path, "postgresql")
    with (tmp_path / "headrace.toml").open("a") as file:
        file.write('telemetry.lineage = "http://localhost:1"\n')
    status, said = without(("psycopg",), COMMAND, tmp_path, "run", "--until-caught-up")
    assert status == 2, said
    assert "pip install 'headrace[postgresql]'" in said
    assert "headrace[telemetry]" not in said


@pytest.mark.slow
def test_a_package_of_an_extra_that_a_command_imports_unasked_is_no_bug(tmp_path: Path) -> None:
    project(tmp_path, "onnx")
    (tmp_path / "pipeline.py").write_text(PIPELINE)
    code = "def broken(*words, **options):\n    import deltalake\n"
    code += "import headrace.operate\nheadrace.operate.load_project = broken\n"
    status, said = without(("deltalake",), code + COMMAND, tmp_path, "run")
    assert status == 2
    assert "this needs 'deltalake', which is not installed" in said
    assert "pip install 'headrace[delta]'" in said
