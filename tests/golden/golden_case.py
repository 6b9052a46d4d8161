"""A golden case: a folder with `pipeline.py`, `oracle.py`, `input.ndjson` and `expected.json`.

`python tests/golden/golden_case.py NAME…` writes what the oracle expects into the folders named. Read the
difference before committing it: the file is what every engine is held to.
"""

from __future__ import annotations

import base64
import importlib.util
import json
import sys
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1] / "oracle"))

import canonical
from batch_oracle import Answer, answer
from oracle_model import Arrival

FOLDER = Path(__file__).parent / "cases"
NAMES = sorted(path.name for path in FOLDER.iterdir() if path.is_dir())


@dataclass(frozen=True)
class Case:
    """What a folder holds, read."""

    name: str
    arrivals: tuple[Arrival, ...]
    partitions: dict[str, int]

    @property
    def folder(self) -> Path:
        return FOLDER / self.name

    @property
    def expected(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "expected.json").read_text())
        return found

    def module(self, name: str) -> ModuleType:
        path = self.folder / f"{name}.py"
        spec = importlib.util.spec_from_file_location(f"golden_{self.name}_{name}", path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    def oracle_answer(self) -> dict[str, Any]:
        """What the oracle expects, in the form of `expected.json`."""
        oracle = self.module("oracle")
        return _written(answer(oracle.STREAMS, oracle.TABLES, self.arrivals), self.partitions)


def load_case(name: str) -> Case:
    """Read the folder `name`; offsets follow from the order of the lines."""
    ends: Counter[tuple[str, int]] = Counter()
    arrivals = []
    for line in (FOLDER / name / "input.ndjson").read_text().splitlines():
        entry = json.loads(line)
        place = (entry["stream"], entry["partition"])
        time = datetime.fromisoformat(entry["at"])
        arrivals.append(Arrival(*place, ends[place], time, value_bytes(entry["value"])))
        ends[place] += 1
    case = Case(name, tuple(arrivals), {})
    partitions = {stream.name: 1 for stream in case.module("oracle").STREAMS}
    for stream, partition in ends:
        partitions[stream] = max(partitions[stream], partition + 1)
    partitions |= getattr(case.module("oracle"), "PARTITIONS", {})
    return Case(name, tuple(arrivals), partitions)


def value_bytes(value: Any) -> bytes | None:
    """The bytes that a line's `value` stands for: raw text, `{"base64": …}`, null: none, else the object."""
    if value is None:
        return None
    if isinstance(value, str):
        return value.encode()
    if list(value) == ["base64"]:
        return base64.b64decode(value["base64"])
    return json.dumps(value, ensure_ascii=False).encode()


def _written(found: Answer, partitions: dict[str, int]) -> dict[str, Any]:
    streams: dict[str, Any] = {}
    for stream, count in partitions.items():
        ends = Counter(one.arrival.partition for one in found.judged if one.arrival.stream == stream)
        streams[stream] = {
            "ends": [ends[partition] for partition in range(count)],
            "outcomes": dict(sorted(found.outcomes(stream).items())),
            "late": [[partition, offset] for partition, offset, _, _ in found.addresses(stream, "late")],
            "dead": [
                [partition, offset, outcome, list(rules)]
                for partition, offset, outcome, rules in found.addresses(
                    stream, "malformed", "rejected", "future"
                )
            ],
        }
    counts: dict[str, Any] = {}
    for (table, _), one in found.table_counts.items():
        counts[table] = {name: one[name] for name in ("kept", "filtered", "failed")}
    tables = {name: canonical.rows(rows) for name, rows in found.tables.items()}
    return {"streams": streams, "table_counts": counts, "tables": tables}


def _text(expected: dict[str, Any]) -> str:
    """JSON with one row a line, so that a difference can be read."""
    lines = []
    for part, members in expected.items():
        inner = []
        for name, value in members.items():
            if isinstance(value, list) and value:
                rows = ",\n".join("      " + json.dumps(row, ensure_ascii=False) for row in value)
                inner.append(f"    {json.dumps(name)}: [\n{rows}\n    ]")
            else:
                inner.append(f"    {json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}")
        lines.append(f"  {json.dumps(part)}: {{\n" + ",\n".join(inner) + "\n  }")
    return "{\n" + ",\n".join(lines) + "\n}\n"


if __name__ == "__main__":
    for chosen in sys.argv[1:] or NAMES:
        case = load_case(chosen)
        (case.folder / "expected.json").write_text(_text(case.oracle_answer()))
        print(chosen)
