"""The Elasticsearch replica passes what every replica has to pass, on real servers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from search_target import SearchTarget

from headrace.testing.replicas import ReplicaConformance
from servers.elasticsearch import search_server


class TestElasticsearch(ReplicaConformance):
    @pytest.fixture
    def target(self, elasticsearch_server: str, request: pytest.FixtureRequest) -> Iterator[SearchTarget]:
        yield from own_or_shared(elasticsearch_server, "elasticsearch", request)


class TestOpenSearch(ReplicaConformance):
    @pytest.fixture
    def target(self, opensearch_server: str, request: pytest.FixtureRequest) -> Iterator[SearchTarget]:
        yield from own_or_shared(opensearch_server, "opensearch", request)


def own_or_shared(url: str, product: str, request: pytest.FixtureRequest) -> Iterator[SearchTarget]:
    if "target_that_is_down" in request.node.name:
        with search_server(product) as server:
            yield SearchTarget(server.url, server)
        return
    target = SearchTarget(url)
    yield target
    target.close()
