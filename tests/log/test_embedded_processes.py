"""Several processes with one log file: at once, killed, gone in the middle of a load."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import IO

import pytest
from conformance import NO_WAIT, column, read_all, records

from headrace.log import EmbeddedLog, open_embedded_log

pytestmark = pytest.mark.slow


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "log.db"


@pytest.fixture
def opened() -> Iterator[list[EmbeddedLog]]:
    logs: list[EmbeddedLog] = []
    yield logs
    for log in logs:
        log.close()


def in_process(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Run `code` in a process of its own; it tells things through its standard output."""
    prelude = """
        import sys, pyarrow as pa
        from pathlib import Path
        from headrace.log import open_embedded_log
    """
    text = textwrap.dedent(prelude) + textwrap.dedent(code)
    return subprocess.Popen(
        [sys.executable, "-u", "-c", text, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
        text=True,
    )


def told(process: subprocess.Popen[str]) -> str:
    output: IO[str] | None = process.stdout
    assert output is not None
    return output.readline().strip()


def finished(process: subprocess.Popen[str]) -> None:
    process.communicate(timeout=60)
    assert process.returncode == 0


APPEND_NUMBERS = """
    log = open_embedded_log(Path(sys.argv[1]), "events", partitions=3)
    name, count, size = sys.argv[2].encode(), int(sys.argv[3]), int(sys.argv[4])
    print("open")
    for batch in range(count):
        values = [b"%s-%d" % (name, batch * size + at) for at in range(size)]
        log.append(pa.table({"value": values, "key": [name] * size}))
    log.close()
"""


def test_processes_append_and_read_at_once(path: Path, opened: list[EmbeddedLog]) -> None:
    names = ("ann", "bob", "eve")
    processes = [in_process(APPEND_NUMBERS, path, name, 40, 25) for name in names]
    log = open_embedded_log(path, "events", partitions=3)
    opened.append(log)
    positions: dict[int, int] = {}
    found: list[bytes] = []
    deadline = time.monotonic() + 60
    while len(found) < 3000 and time.monotonic() < deadline:
        given = log.read(positions, rows_max=100, bytes_max=1 << 20, wait=timedelta(seconds=1))
        positions = dict(given.next)
        found += column(given.records.sort_by([("partition", "ascending"), ("offset", "ascending")]), "value")
    for process in processes:
        finished(process)
    for name in names:
        own = [value for value in found if value.startswith(name.encode())]
        assert own == [b"%s-%d" % (name.encode(), at) for at in range(1000)]
    assert sum(held.end for held in log.partitions()) == 3000


def test_a_process_that_is_killed_while_appending_leaves_whole_appends(
    path: Path, opened: list[EmbeddedLog]
) -> None:
    log = open_embedded_log(path, "events", partitions=3)
    opened.append(log)
    whole = 0
    for round_ in range(3):
        process = in_process(APPEND_NUMBERS, path, f"round{round_}", 1_000_000, 400)
        assert told(process) == "open"
        before = sum(held.end for held in log.partitions())
        given = log.read(
            {held.partition: held.end for held in log.partitions()},
            rows_max=1 + round_ * 900,
            bytes_max=1 << 30,
            wait=timedelta(seconds=60),
        )
        assert given.records.num_rows
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        whole = sum(held.end for held in log.partitions())
        assert whole > before
        assert whole % 400 == 0
    assert read_all(log, rows_max=50_000).num_rows == whole
    log.append(records(b"still takes records"))


def test_a_load_ends_when_its_process_dies(path: Path, opened: list[EmbeddedLog]) -> None:
    log = open_embedded_log(path, "events")
    opened.append(log)

    def idle() -> bool:
        return bool(log.read({}, rows_max=1, bytes_max=1, wait=NO_WAIT).idle_since)

    loader = in_process(
        """
        log = open_embedded_log(Path(sys.argv[1]), "events")
        with log.load():
            print("loading")
            sys.stdin.readline()
        """,
        path,
    )
    assert told(loader) == "loading"
    assert not idle()
    with log.load():
        loader.send_signal(signal.SIGKILL)
        loader.communicate(timeout=60)
        assert not idle()  # another load still goes on
    assert idle()
    assert list(path.parent.glob("*.load-*"))
    log.retain()
    assert not list(path.parent.glob("*.load-*"))
