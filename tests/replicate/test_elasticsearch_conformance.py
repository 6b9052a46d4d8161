"""The Elasticsearch replica passes what every replica has to pass, on real servers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from search_target import SearchTarget

from headrace.testing.replica_writes import WriterConformance
from headrace.testing.replicas import ReplicaConformance, ReplicaTarget
from servers.elasticsearch import search_server


class TestElasticsearch(ReplicaConformance):
    @pytest.fixture
    def target(self, elasticsearch_server: str, request: pytest.FixtureRequest) -> Iterator[SearchTarget]:
        yield from own_or_shared(elasticsearch_server, "elasticsearch", request)

    @pytest.mark.soak
    def test_a_hundred_thousand_rows_are_caught_up_in_bounded_chunks(
        self, target: ReplicaTarget, tmp_path: Path
    ) -> None:
        super().test_a_hundred_thousand_rows_are_caught_up_in_bounded_chunks(target, tmp_path)


class TestOpenSearchWriter(WriterConformance):
    """The rules of the writer; all the others, which run a pipeline each, are left to the long round."""

    @pytest.fixture
    def target(self, opensearch_server: str, request: pytest.FixtureRequest) -> Iterator[SearchTarget]:
        yield from own_or_shared(opensearch_server, "opensearch", request)


@pytest.mark.soak
class TestOpenSearch(ReplicaConformance):
    @pytest.fixture
    def target(self, opensearch_server: str, request: pytest.FixtureRequest) -> Iterator[SearchTarget]:
        yield from own_or_shared(opensearch_server, "opensearch", request)


def own_or_shared(url: str, product: str, request: pytest.FixtureRequest) -> Iterator[SearchTarget]:
    if "target_that_is_down" in request.node.name:
        with search_server(product) as server:
            target = SearchTarget(server.url, server)
            yield target
            target.close()
        return
    target = SearchTarget(url)
    yield target
    target.close()
