"""The bytes that every case reads: commerce events, once in the embedded log and once for the peer.

A data set is a folder with `log.db` (what Headrace reads), `values.arrow` (what the peer reads: record time
and value, uncompressed) and `facts.json`. It is made once and kept; its name says everything that it
depends on. There are no malformed records in it, so that the peer needs no defence against them; late,
future, repeated and conflicting ones are.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy.typing as npt
import pyarrow as pa

from headrace.blueprints.commerce.generator import CommerceGenerator
from headrace.log import open_embedded_log

STREAM = "events"
PARTITIONS = 3
START = datetime(2026, 1, 1, tzinfo=UTC)
_PIECE = 50_000


@dataclass(frozen=True)
class DataSet:
    """`before` events fill the store untimed, `measured` ones are timed; `rate` spaces their record times."""

    measured: int
    before: int = 0
    rate: float = 14.0
    users: int = 10_000
    every_event_another_user: bool = False

    @property
    def name(self) -> str:
        return "-".join(str(part) for part in asdict(self).values())


class ScatteredUsers(CommerceGenerator):
    """Draws a user per event and not per session, so that few events reach many keys."""

    def _visits(self, step: float) -> npt.NDArray[Any]:
        visits = super()._visits(step)
        visits["user"] = self._random.integers(0, self.users, len(visits))
        return visits


def prepare(work: Path, data: DataSet) -> Path:
    """Return the folder of `data`, made now if it is not there."""
    folder = work / "data" / data.name
    if (folder / "facts.json").exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    kind = ScatteredUsers if data.every_event_another_user else CommerceGenerator
    generator = kind(seed=1, users=data.users, user_skew=0.5, malformed_share=0.0)
    log = open_embedded_log(folder / "log.db", STREAM, partitions=PARTITIONS)
    total, done, size = data.before + data.measured, 0, 0
    schema = pa.schema([("record_time", pa.timestamp("us", "UTC")), ("value", pa.binary())])
    writer = pa.ipc.new_file(str(folder / "values.arrow"), schema)
    with log.load(), writer:
        while done < total:
            # No piece lies on both sides of the border between what is timed and what is not.
            count = min(_PIECE, (data.before if done < data.before else total) - done)
            start = START + timedelta(seconds=done / data.rate)
            table = generator.batch(start, count, rate=data.rate)
            log.append(table)
            if done >= data.before:
                size += table["value"].nbytes
                writer.write_table(table.select(["record_time", "value"]).combine_chunks())
            done += count
    log.close()
    facts = {"data": asdict(data), "bytes_per_event": round(size / data.measured - 4, 1)}
    (folder / "facts.json").write_text(json.dumps(facts))
    return folder


def values(folder: Path) -> pa.Table:
    """Return the measured records for the peer: mapped, so that they come from the page cache."""
    return pa.ipc.open_file(pa.memory_map(str(folder / "values.arrow"))).read_all()


def checksum(table: pa.Table) -> str:
    """Return a text that is equal for tables with equal rows, whatever their order. Doubles are rounded."""
    import hashlib

    import duckdb

    con = duckdb.connect(config={"threads": 2})
    con.execute("SET TimeZone = 'UTC'")
    con.register("given", table)
    columns = []
    for field in table.schema:
        quoted = f'"{field.name}"'
        exact = not pa.types.is_floating(field.type)
        columns.append(f"CAST({quoted} AS VARCHAR)" if exact else f"printf('%.9g', {quoted})")
    listed = ", ".join(f"coalesce({column}, '~')" for column in columns)
    row = con.execute(
        f"SELECT count(*), coalesce(sum(CAST(hash({listed}) >> 8 AS HUGEINT)), 0) FROM given"
    ).fetchone()
    return f"{row[0]}:{hashlib.sha256(str(row[1]).encode()).hexdigest()[:16]}" if row else ""
