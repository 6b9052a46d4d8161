"""The replica that the documentation writes is one: it passes the rules of a writer, and of a follower."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from headrace.testing.replica_writes import WriterConformance
from headrace.testing.replicas import ReplicaConformance

PAGE = Path(__file__).parents[2] / "docs" / "replicas.md"


class ShelfTarget:
    def __init__(self, module: ModuleType) -> None:
        self.module = module

    def replica(self, **options: Any) -> Any:
        return self.module.ShelfReplica(kind="shelf", shelf="tests", **options)

    def rows(self, table: str) -> list[dict[str, Any]]:
        return list(self.module.SHELVES.get("tests", {}).get(table, {"rows": {}})["rows"].values())

    def refuse(self, table: str) -> bool:
        return False

    @contextmanager
    def outage(self) -> Iterator[None]:
        pytest.skip("a shelf is never down")
        yield


@pytest.fixture
def target() -> Iterator[ShelfTarget]:
    (code,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    module = sys.modules["shelf"] = ModuleType("shelf")
    exec(compile(code, str(PAGE), "exec"), module.__dict__)
    yield ShelfTarget(module)
    del sys.modules["shelf"]


class TestShelf(WriterConformance):
    test_a_column_of_another_type_is_refused_with_what_to_do = None  # a shelf has no types


@pytest.mark.soak  # a pipeline for each rule
class TestShelfBesideAPipeline(ReplicaConformance):
    test_a_column_of_another_type_is_refused_with_what_to_do = None
