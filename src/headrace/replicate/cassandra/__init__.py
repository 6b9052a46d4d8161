"""Tables in Cassandra 4 or later, and what speaks its protocol: prepared upserts with timestamps of ours."""

# ruff: noqa: RUF009 - `setting` gives dataclasses.field(...), which is what a default of a dataclass may be

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from headrace.errors import ProfileError
from headrace.replicate.options import CommonOptions, Revealed, setting
from headrace.replicate.protocol import ReplicaWriter, Task

__all__ = ["CassandraReplica"]

_LEVELS = ("ONE", "TWO", "THREE", "QUORUM", "ALL", "LOCAL_QUORUM", "EACH_QUORUM", "LOCAL_ONE")


@dataclass(frozen=True, kw_only=True)
class CassandraReplica(CommonOptions):
    """Keeps tables in a keyspace of Cassandra. Connects only in `open`."""

    hosts: str = setting(
        "text",
        "",
        "where nodes are: `host:port`, several with commas; port 9042 if none is said",
        required=True,
    )
    keyspace: str = setting("text", "", "the keyspace that holds the tables; made when absent", required=True)
    replication_factor: int | None = setting(
        "whole number", None, "on how many nodes a new keyspace is kept (SimpleStrategy); none: 1"
    )
    datacenters: Mapping[str, str] | None = setting(
        "table of settings",
        None,
        "how many copies each datacenter keeps (NetworkTopologyStrategy), instead of replication_factor",
    )
    local_datacenter: str | None = setting(
        "text", None, "the datacenter whose nodes are asked; none: all nodes are"
    )
    consistency: str = setting(
        "one of",
        "LOCAL_QUORUM",
        "how many copies have to confirm a write",
        choices=dict.fromkeys(_LEVELS, ""),
    )
    keys: Mapping[str, str] | None = setting(
        "table of settings",
        None,
        'primary keys by table: "country / registered DESC, id" is partition key / clustering columns; '
        "a table that is not named is partitioned by its whole key",
    )
    columns: str = setting(
        "one of",
        "typed",
        "typed: columns have Cassandra's types; text: every column of the tables is TEXT",
        choices={"typed": "", "text": ""},
    )
    user: str | None = setting("text", None, "who signs in; none: nobody has to")
    password: Revealed | None = setting("secret", None, "the user's password")
    tls: str = setting("one of", "no", "whether connections are encrypted", choices={"no": "", "yes": ""})
    ca: str | None = setting(
        "path",
        None,
        "the certificates to trust (PEM); none: the system's, and then a node's has to hold its address",
    )
    concurrency: int = setting(
        "whole number", 128, "how many writes are under way at once; rows of one partition may be one write"
    )
    connect_timeout: timedelta = setting(
        "duration", timedelta(seconds=5), "how long a connection may take to come about"
    )
    request_timeout: timedelta = setting("duration", timedelta(seconds=10), "how long an answer may take")

    @property
    def row_keys(self) -> bool:
        """Whether rows without a key come with a `_key`: they do, because a chunk may come again."""
        return True

    def open(self, task: Task) -> ReplicaWriter:
        """See `Replica`."""
        try:
            from headrace.replicate.cassandra.writer import CassandraWriter
        except ImportError as error:
            raise ProfileError(
                f"a Cassandra replica needs '{error.name}', which is not installed",
                fix="install it: pip install 'headrace[cassandra]'",
            ) from error
        return CassandraWriter(self, task)
