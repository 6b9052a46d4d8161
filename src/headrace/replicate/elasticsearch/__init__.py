"""Tables in Elasticsearch 7.10 or later, and in OpenSearch: an index per table, written by `_bulk`."""

# ruff: noqa: RUF009 - `setting` gives dataclasses.field(...), which is what a default of a dataclass may be

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from headrace.replicate.options import CommonOptions, Revealed, setting
from headrace.replicate.protocol import ReplicaWriter, Task

__all__ = ["ElasticsearchReplica"]


@dataclass(frozen=True, kw_only=True)
class ElasticsearchReplica(CommonOptions):
    """Keeps tables as indices. Connects only in `open`."""

    url: str = setting(
        "text",
        "",
        "where the server is: http://localhost:9200; several nodes with commas between, tried in turn",
        required=True,
    )
    user: str = setting("text", "", "the user, if the server asks for one")
    password: Revealed | None = setting("secret", None, "the user's password")
    api_key: Revealed | None = setting(
        "secret", None, "an API key in the place of user and password, as the server encoded it"
    )
    ca: str = setting("path", "", "a file with the certificates that the server's is checked against (PEM)")
    prefix: str = setting("text", "", "what the name of every index begins with")
    index_names: Mapping[str, str] | None = setting(
        "table of settings",
        None,
        "names of indices by table; nothing said: the table's, in small letters and with - for _",
    )
    data_streams: Mapping[str, str] | None = setting(
        "table of settings",
        None,
        'tables that are data streams, with mode = "append", and the column that gives each its @timestamp',
    )
    cursors: str = setting("text", ".headrace-cursors", "the index that holds how far each table was copied")
    number_of_shards: int = setting("whole number", 1, "shards of an index that is made")
    number_of_replicas: int | None = setting(
        "whole number", None, "copies of each shard of an index that is made; none: as the server does",
        at_least=0,
    )  # fmt: skip
    visible: str = setting(
        "one of",
        "later",
        "when searches see what was written: later: within the index's refresh_interval; wait: a chunk ends "
        "when they do; now: the index is refreshed at once, which costs the server much",
        choices={"later": "", "wait": "", "now": ""},
    )
    body_bytes: int = setting("size", 5_000_000, "about the size of one request of rows", at_least=10_000)
    timeout: timedelta = setting("duration", timedelta(seconds=60), "how long an answer may take")

    @property
    def json_nested(self) -> bool:
        """Lists and structs become JSON objects, with a mapping of their own."""
        return False

    @property
    def row_keys(self) -> bool:
        """Rows and cursor are not written at once here."""
        return True

    def open(self, task: Task) -> ReplicaWriter:
        """See `Replica`."""
        from headrace.replicate.elasticsearch.writer import ElasticsearchWriter

        return ElasticsearchWriter(self, task)
