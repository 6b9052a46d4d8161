"""`connect`: asks a project's store, whether its pipeline runs or not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from headrace.errors import RefusedError
from headrace.operate.answers import SECONDS_MAX, Answers
from headrace.operate.control import ask
from headrace.operate.lag import LogsForQuestions
from headrace.operate.last_run import how_ended
from headrace.operate.profiles import DEFAULT_PROFILE
from headrace.operate.project import Home
from headrace.operate.replicas import replica_states, tell_stopped

if TYPE_CHECKING:
    import pyarrow as pa

    from headrace.store import ReadStore

__all__ = ["StoreClient", "connect", "is_running", "running_process", "tell_replica"]

_ANSWER_S = 15.0


class StoreClient(Protocol):
    """Answers about a project; the same ones from a running pipeline and from a stopped one."""

    running: bool
    profile: str
    """The profile of the run that answers, whichever was asked for; of a stopped pipeline, the latter."""

    def query(self, sql: str, *, rows_max: int = 10_000, seconds_max: float = 5.0) -> pa.Table:
        """Return the rows of one reading query, cut off after `rows_max`; wrong SQL is a RefusedError."""

    def ledger(self) -> dict[str, Any]:
        """Return what became of every record, as plain values, and `profile`."""

    def status(self) -> dict[str, Any]:
        """Return positions, lag, frontiers, outcomes and tables, as plain values, `profile` and `ended`.

        `ended` says how the last run of a stopped pipeline did, see `how_ended`.
        """

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
        """Return records that were set aside; with `addresses`, of those only; see the store's."""

    def close(self) -> None:
        """Give back files."""


def running_process(home: Home) -> dict[str, Any] | None:
    """Return what `run.json` says (pid, socket, profile, started), or None."""
    try:
        facts = json.loads(home.run_path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    usable = (
        isinstance(facts, dict) and isinstance(facts.get("socket"), str) and isinstance(facts.get("pid"), int)
    )
    return facts if usable else None


def is_running(home: Home) -> bool:
    """Return whether a process answers for this project; what a killed one left behind does not."""
    facts = running_process(home)
    if facts is None:
        return False
    try:
        ask(Path(facts["socket"]), "hello", timeout_s=_ANSWER_S)
    except OSError:
        return False
    return True


def connect(home: Home) -> StoreClient:
    """Return a client of the project's running pipeline, or else of its store, opened read-only.

    Raises RefusedError when there is no store yet, or another process holds it without answering.
    """
    facts = running_process(home)
    if facts is not None and is_running(home):
        return _RunningClient(Path(facts["socket"]), str(facts.get("profile", "")))
    if not home.store_path.exists():
        raise RefusedError(f"nothing has run in {home.folder} yet: there is no store", fix=_run_it(home))
    return _StoppedClient(home)


def tell_replica(home: Home, name: str, action: str) -> bool:
    """Pause, resume, adopt or rebuild a replica; return whether a pipeline is running that was told.

    Raises ProfileError for a name that the profile does not have.
    """
    facts = running_process(home)
    if facts is not None and is_running(home):
        ask(Path(facts["socket"]), "replicas", timeout_s=_ANSWER_S, replica=name, action=action)
        return True
    tell_stopped(home, name, action)
    return False


class _RunningClient:
    running = True

    def __init__(self, socket: Path, profile: str) -> None:
        self._socket = socket
        self.profile = profile

    def query(self, sql: str, *, rows_max: int = 10_000, seconds_max: float = 5.0) -> pa.Table:
        patience = min(seconds_max, SECONDS_MAX) + _ANSWER_S
        answer: pa.Table = ask(
            self._socket, "query", timeout_s=patience, sql=sql, rows_max=rows_max, seconds_max=seconds_max
        )
        return answer

    def ledger(self) -> dict[str, Any]:
        answer: dict[str, Any] = ask(self._socket, "ledger", timeout_s=_ANSWER_S)
        return {"profile": self.profile, **answer}

    def status(self) -> dict[str, Any]:
        answer: dict[str, Any] = ask(self._socket, "status", timeout_s=_ANSWER_S)
        return {"profile": self.profile, "ended": "", **answer}

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
        answer: pa.Table = ask(
            self._socket,
            "dead_letters",
            timeout_s=_ANSWER_S,
            stream=stream,
            outcome=outcome,
            rule=rule,
            first_rule=first_rule,
            limit=limit,
            after=after,
            addresses=addresses,
            waiting=waiting,
            columns=list(columns),
        )
        return answer

    def close(self) -> None:
        """Every question has a connection of its own: there is nothing to give back."""


def _run_it(home: Home) -> str:
    """Return what to do where nothing has run, with the profile that was asked for."""
    profile = home.profile.name
    return "run it: headrace run" + (f" --profile {profile}" if profile != DEFAULT_PROFILE else "")


def _require_ours(store: ReadStore, home: Home) -> None:
    """Raise RefusedError for a database that no run has made, or made only as a file."""
    path = home.store_path
    tables = set(
        store.query("SELECT concat_ws('.', schema_name, table_name) FROM duckdb_tables()")
        .column(0)
        .to_pylist()
    )
    if {"_headrace.meta", "_headrace.progress"} <= tables:
        return
    if not tables:
        raise RefusedError(
            f"the store {path} is an empty DuckDB file: no run has written to it", fix=_run_it(home)
        )
    raise RefusedError(
        f"{path} is a DuckDB file, but no store of a pipeline",
        fix="name the store's file in headrace.toml (store.path), or ask this one with DuckDB itself",
    )


class _StoppedClient:
    running = False

    def __init__(self, home: Home) -> None:
        from headrace.store import open_store_readonly

        self.profile = home.profile.name
        self._ended = how_ended(home)
        self._files = ExitStack()
        store = open_store_readonly(home.store_path)
        self._files.callback(store.close)
        try:
            _require_ours(store, home)
        except BaseException:
            store.close()
            raise
        logs = LogsForQuestions(home)
        self._files.callback(logs.close)
        self._answers = Answers(
            store, logs, running=False, replicas=lambda: replica_states(home, None, store)
        )

    def query(self, sql: str, *, rows_max: int = 10_000, seconds_max: float = 5.0) -> pa.Table:
        return self._answers.query(sql, rows_max=rows_max, seconds_max=seconds_max)

    def ledger(self) -> dict[str, Any]:
        return {"profile": self.profile, **self._answers.ledger()}

    def status(self) -> dict[str, Any]:
        return {"profile": self.profile, "ended": self._ended, **self._answers.status()}

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
        return self._answers.dead_letters(
            stream=stream,
            outcome=outcome,
            rule=rule,
            first_rule=first_rule,
            limit=limit,
            after=after,
            addresses=addresses,
            waiting=waiting,
            columns=columns,
        )

    def close(self) -> None:
        self._files.close()
