"""A replica of somebody else: installed beside Headrace, named in a profile, and filled by a run."""

from __future__ import annotations

import importlib
import re
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from headrace.errors import ProfileError
from headrace.log import APPEND_SCHEMA
from headrace.operate import Runtime, load_project, open_log
from headrace.replicate.kinds import replica_kinds

PAGE = Path(__file__).parents[2] / "docs" / "replicas.md"
PIPELINE = """
import headrace as hr

pipeline = hr.Pipeline("shop")
pipeline.stream("events", schema="id VARCHAR NOT NULL")
pipeline.table("counted", "SELECT count(*) AS n FROM events")
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of packages with the replica of the documentation, as `pip` would install it."""
    (code,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    site = tmp_path / "site"
    facts = site / "shelf-1.0.dist-info"
    facts.mkdir(parents=True)
    (site / "shelf.py").write_text(code)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: shelf\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("[headrace.replicas]\nshelf = shelf:ShelfReplica\n")
    monkeypatch.syspath_prepend(site)
    importlib.invalidate_caches()
    replica_kinds.cache_clear()
    yield site
    replica_kinds.cache_clear()
    sys.modules.pop("shelf", None)


def project_in(folder: Path, replica: str) -> Path:
    folder.mkdir()
    (folder / "pipeline.py").write_text(PIPELINE)
    (folder / "headrace.toml").write_text(
        f'[profiles.local]\npage.serve = "off"\nreplicas.copy = {replica}\n'
    )
    return folder


def test_a_run_fills_a_replica_that_is_installed_beside_headrace(installed: Path, tmp_path: Path) -> None:
    project = load_project(project_in(tmp_path / "shop", '{ kind = "shelf", shelf = "mine" }'))
    log = open_log(project, "events")
    log.append(pa.Table.from_pylist([{"value": b'{"id": "a"}'}], schema=APPEND_SCHEMA))
    log.close()
    runtime = Runtime.open(project)
    try:
        runtime.run(threading.Event(), until_caught_up=True)
    finally:
        runtime.close()
    (row,) = sys.modules["shelf"].SHELVES["mine"]["counted"]["rows"].values()
    assert row["n"] == 1


def test_a_word_that_is_nearly_its_kind_or_its_option_is_corrected(installed: Path, tmp_path: Path) -> None:
    for number, (replica, said) in enumerate(
        [('{ kind = "shlf" }', "did you mean 'shelf'"), ('{ kind = "shelf", shlef = "a" }', "'shelf'")]
    ):
        with pytest.raises(ProfileError) as raised:
            load_project(project_in(tmp_path / f"shop{number}", replica))
        assert said in str(raised.value)
