"""Elasticsearch and OpenSearch against the parallel bulk helper of each one's own client."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from bench.kafka.peers import program_of
from bench.replicas.case import Case, Sizes, search_server
from bench.replicas.rows import SHAPE, chunks, require, through_replica

HERE = Path(__file__).parent
_RUN_S_MAX = 1_800


@contextmanager
def bulk(sizes: Sizes, product: str) -> Iterator[Case]:
    """New documents in an index that the replica has made, with ids and external versions."""
    from headrace.replicate.elasticsearch import ElasticsearchReplica

    python = program_of(product, HERE / "requirements" / f"{product}.txt")
    tables = chunks(sizes.rows, sizes.search_chunk)
    with search_server(product) as url, tempfile.TemporaryDirectory() as folder:
        options = ElasticsearchReplica(kind=product, url=url)
        index = SHAPE.name.replace("_", "-")
        file = Path(folder) / "rows.ndjson"
        with file.open("w") as lines:
            for table in tables:
                for row in table.to_pylist():
                    row["seen"] = row["seen"].isoformat()
                    row["_headrace_version"] = row.pop("_version")
                    lines.write(json.dumps(row) + "\n")

        def prepared() -> None:
            for name in (index, options.cursors):
                httpx.delete(f"{url}/{name}", timeout=60)
            through_replica(options, [])

        def checked(who: str) -> None:
            httpx.post(f"{url}/{index}/_refresh", timeout=120).raise_for_status()
            require(httpx.get(f"{url}/{index}/_count", timeout=60).json()["count"], sizes.rows, who)

        def helper() -> float:
            prepared()
            words = [python, str(HERE / "run_parallel_bulk.py"), product, url, index, str(file)]
            done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=_RUN_S_MAX)
            if done.returncode:
                raise RuntimeError(done.stderr[-2_000:])
            checked("parallel_bulk")
            return float(done.stdout)

        def ours() -> float:
            prepared()
            seconds = through_replica(options, tables)
            checked("headrace")
            return seconds

        title = {"elasticsearch": "Elasticsearch", "opensearch": "OpenSearch"}[product]
        yield Case(f"{title} bulk", 0.8, {"parallel_bulk": helper, "headrace": ours}, sizes.rows)
