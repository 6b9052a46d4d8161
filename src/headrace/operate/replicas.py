"""The replicas of a run: started and stopped with it; what can be asked of them and told to them.

What an operator tells a replica (pause, rebuild) is kept in a file, so that the next run obeys it too. How
far each one is, is kept in a file beside it, for whoever asks after the run. Both are a store's: the profiles
of a project may have stores of their own, with replicas of the same names.
"""

from __future__ import annotations

import fcntl
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from headrace.declare.words import did_you_mean
from headrace.errors import ProfileError, RefusedError
from headrace.operate.outside import check_outside, refuse_again
from headrace.operate.profiles import StoreBinding
from headrace.operate.secrets import unreadable_secrets

if TYPE_CHECKING:
    from headrace.operate.journal import Journal
    from headrace.operate.project import Home
    from headrace.replicate.follower import Follower
    from headrace.replicate.protocol import Refusal
    from headrace.sql.plan import PipelinePlan
    from headrace.store import Store

__all__ = ["ACTIONS", "Replicas", "check_replicas", "expired_tables", "replica_states", "tell_stopped"]

ACTIONS = ("pause", "resume", "adopt", "rebuild")
_STORE_ID = "store_id"
"""Whose figures a state file holds: epochs of one store say nothing about another one's."""
_STORE_ID_SQL = "SELECT value FROM _headrace.meta WHERE name = 'store_id'"
_TOLD_FILE = "told.stores.json"
"""No replica's name has a dot, so none has its state there."""
_TOLD_FILE_BEFORE = "told.json"
_TOLD_LOCK = "told.lock"
_SAVE_EVERY_S = 1.0
_STOP_S = 1.5
_REFUSED_BYTES_MAX = 20_000_000
"""Of rows that a target refused, so many bytes are kept, and as many of before."""


class _Asked(Protocol):
    def query(self, sql: str, *, rows_max: int, seconds_max: float) -> Any:
        """Run one reading query."""


class Replicas:
    """The followers of a run. Nothing here may stop the pipeline."""

    def __init__(self, home: Home, plan: PipelinePlan, store: Store, journal: Journal) -> None:
        from headrace.replicate.follower import Follower

        self._home = home
        self._journal = journal
        self._saved: dict[str, tuple[float, tuple[str, str]]] = {}
        self._in_trouble: dict[str, tuple[str, str]] = {}
        self.on_notice: Callable[[str], None] = lambda notice: None
        """Told in words when a replica stands still, or goes on."""
        self._store_id = store.status().store_id if home.profile.replicas else ""
        told = _told(home)
        left = {
            each["replica"]: {line["table"]: line["epoch"] for line in each["tables"]}
            for each in _left_behind(home, self._store_id)
        }
        _require_secrets(home)
        self.followers = [
            Follower(
                name,
                options,
                plan,
                store,
                self,
                paused=told.get(name, {}).get("paused", False),
                again=told.get(name, {}).get("again"),
                reached=left.get(name),
            )
            for name, options in home.profile.replicas.items()
        ]
        if self.followers:
            _folder(home).mkdir(parents=True, exist_ok=True, mode=0o700)  # keys of rows may lie there

    def start(self) -> None:
        """Begin to follow the store."""
        for follower in self.followers:
            follower.start()

    def wake(self) -> None:
        """Say that the engine has committed."""
        for follower in self.followers:
            follower.wake()

    def wait_until_caught_up(self, stop: threading.Event) -> None:
        """Return when every target has what the store has. Raises the error for which one stands still."""
        for follower in self.followers:
            follower.wait_until_caught_up(stop)

    def stop(self) -> None:
        """End all of them, within two seconds."""
        for follower in self.followers:
            follower.end()
        deadline = time.monotonic() + _STOP_S
        for follower in self.followers:
            follower.stop(deadline)

    def tell(self, name: str, action: str) -> None:
        """Pause, resume, or copy again, from now on and in later runs."""
        follower = next((each for each in self.followers if each.name == name), None)
        if follower is None:
            raise _unknown(name, self._home)
        tell_stopped(self._home, name, action)
        if action == "pause":
            follower.pause()
        else:
            follower.resume(again=action if action in ("adopt", "rebuild") else None)
        self._journal.info("replica told", replica=name, action=action)

    # --- what followers tell (called from their threads)

    def state(self, follower: Follower) -> None:
        """See `Telling`."""
        name, state = follower.name, follower.state
        said = (state, "" if follower.error is None else follower.error.message)
        at, before = self._saved.get(name, (0.0, ("", "")))
        now = time.monotonic()
        if said == before and now - at < _SAVE_EVERY_S:
            return
        self._saved[name] = (now, said)
        with suppress(OSError):  # a full disk: the state is for people, and the next one is written again
            facts = {**_facts(follower), _STORE_ID: self._store_id}
            _write(_folder(self._home) / f"{name}.json", facts)
        if said == before:
            return
        if follower.error is not None and state in ("waiting", "refused", "following"):
            if state == "waiting" and self._in_trouble.get(name) == said:  # it took something in between
                return
            self._in_trouble[name] = said
            fix = follower.error.fix
            self._journal.warning(
                "replica", replica=name, state=state, why=said[1], **({"fix": fix} if fix else {})
            )
            self.on_notice(f"replica '{name}' {state}: {said[1]}" + (f" (fix: {fix})" if fix else ""))
            return
        if state == "starting" and name in self._in_trouble:  # a target that takes a chunk at each try
            return
        self._journal.info("replica", replica=name, state=state)
        if state == "following" and name in self._in_trouble:
            del self._in_trouble[name]
            self.on_notice(f"replica '{name}' goes on")

    def refused(self, follower: Follower, refusals: Sequence[Refusal]) -> None:
        """See `Telling`."""
        path = _folder(self._home) / f"{follower.name}.refused.ndjson"
        if path.exists() and path.stat().st_size > _REFUSED_BYTES_MAX:
            path.replace(path.with_suffix(".old.ndjson"))
        with path.open("a", encoding="utf-8") as file:
            for each in refusals:
                facts = {"table": each.table, "key": each.key, "version": each.version, "reason": each.reason}
                file.write(json.dumps(facts, ensure_ascii=False) + "\n")
        self._journal.warning("replica refused rows", replica=follower.name, rows=len(refusals))

    def begun_again(self, follower: Follower) -> None:
        """See `Telling`."""
        with _telling(self._home) as told:
            told.get(follower.name, {}).pop("again", None)

    def states(self) -> list[dict[str, Any]]:
        """Return where each one stands."""
        return [_facts(follower) for follower in self.followers]


def _facts(follower: Follower) -> dict[str, Any]:
    error = follower.error
    return {
        "replica": follower.name,
        "kind": follower.options.kind,
        "state": follower.state,
        "why": "" if error is None else error.message,
        "fix": "" if error is None else error.fix,
        "epoch": follower.reached,
        "rows_refused": follower.rows_refused,
        "tables": [
            {
                "table": copy.shape.name,
                "epoch": copy.reached,
                "rows_sent": copy.rows_sent,
                "problem": copy.problem,
            }
            for copy in follower.copies
        ],
    }


def replica_states(
    home: Home, states: Sequence[Mapping[str, Any]] | None, store: _Asked
) -> list[dict[str, Any]]:
    """Return where every replica of the profile stands, and how far it is behind the store.

    `states` are those of a running pipeline; None: what the last run of this store left behind.
    """
    if not home.profile.replicas:
        return []
    if states is None:
        store_id = store.query(_STORE_ID_SQL, rows_max=1, seconds_max=5.0).column(0)[0].as_py()
        left: Sequence[Mapping[str, Any]] = _left_behind(home, store_id)
    else:
        left = states
    known = {each["replica"]: each for each in left}
    reached = {name: int(known.get(name, {}).get("epoch", 0)) for name in home.profile.replicas}
    head, behind = _behind(store, reached.values())
    now = datetime.now(UTC)
    told, found = _told(home), []
    for name, options in home.profile.replicas.items():
        facts = dict(known.get(name) or {"replica": name, "kind": options.kind, "epoch": 0, "tables": []})
        facts.setdefault("state", "not started")
        if states is None and facts["state"] != "refused":
            facts["state"] = "paused" if told.get(name, {}).get("paused") else "stopped"
        facts["lag_epochs"], facts["lag_records"], first = behind[reached[name]]
        facts["lag_seconds"] = 0.0 if first is None else max(0.0, round((now - first).total_seconds(), 3))
        facts["store_epoch"] = head
        found.append({"why": "", "fix": "", "rows_refused": 0, **facts})
    return found


def _behind(store: _Asked, reached: Iterable[int]) -> tuple[int, dict[int, tuple[int, int, datetime | None]]]:
    """Return the last epoch, and how much comes after each one that was reached: epochs, records, since when.

    The store counts: there may be a million of them, and whoever asks for a status is in a hurry.
    """
    places = sorted(set(reached))
    counted = ", ".join(
        f"count(*) FILTER (WHERE epoch > {epoch}), "
        f"CAST(coalesce(sum(records) FILTER (WHERE epoch > {epoch}), 0) AS BIGINT), "
        f"min(committed_at) FILTER (WHERE epoch > {epoch})"
        for epoch in places
    )
    rows = store.query(f"SELECT coalesce(max(epoch), 0), {counted} FROM epochs", rows_max=1, seconds_max=5.0)
    head, *facts = (column[0].as_py() for column in rows.columns)
    return head, dict(zip(places, zip(facts[::3], facts[1::3], facts[2::3], strict=True), strict=True))


def tell_stopped(home: Home, name: str, action: str) -> None:
    """Write down what a replica is told; the next run obeys."""
    if name not in home.profile.replicas:
        raise _unknown(name, home)
    if action not in ACTIONS:
        raise RefusedError(
            f"'{action}' is nothing that a replica can be told", fix="one of: " + ", ".join(ACTIONS)
        )
    if action in ("adopt", "rebuild"):
        refuse_again(home, name)
    _folder(home).mkdir(parents=True, exist_ok=True, mode=0o700)  # keys of rows may lie there
    with _telling(home) as told:
        facts = told.setdefault(name, {})
        facts["paused"] = action == "pause"
        if action in ("adopt", "rebuild"):
            facts["again"] = action


def _unknown(name: str, home: Home) -> ProfileError:
    known = list(home.profile.replicas)
    return ProfileError(
        f"profile '{home.profile.name}' has no replica '{name}'{did_you_mean(name, known)}",
        fix="one of: " + ", ".join(known) if known else "add replicas.NAME = { kind = … } to headrace.toml",
    )


def expired_tables(home: Home, plan: PipelinePlan) -> dict[str, tuple[str, ...]]:
    """Return, by replica, the tables of which it takes out of its target what the store retires."""
    from headrace.replicate.shapes import tables_of

    return {
        name: tuple(table.name for table in tables_of(plan, options, name) if table.table.keep is not None)
        for name, options in home.profile.replicas.items()
        if options.expired == "delete"
    }


def check_replicas(home: Home, plan: PipelinePlan) -> None:
    """Raise ProfileError for replicas that this pipeline cannot have; connects to nothing."""
    from headrace.replicate.shapes import tables_of

    for name, options in home.profile.replicas.items():
        tables_of(plan, options, name)
    check_outside(home, plan)
    _require_secrets(home)


def _require_secrets(home: Home) -> None:
    """Raise ProfileError now, before anything is connected, when a secret cannot be read."""
    for _, error in unreadable_secrets(home.profile.replicas):
        raise error


def _folder(home: Home) -> Path:
    return home.data / "replicas"


def _told(home: Home) -> dict[str, dict[str, Any]]:
    """Return what the replicas of this profile's store were told, by their names."""
    return dict(_told_of_all(home).get(_store_name(home), {}))


def _told_of_all(home: Home) -> dict[str, Any]:
    try:
        return dict(json.loads((_folder(home) / _TOLD_FILE).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {_store_name(home, StoreBinding().path): _told_before(home)}
    except (OSError, ValueError):
        return {}


def _told_before(home: Home) -> dict[str, Any]:
    """Return what was told when all stores of a project had one file for it, until anything is told anew."""
    try:
        told = json.loads((_folder(home) / _TOLD_FILE_BEFORE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    # A replica that is named 'told' has its state there: words and numbers, not only objects.
    is_told = isinstance(told, dict) and all(isinstance(each, dict) for each in told.values())
    return told if is_told else {}


@contextmanager
def _telling(home: Home) -> Iterator[dict[str, dict[str, Any]]]:
    """Give what the replicas of this profile's store were told, to be changed, and write it down.

    Runs and commands of several profiles share the file: one after the other reads and writes it.
    """
    with (_folder(home) / _TOLD_LOCK).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # among threads, too: each one opens the file for itself
        told = _told(home)
        yield told
        _write(_folder(home) / _TOLD_FILE, {**_told_of_all(home), _store_name(home): told})


def _store_name(home: Home, path: str | None = None) -> str:
    """Return the name of the profile's store, or of the one at `path`."""
    # Not the store's own id: who deletes a store and says `rebuild` says it before there is a new one. And
    # not as a profile writes it: the default is relative, what is written is not, and a project may move.
    folder = home.folder.resolve()
    place = (home.store_path if path is None else home.folder / path).resolve()
    return str(place.relative_to(folder) if place.is_relative_to(folder) else place)


def _left_behind(home: Home, store_id: str) -> list[dict[str, Any]]:
    """Return what runs of this store have left; that of another store says nothing about this one."""
    found = []
    for name in home.profile.replicas:
        with suppress(OSError, ValueError):
            facts = json.loads((_folder(home) / f"{name}.json").read_text(encoding="utf-8"))
            if isinstance(facts, dict) and facts.pop(_STORE_ID, None) == store_id:
                found.append(facts)
    return found


def _write(path: Path, facts: object) -> None:
    beside = path.with_name(path.name + ".new")
    beside.write_text(json.dumps(facts, ensure_ascii=False) + "\n", encoding="utf-8")
    beside.replace(path)
