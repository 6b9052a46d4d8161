"""What can be asked of a project, running or stopped: one set of answers, given in two places.

A running pipeline's process holds the store, so it answers over its socket; of a stopped one, the process
that asks opens the store read-only and answers itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from headrace.errors import RefusedError
from headrace.operate.lag import add_lag, throughput

if TYPE_CHECKING:
    import pyarrow as pa

    from headrace.log import Log
    from headrace.operate.control import Handler
    from headrace.store import Ledger, StoreStatus

__all__ = ["ROWS_MAX", "SECONDS_MAX", "Answers", "Readable", "ledger_document"]

ROWS_MAX = 1_000_000
SECONDS_MAX = 60.0
_LETTER_COLUMNS = ("stream", "lane", "partition", "offset", "bytes")
"""What is asked of dead letters alone where there are many: where each lies, and how large it is."""


class Readable(Protocol):
    """What the opened store and the read-only store have in common."""

    def query(self, sql: str, *, rows_max: int | None = None, seconds_max: float = 5.0) -> pa.Table:
        """Run one reading query and end its transaction."""

    def ledger(self) -> Ledger:
        """Return what became of every record."""

    def status_and_ledger(self) -> tuple[StoreStatus, Ledger]:
        """Return where the store stands and what became of every record, both as of the same epoch."""

    def dead_letters(
        self,
        *,
        stream: str | None = None,
        outcome: str | None = None,
        rule: str | None = None,
        limit: int = 100,
        after: tuple[str, str, int, int] | None = None,
        addresses: Sequence[tuple[str, str, int, int]] | None = None,
        waiting: bool = False,
        first_rule: str | None = None,
        columns: Sequence[str] = (),
    ) -> pa.Table:
        """Return records that were set aside."""


class Answers:
    """Answers from a store and the logs of its streams."""

    def __init__(
        self,
        store: Readable,
        logs: Callable[[str], Log | None],
        *,
        running: bool,
        replicas: Callable[[], list[dict[str, Any]]] = list,
        letters: Callable[[], list[dict[str, Any]]] = list,
        alerts: Callable[[], list[dict[str, Any]]] = list,
        spark: Callable[[], dict[str, Any] | None] = lambda: None,
        telemetry: Callable[[], list[dict[str, Any]]] = list,
    ) -> None:
        self._store = store
        self._logs = logs
        self._running = running
        self._replicas = replicas
        self._letters = letters
        self._alerts = alerts
        self._spark = spark
        self._telemetry = telemetry
        self.waiting = ""
        """What a run waits for before it can go on; empty while it works."""
        self.awaits = ""
        """What else there is to wait for, as `status` says it; `spark` holds until Spark tells something."""

    def query(self, sql: str, *, rows_max: int, seconds_max: float) -> pa.Table:
        """Return the rows of a reading query; more than `rows_max` rows are cut off."""
        return self._store.query(
            sql, rows_max=min(rows_max, ROWS_MAX), seconds_max=min(seconds_max, SECONDS_MAX)
        )

    def ledger(self) -> dict[str, Any]:
        """Return the ledger as plain values, see `ledger_document`."""
        return ledger_document(self._store.ledger())

    def status(self) -> dict[str, Any]:
        """Return where everything stands, as plain values.

        `waiting` says in words which system does not answer. `awaits` is `spark` before the first micro-batch
        of a run, `replicas` when all is read and it ends once they have it, and empty otherwise.
        """
        status, outcomes = self._store.status_and_ledger()
        document = status.to_json()
        streams: dict[str, Any] = {}
        for line in document["partitions"]:
            stream = streams.setdefault(
                line["stream"], {"outcomes": outcomes.outcomes(line["stream"]), "partitions": []}
            )
            stream["partitions"].append({k: v for k, v in line.items() if k != "stream"})
        problem = add_lag(streams, self._logs)
        spark, waiting, awaits = self._spark(), self.waiting, self.awaits
        rebuilding = any(table.get("rebuilding") for table in document["tables"])
        if waiting or (awaits == "spark" and (spark is not None or rebuilding)):
            awaits = ""
        return {
            "running": self._running,
            "waiting": waiting,
            "awaits": awaits,
            "log_problem": problem,
            "throughput": throughput(self._store, datetime.now(UTC) if self._running else None),
            "epoch": document["epoch"],
            "store_id": document["store_id"],
            "state_bytes": document["state_bytes"],
            "streams": streams,
            "tables": document["tables"],
            "replicas": self._replicas(),
            "dead_letter_topics": self._letters(),
            "spark": spark,
            "telemetry": self._telemetry(),
            "alerts": [one for one in self._alerts() if one["state"] in ("pending", "firing")],
        }

    def dead_letters(
        self,
        *,
        stream: str | None = None,
        outcome: str | None = None,
        rule: str | None = None,
        first_rule: str | None = None,
        limit: int = 100,
        after: tuple[str, str, int, int] | None = None,
        addresses: Sequence[tuple[str, str, int, int]] | None = None,
        waiting: bool = False,
        columns: Sequence[str] = (),
    ) -> pa.Table:
        """Return dead letters, in the store's order; with `addresses`, those only; the others: see there."""
        return self._store.dead_letters(
            stream=stream,
            outcome=outcome,
            rule=rule,
            first_rule=first_rule,
            limit=min(limit, ROWS_MAX),
            after=after,
            addresses=addresses,
            waiting=waiting,
            columns=columns,
        )

    def handlers(self) -> dict[str, Handler]:
        """Return what a control server needs to give these answers."""

        def query(request: Mapping[str, Any]) -> pa.Table:
            return self.query(
                _text(request, "sql"),
                rows_max=_whole(request, "rows_max", 10_000),
                seconds_max=_number(request, "seconds_max", 5),
            )

        def dead_letters(request: Mapping[str, Any]) -> pa.Table:
            names = ("stream", "outcome", "rule", "first_rule")
            after = None if request.get("after") is None else _addresses({"addresses": [request["after"]]})
            return self.dead_letters(
                **{name: _optional_text(request, name) for name in names},
                limit=_whole(request, "limit", 100),
                after=after[0] if after else None,
                addresses=_addresses(request),
                waiting=request.get("waiting") is True,
                columns=_columns(request),
            )

        return {
            "query": query,
            "ledger": lambda request: self.ledger(),
            "status": lambda request: self.status(),
            "dead_letters": dead_letters,
        }


def ledger_document(ledger: Ledger) -> dict[str, Any]:
    """Return the ledger as plain values: per stream `read` and a count per outcome, and the balance."""
    document = ledger.to_json()
    streams = sorted({line.stream for line in ledger.lanes})
    return {
        "balanced": ledger.balanced,
        "epoch": ledger.epoch,
        "streams": {name: {"read": ledger.read(name), "outcomes": ledger.outcomes(name)} for name in streams},
        "tables": document["tables"],
        "lanes": document["lanes"],
    }


def _text(request: Mapping[str, Any], name: str) -> str:
    value = request.get(name)
    if not isinstance(value, str):
        raise RefusedError(f"the request needs a text '{name}'")
    return value


def _optional_text(request: Mapping[str, Any], name: str) -> str | None:
    value = request.get(name)
    if value is not None and not isinstance(value, str):
        raise RefusedError(f"'{name}' of the request is not a text")
    return value


def _addresses(request: Mapping[str, Any]) -> list[tuple[str, str, int, int]] | None:
    value = request.get("addresses")
    if value is None:
        return None
    try:
        found = [(str(stream), str(lane), int(at), int(offset)) for stream, lane, at, offset in value]
    except (TypeError, ValueError):
        raise RefusedError("'addresses' of the request is not a list of addresses") from None
    if any(not 0 <= at < 2**31 or not 0 <= offset < 2**63 for _, _, at, offset in found):
        raise RefusedError("'addresses' of the request names a place that no log has")
    return found


def _columns(request: Mapping[str, Any]) -> list[str]:
    value = request.get("columns") or []
    if not isinstance(value, list) or not all(each in _LETTER_COLUMNS for each in value):
        raise RefusedError("'columns' of the request is not a list of columns of a dead letter")
    return value


def _number(request: Mapping[str, Any], name: str, default: float) -> float:
    value = request.get(name, default)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < math.inf:
        raise RefusedError(f"'{name}' of the request is not a positive number")
    return float(value)


def _whole(request: Mapping[str, Any], name: str, default: int) -> int:
    value = _number(request, name, default)
    if value < 1:
        raise RefusedError(f"'{name}' of the request is less than one")
    return int(value)
