"""Indices of Elasticsearch or OpenSearch that the tests run against, read with a client of their own."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from decimal import Decimal
from typing import Any

import httpx
import pytest

from headrace.replicate.elasticsearch import ElasticsearchReplica
from headrace.replicate.elasticsearch.mapping import index_names
from headrace.replicate.protocol import TableShape
from servers.elasticsearch import SearchServer

__all__ = ["SearchTarget"]


class SearchTarget:
    """Indices that begin with a random word; `server` is one that the test may stop."""

    def __init__(self, url: str, server: SearchServer | None = None) -> None:
        self.url = url
        self.server = server
        self.prefix = f"t{uuid.uuid4().hex[:10]}-"
        self.http = httpx.Client(base_url=url, timeout=60)

    def replica(self, **options: Any) -> ElasticsearchReplica:
        given = {
            "url": self.url,
            "kind": "elasticsearch",
            "prefix": self.prefix,
            "cursors": f".{self.prefix}cursors",
            **options,
        }
        return ElasticsearchReplica(**given)

    def index(self, table: str) -> str:
        return index_names(self.replica(), (TableShape(name=table, columns=(), key=()),), "copy")[table]

    def rows(self, table: str) -> list[dict[str, Any]]:
        """Every document, with its types as the mapping says and all columns in each."""
        index = self.index(table)
        if self.http.post(f"/{index}/_refresh").status_code == 404:
            return []
        mappings = self.http.get(f"/{index}/_mapping").json()
        fields = mappings[max(mappings)]["mappings"]["properties"]  # a stream's last one has every column
        found: list[dict[str, Any]] = []
        for document in self._documents(index):
            row = dict.fromkeys(fields) | document
            row.pop("@timestamp", None)  # which only data streams have
            found.append({name: _typed(value, fields[name]) for name, value in row.items()})
        return found

    def _documents(self, index: str) -> Iterator[dict[str, Any]]:
        import json

        page = self.http.post(f"/{index}/_search", params={"scroll": "1m"}, json={"size": 10_000})
        while True:
            body = json.loads(page.text, parse_float=Decimal)
            hits = body["hits"]["hits"]
            if not hits:
                self.http.request("DELETE", "/_search/scroll", json={"scroll_id": body["_scroll_id"]})
                return
            yield from (hit["_source"] for hit in hits)
            page = self.http.post("/_search/scroll", json={"scroll": "1m", "scroll_id": body["_scroll_id"]})

    def refuse(self, table: str) -> bool:
        """An ingest pipeline of the index's own says no."""
        index = self.index(table)
        failing = {"fail": {"if": "ctx.n == 13", "message": "an unlucky number"}}
        self._done(self.http.put(f"/_ingest/pipeline/{index}", json={"processors": [failing]}))
        settings = {"index": {"default_pipeline": index}}
        self._done(self.http.put(f"/{index}/_settings", json=settings))
        return True

    def differ(self, table: str) -> None:
        index = self.index(table)
        self._done(self.http.delete(f"/{index}"))
        self._done(self.http.put(f"/{index}", json={"mappings": {"properties": {"n": {"type": "keyword"}}}}))

    def full(self) -> AbstractContextManager[None]:
        """What a server does when its disk is full."""
        return self._blocked_by("read_only_allow_delete")

    def read_only(self) -> AbstractContextManager[None]:
        return self._blocked_by("read_only")

    @contextmanager
    def _blocked_by(self, name: str) -> Iterator[None]:
        def block(value: bool | None) -> None:
            indices = f"{self.prefix}*,.{self.prefix}cursors"
            self._done(self.http.put(f"/{indices}/_settings", json={"index.blocks": {name: value}}))

        block(True)
        try:
            yield
        finally:
            block(None)

    @contextmanager
    def outage(self) -> Iterator[None]:
        if self.server is None:
            pytest.skip("the server is shared")
        self.server.kill()
        try:
            yield
        finally:
            self.server.start()

    def close(self) -> None:
        """Take everything out of the server again."""
        self.http.delete(f"/_data_stream/{self.prefix}*")
        self.http.delete(f"/_index_template/headrace-{self.prefix}*")
        self.http.delete(f"/{self.prefix}*")
        self.http.delete(f"/.{self.prefix}cursors")
        self.http.delete(f"/_ingest/pipeline/{self.prefix}*")
        self.http.close()

    def _done(self, response: httpx.Response) -> None:
        assert response.status_code == 200, response.text


def _typed(value: Any, field: dict[str, Any]) -> Any:
    """JSON has no instants: the field's type says what a text is."""
    if isinstance(value, Decimal) and "meta" not in field:
        return float(value)
    if isinstance(value, str) and field.get("type") == "date":
        return datetime.fromisoformat(value)
    if isinstance(value, dict) and "properties" in field:
        return {name: _typed(each, field["properties"][name]) for name, each in value.items()}
    return value
