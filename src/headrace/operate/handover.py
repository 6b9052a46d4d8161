"""Hands a pipeline over to another profile: one engine stops after an epoch, the other one goes on.

All state of both engines is in the one store, so nothing is cut by window, session or offset (see
`docs/decisions/0010`). What must hold is that the other profile goes on with the same store, logs and tables,
and that its engine starts; both is known before anything is stopped. What only shows when it runs (a port
that is taken, a target of a replica that refuses) is not.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.errors import ProfileError, RefusedError, TransientError
from headrace.operate.client import connect, is_running, running_process
from headrace.operate.control import ask
from headrace.operate.engines import check_engine, check_logs, start_engine
from headrace.operate.project import Home, Project, find_home
from headrace.operate.redrive import LANE
from headrace.operate.replicas import check_replicas
from headrace.operate.runtime import open_log

if TYPE_CHECKING:
    from headrace.log import Log
    from headrace.sql.plan import PipelinePlan
    from headrace.store.progress import Progress

__all__ = ["Handover", "mark_of"]

_LOOK_S = 0.5
_END_S = 0.1
_TELL_EVERY = 120
"""So many looks pass between two lines that say how far it has come."""
_STANDS = (
    "SELECT body, (SELECT map_from_entries(list((name, value))) FROM _headrace.meta) AS meta "
    "FROM _headrace.progress"
)
_COPY = (
    "let both profiles name the same log; to move to another one: `headrace log copy` to it, and run the "
    "profile with a store.path of its own"
)


def mark_of(text: str, now: datetime) -> datetime:
    """Read a record time: `12:00` is one of today, a text without a zone is UTC. Raises ProfileError."""
    with suppress(ValueError):
        clock = time.fromisoformat(text)
        return datetime.combine(now.astimezone(UTC).date(), clock, clock.tzinfo or UTC).astimezone(UTC)
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ProfileError(
            f"--at: '{text}' is no time", fix="write 12:00 (today, UTC) or 2026-03-01T12:00:00Z"
        ) from None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)


class Handover:
    """One handover to the profile of `target`, which holds off a second one until `close`.

    Nothing is stopped before `take`. Raises RefusedError when nothing has run yet or the profile cannot go on
    with what is there, DeclarationError and ProfileError for what is wrong with it, TransientError when its
    log does not answer.
    """

    def __init__(self, target: Project) -> None:
        self.target = target
        self._files = ExitStack()
        self._engine = self._files.enter_context(ExitStack())
        try:
            self._hold()
            self._facts = running_process(target) if is_running(target) else None
            last = self._facts or self._last_run()
            self.before = find_home(target.folder, profile=str(last["profile"]))
            self._store_before = Path(last["store"])
            self._check()
        except BaseException:
            self._files.close()
            raise

    @property
    def running(self) -> bool:
        """Whether a process was at work when this began."""
        return self._facts is not None

    @property
    def left_out(self) -> tuple[str, ...]:
        """What the profile before does and the new one does not, in words."""
        old, new = self.before.profile, self.target.profile
        found = [f"replica '{name}' is not written" for name in old.replicas if name not in new.replicas]
        found += [f"nothing is polled for '{name}'" for name in old.polling if name not in new.polling]
        return tuple(f"{what} under profile '{new.name}'" for what in found)

    def wait_for(self, mark: datetime, stop: threading.Event, tell: Callable[[str], None]) -> None:
        """Wait until the running engine has passed a record time, or `stop` is set.

        Raises RefusedError when it ends meanwhile.
        """
        at = self._frontier()
        if at is not None and at >= mark:
            tell(f"record time {_shown(mark)} is passed already, so it is done at once")
            return
        tell(
            f"profile '{self.before.profile.name}' goes on until it passes record time {_shown(mark)}; it "
            f"stands at {_shown(at)}; Ctrl-C changes nothing"
        )
        looks = 0
        while at is None or at < mark:
            if stop.wait(_LOOK_S):
                return
            with suppress(TransientError, OSError):  # one that is busy, or just ended, says more next time
                if not is_running(self.target):
                    name = self.before.profile.name
                    raise RefusedError(
                        f"the run of profile '{name}' ended before it passed record time {_shown(mark)}",
                        fix=f"see `headrace logs`; then: headrace run --profile {self.target.profile.name}",
                    )
                at = self._frontier()
            looks += 1
            if looks % _TELL_EVERY == 0:
                tell(f"it stands at record time {_shown(at)}")

    def start(self) -> None:
        """Start what the other engine needs; where that fails, the pipeline still runs as before."""
        start_engine(self.target, self._engine)

    def take(self, stop: threading.Event, tell: Callable[[str], None]) -> bool:
        """Stop the running engine after its epoch, and return when the store is free.

        False when `stop` was set first; the engine stops all the same.
        """
        if self._facts is None:
            return True
        name = self.before.profile.name
        tell(f"stopping profile '{name}' (process {self._facts['pid']}) after its epoch")
        with suppress(OSError):  # it ended by itself
            ask(Path(self._facts["socket"]), "hand_over", timeout_s=15, to=self.target.profile.name)
        while not self._free():
            if stop.wait(_END_S):
                tell(
                    f"profile '{name}' stops all the same; to go on: "
                    f"headrace run --profile {self.target.profile.name}"
                )
                return False
        return True

    def keep_engine(self) -> None:
        """Leave what `start` started to the run that follows in this process."""
        self._engine.pop_all()

    def close(self) -> None:
        """Let others hand over again; what `start` started ends, unless it was kept."""
        self._files.close()

    # --- what is there

    def _hold(self) -> None:
        from headrace.store.lock import StoreLock, holder_of

        if not self.target.data.is_dir():
            raise self._nothing_ran()
        lock = StoreLock(self.target.data / "handover")
        try:
            lock.acquire()
        except RefusedError:
            holder = holder_of(self.target.data / "handover.lock")
            raise RefusedError(
                f"{self.target.folder} is being handed over already, by {holder}",
                fix="wait until that is done, or stop it with Ctrl-C",
            ) from None
        self._files.callback(lock.release)

    def _last_run(self) -> dict[str, str]:
        try:
            last = json.loads(self.target.last_run_path.read_text(encoding="utf-8"))
            return {part: str(last[part]) for part in ("profile", "store")}
        except (OSError, ValueError, KeyError, TypeError):  # there is none, or it is none of ours
            raise self._nothing_ran() from None

    def _nothing_ran(self) -> RefusedError:
        name = self.target.profile.name
        return RefusedError(
            f"nothing has run in {self.target.folder} yet", fix=f"run it: headrace run --profile {name}"
        )

    def _stands(self) -> dict[str, Any]:
        client = connect(self.target)
        try:
            found: dict[str, Any] = client.query(_STANDS, rows_max=1).to_pylist()[0]
            return found
        finally:
            client.close()

    def _frontier(self) -> datetime | None:
        """Return the record time that is passed in every partition; None while one has shown nothing."""
        from headrace.store.instants import instant_of

        progress = _progress(self._stands())
        times = [place.frontier for _, lane, _, place in progress.places() if lane == "main"]
        least = [each for each in times if each is not None]
        return instant_of(min(least)) if least and len(least) == len(times) else None

    def _free(self) -> bool:
        from headrace.store.lock import StoreLock

        lock = StoreLock(self.target.store_path)
        try:
            lock.acquire()
        except RefusedError:
            return False
        lock.release()
        return True

    # --- whether the other profile can go on

    def _check(self) -> None:
        from headrace.observe.exposition import check_alias
        from headrace.sql import plan_pipeline
        from headrace.store.declared import require_identities

        plan = plan_pipeline(self.target.pipeline)
        check_engine(self.target)
        check_replicas(self.target, plan)
        for alias, of in (self.target.profile.metrics.alias or {}).items():
            check_alias(alias, of)
        self._check_store()
        stands = self._stands()
        progress, known = _progress(stands), dict(stands["meta"])
        self._check_tables(plan, progress)
        require_identities(known, plan, progress)
        self._check_outside(plan, known)
        with ExitStack() as files:
            logs = {name: self._opened(name, files) for name in plan.streams}
            for name, log in logs.items():
                self._check_stream(name, log.identity == known.get(f"log:{name}", log.identity))
                self._check_lane(name, log, known, progress)
            check_logs(self.target, logs)

    def _check_lane(self, stream: str, log: Log, known: Mapping[str, str], progress: Progress) -> None:
        """Refuse a redrive lane that is not the one of which records were read."""
        place = f"{stream}@{LANE}"
        if f"log:{place}" not in known or not any(progress.positions(stream, LANE).values()):
            return
        try:
            same = log.lane(LANE).identity == known[f"log:{place}"]
        except RefusedError:  # it is gone, and would be made again
            same = False
        if not same:
            raise RefusedError(
                f"stream '{stream}': its redrive lane is not the one that the store has read from",
                fix="bring the lane back; or move the store away, and everything is computed from the log",
            )

    def _check_store(self) -> None:
        store = self._store_before
        if store.resolve() != self.target.store_path.resolve():
            name = self.target.profile.name
            raise RefusedError(
                f"profile '{name}' has its store at {self.target.store_path}, and the one before at {store}",
                fix="give both the same store.path: the store is what is handed over; with one of its own, "
                f"`headrace run --profile {name}` computes the tables from the log",
            )

    def _check_tables(self, plan: PipelinePlan, progress: Progress) -> None:
        changed = [
            table.name
            for table in plan.tables
            if table.name in progress.tables and progress.tables[table.name].fingerprint != table.fingerprint
        ]
        if changed:
            words = " ".join(f"--rebuild {name}" for name in changed)
            raise RefusedError(
                "pipeline.py was changed since it ran: "
                + ", ".join(f"table '{name}'" for name in changed)
                + " cannot be gone on with",
                fix=f"run it as it is now first: headrace run {words} --profile {self.before.profile.name}",
            )

    def _check_outside(self, plan: PipelinePlan, known: Mapping[str, str]) -> None:
        """Refuse a profile with which a table would have rows in the store and in files, or in two places."""
        from headrace.operate.outside import check_places, outside_of_profile
        from headrace.store.outside import outside_of

        before, now = set(outside_of(known)), set(outside_of_profile(self.target))
        for name in sorted(before ^ now):
            one, other = ("files", "the store") if name in before else ("the store", "files")
            raise RefusedError(
                f"the rows of table '{name}' are in {one}, and profile '{self.target.profile.name}' would go "
                f"on with them in {other}",
                fix="name the same tables in spark.rows_by_executors of both profiles (the local engine does "
                "not have it), or give the table another name",
            )
        check_places(self.target, plan, known)

    def _opened(self, name: str, files: ExitStack) -> Log:
        try:
            log = open_log(self.target, name, make=False)
        except RefusedError as error:
            raise RefusedError(f"profile '{self.target.profile.name}': {error.message}", fix=_COPY) from None
        files.callback(log.close)
        return log

    def _check_stream(self, name: str, same: bool) -> None:
        place = f"stream '{name}': profile '{self.target.profile.name}'"
        if not same:
            raise RefusedError(
                f"{place} reads another log than the store was filled from: its offsets mean nothing there",
                fix=_COPY,
            )
        for part in ("record_time", "format"):
            before, now = (_option(home, name, part) for home in (self.before, self.target))
            if before != now:
                raise RefusedError(
                    f'{place} reads its log with {part} = "{now}", the one before with "{before}": outcomes '
                    "would differ",
                    fix=f"give both the same {part} in headrace.toml (streams.{name})",
                )


def _option(home: Home, stream: str, name: str) -> str:
    """Return how a profile reads a stream; a log without that option has the default of the others."""
    return str(getattr(home.profile.stream(stream), name, "log"))


def _progress(stands: dict[str, Any]) -> Progress:
    from headrace.store.progress import Progress

    return Progress.from_json(stands["body"])


def _shown(at: datetime | None) -> str:
    return "the beginning" if at is None else f"{at.replace(microsecond=0):%Y-%m-%d %H:%M:%S} UTC"
