"""The client's own parallel bulk helper, in an environment of its own: rows of a file into an index.

`run_parallel_bulk.py PRODUCT URL INDEX FILE` prints the seconds. Rows are read and made into actions before
the clock starts; the number of threads and the size of a request are the best of what was tried by hand.
"""

from __future__ import annotations

import json
import sys
import time
from collections import deque
from pathlib import Path

THREADS, ACTIONS, QUEUED = 4, 2_000, 8


def main() -> None:
    product, url, index, file = sys.argv[1:]
    if product == "opensearch":
        from opensearchpy import OpenSearch as Client
        from opensearchpy.helpers import parallel_bulk
    else:
        from elasticsearch import Elasticsearch as Client
        from elasticsearch.helpers import parallel_bulk

    actions = [
        {"_op_type": "index", "_index": index, "_id": f"[{row['id']}]", "version": row["_headrace_version"],
         "version_type": "external_gte", "_source": row}
        for row in map(json.loads, Path(file).read_text().splitlines())
    ]  # fmt: skip
    client = Client([url], timeout=120, maxsize=THREADS)
    began = time.perf_counter()
    deque(
        parallel_bulk(client, actions, thread_count=THREADS, chunk_size=ACTIONS, queue_size=QUEUED), maxlen=0
    )
    print(time.perf_counter() - began)


if __name__ == "__main__":
    main()
