"""Files of a warehouse grow up to the size that the profile says, and are left alone from then on."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path

import pytest
from targets import DeltaTarget, ParquetTarget

from headrace.replicate.delta import writer as of_delta
from headrace.testing.replica_writes import FIRST, THINGS, chunk, opened, thing

TARGET = 60_000
EPOCHS = 80
ROWS = 4


def parquet_files(target: ParquetTarget) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in target.folder.rglob("*.parquet")}


def delta_files(target: DeltaTarget) -> dict[str, int]:
    found = target.table(THINGS.name).get_add_actions(flatten=True)
    names, sizes = (found.column(name).to_pylist() for name in ("path", "size_bytes"))
    return dict(zip(names, sizes, strict=True))


Target = DeltaTarget | ParquetTarget
KINDS: dict[str, tuple[Callable[[Path], Target], Callable[..., dict[str, int]]]] = {
    "parquet": (ParquetTarget, parquet_files),
    "delta": (lambda folder: DeltaTarget(str(folder)), delta_files),
}


@pytest.mark.parametrize("kind", KINDS)
def test_files_grow_to_the_size_that_is_asked_for_and_no_further(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(of_delta, "_COMPACT_EVERY", 4)
    made, files_of = KINDS[kind]
    target = made(tmp_path / "lake")
    whole: set[str] = set()
    with opened(target, mode="append", file_bytes=TARGET) as writer:
        writer.take(THINGS.name, None, FIRST)
        for epoch in range(1, EPOCHS + 1):
            rows = [thing(f"{epoch}-{i}", i, secrets.token_hex(600), epoch=epoch) for i in range(ROWS)]
            writer.write(chunk(rows, epoch=epoch))
            files = files_of(target)
            if kind == "parquet":  # Delta's own library chooses by what still fits beside a file
                assert whole <= files.keys(), "a file that was large enough was written again"
                whole |= {name for name, size in files.items() if size > TARGET / 2}
    assert len(target.rows(THINGS.name)) == EPOCHS * ROWS
    assert sum(files.values()) > 3 * TARGET
    assert max(files.values()) <= TARGET * 1.1
    assert max(files.values()) > TARGET / 2, "small files were not put together"
    assert len(files) <= 2 * sum(files.values()) / TARGET + 8
