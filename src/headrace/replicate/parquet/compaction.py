"""Puts small files of a folder together, a bounded piece of work after each write.

Files are put together with files of about their size, so that a row is written again a few times at most,
however many small files come; and once nothing came into a folder for a while, all that is left of them.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from headrace.replicate.parquet.datafiles import (
    COMPRESSION,
    Source,
    aligned,
    file_name,
    read_rows,
    read_schema,
)
from headrace.replicate.parquet.manifest import DataFile, Manifest
from headrace.replicate.parquet.table_files import TableFiles

__all__ = ["choose", "put_together"]

_TOGETHER = 8
_TIER_BITS = 3
_QUIET_COMMITS = 32
_ROW_GROUP_BYTES = 128_000_000


def choose(manifest: Manifest, file_bytes: int) -> list[list[str]]:
    """Return which files to put together: lists of files of one folder, of about `file_bytes` in all."""
    folders: dict[str, list[str]] = {}
    for name, facts in manifest.files.items():
        if facts.bytes < file_bytes // 2:
            folders.setdefault(str(Path(name).parent), []).append(name)
    chosen, total = [], 0
    for names in folders.values():
        if total >= file_bytes:
            break
        some = _choose_in(manifest, names, file_bytes)
        if len(some) > 1:
            chosen.append(some)
            total += sum(manifest.files[name].bytes for name in some)
    return chosen


def _choose_in(manifest: Manifest, names: list[str], file_bytes: int) -> list[str]:
    quiet = manifest.commit - max(manifest.files[name].commit for name in names) >= _QUIET_COMMITS
    tiers: dict[int, list[str]] = {}
    for name in names:
        tier = 0 if quiet else manifest.files[name].bytes.bit_length() // _TIER_BITS
        tiers.setdefault(tier, []).append(name)
    for tier in sorted(tiers):
        if quiet or len(tiers[tier]) >= _TOGETHER:
            return _up_to(manifest, sorted(tiers[tier]), file_bytes)
    return []


def _up_to(manifest: Manifest, names: list[str], file_bytes: int) -> list[str]:
    some: list[str] = []
    total = 0
    for name in names:
        total += manifest.files[name].bytes
        if some and total > file_bytes:
            break
        some.append(name)
    return some


def put_together(tree: TableFiles, manifest: Manifest, chosen: list[list[str]]) -> Manifest:
    """Stage one file in the place of each list of files, and return the manifest with them."""
    following = manifest.following()
    staged = tree.stage(following.commit)
    gone = {name for names in chosen for name in names}
    files = {name: facts for name, facts in manifest.files.items() if name not in gone}
    for number, names in enumerate(chosen):
        folder = Path(names[0]).parent
        (staged / folder).mkdir(parents=True, exist_ok=True)
        tree.keep(staged, (name for name in files if Path(name).parent == folder))
        facts = [manifest.files[name] for name in names]
        lowest, highest = min(each.lowest for each in facts), max(each.highest for each in facts)
        name = str(folder / file_name(lowest, highest, following.commit, number, tree.mark))
        size = _write([tree.source(each) for each in names], staged / name)
        newest = max(each.commit for each in facts)
        files[name] = DataFile(sum(each.rows for each in facts), size, lowest, highest, newest)
    return following.replaced(files)


def _write(small: list[Source], target: Path) -> int:
    schema = pa.unify_schemas([read_schema(each) for each in reversed(small)])
    waiting: list[pa.Table] = []
    with pq.ParquetWriter(target, schema, compression=COMPRESSION) as writer:
        for each in small:
            waiting.append(aligned(read_rows(each), schema))
            if sum(rows.nbytes for rows in waiting) >= _ROW_GROUP_BYTES:
                writer.write_table(pa.concat_tables(waiting))
                waiting = []
        if waiting:
            writer.write_table(pa.concat_tables(waiting))
    return target.stat().st_size
