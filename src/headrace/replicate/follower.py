"""A thread that keeps one replica up to date: it wakes when the engine commits, and never makes it wait."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from typing import Protocol

from headrace.errors import HeadraceError, InternalError, RefusedError, TransientError
from headrace.log.backoff import Waiting, when_ready
from headrace.replicate.copying import TableCopy, copy_of
from headrace.replicate.copying_views import OF_DATA
from headrace.replicate.cursors import reached_at
from headrace.replicate.filed import FilesCopy
from headrace.replicate.foreign import SetBackError, refuse_foreign, ways_on
from headrace.replicate.options import CommonOptions
from headrace.replicate.protocol import (
    Chunk,
    Cursor,
    Refusal,
    ReplicaWriter,
    Task,
    TogetherWriter,
    write_chunks,
)
from headrace.replicate.shapes import tables_of
from headrace.sql.plan import PipelinePlan
from headrace.store.changes import Head, begun_again, read_head
from headrace.store.outside import tables_outside
from headrace.store.store import Store
from headrace.store.takings import Taking, takings_of, write_taking

__all__ = ["Follower", "Telling"]

_RESTS = {"all": 0.0, "half": 1.0, "quarter": 3.0}
"""For how many times as long as it worked a replica that catches up rests, by its option `share`."""
_TOGETHER_BYTES = 1024 * 1024
"""Changes of several tables are read in one look at the store while they are no more than this."""
_CALM_S = 60.0
"""A follower looks at the store so often even if nobody wakes it; a view's `refresh` may wake it sooner."""


class Telling(Protocol):
    """What a follower tells whoever runs it; called from the follower's thread."""

    def state(self, follower: Follower) -> None:
        """The state, or how far the replica has come, is another."""

    def refused(self, follower: Follower, refusals: Sequence[Refusal]) -> None:
        """Rows that the target did not take: keep them before the others become durable there."""

    def begun_again(self, follower: Follower) -> None:
        """The copying that was asked for has begun, durably: it need not be asked for once more."""


class Follower:
    """Keeps the replica `name` up to date, in a thread, from `start` to `stop`.

    `state` is one of: starting (or catching up after it waited), following, waiting (for a target that is
    down), refused (until `resume`), paused, stopped. `error` is why, where there is a reason; of one that
    follows, why a view is not copied.
    """

    def __init__(
        self,
        name: str,
        options: CommonOptions,
        plan: PipelinePlan,
        store: Store,
        telling: Telling,
        *,
        paused: bool = False,
        again: str | None = None,
        reached: Mapping[str, int] | None = None,
    ) -> None:
        self.name = name
        self.options = options
        self.state = "starting"
        self.error: HeadraceError | None = None
        self.rows_refused = 0
        with store.snapshot() as reader:
            outside = tables_outside(reader)
        self.copies = [
            FilesCopy(table, options, name) if table.name in outside else copy_of(table, options, name)
            for table in tables_of(plan, options, name)
        ]
        self._outside = {copy.shape.name for copy in self.copies if isinstance(copy, FilesCopy)}
        for copy in self.copies:  # as far as is known before the target was asked
            copy.reached = (reached or {}).get(copy.shape.name, 0)
        self.epoch = 0
        self._pipeline = plan.pipeline.name
        self._store = store
        self._telling = telling
        self._paused = paused
        self._again = again
        self._begun_again: set[str] = set()
        self._hurry = False
        self._asked = self._served = 0
        self._writer: ReplicaWriter | None = None
        self._ended = threading.Event()
        self._turn = (
            threading.Event()
        )  # ends a pause of the back-off: to stop, or because something was asked
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=f"headrace-replica-{name}", daemon=True)

    # --- called by others

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def wake(self) -> None:
        """Say that the engine has committed. Costs nothing."""
        with self._changed:
            self._asked += 1
            self._changed.notify_all()

    def pause(self) -> None:
        """Send nothing and give the connection back, until `resume`."""
        self._tell_thread(paused=True)

    def resume(self, *, again: str | None = None) -> None:
        """Go on after `pause`, or where the target refused; `again` copies everything (see `BEGIN_AGAIN`)."""
        self._tell_thread(paused=False, again=again)

    def _tell_thread(self, *, paused: bool, again: str | None = None) -> None:
        with self._changed:
            self._paused = paused
            if again is not None:
                self._again, self._begun_again = again, set()
            if self.state == "refused" or again is not None:
                self.error = None
            self._asked += 1
            self._turn.set()
            self._changed.notify_all()

    def wait_until_caught_up(self, stop: threading.Event) -> None:
        """Return when the target has what the store has now, the replica is paused, or `stop` is set.

        Raises the error for which the replica stands still, or a view is not copied.
        """
        goal = self._head().epoch
        with self._changed:
            self._hurry = True
            self._asked += 1
            asked = self._asked
            self._turn.set()
            self._changed.notify_all()
            while not stop.is_set() and self.state != "paused":
                if self.state == "refused" and self.error is not None:
                    raise self.error
                if self.state == "stopped":
                    return
                # What is to be copied again has reached nothing yet, whatever it had reached before.
                if self.state == "following" and self._again is None and self.reached >= goal:
                    failure = self._failure
                    if failure is None:
                        return
                    if self._served >= asked:  # not sooner: what the view reads may have changed since
                        raise failure
                self._changed.wait(0.1)

    @property
    def reached(self) -> int:
        """The epoch up to which every table was copied."""
        return min((copy.reached for copy in self.copies if not copy.problem), default=self.epoch)

    @property
    def _failure(self) -> HeadraceError | None:
        return next((copy.failure for copy in self.copies if copy.failure is not None), None)

    def end(self) -> None:
        """Ask the thread to end; see `stop`."""
        self._ended.set()
        with self._changed:
            self._turn.set()
            self._changed.notify_all()

    def stop(self, deadline: float) -> None:
        """Return when the thread has ended, or at `deadline`, whatever the target does.

        What was not sent is sent by the next run; a thread that hangs in the target is left behind.
        """
        self.end()
        if self._thread.is_alive():
            self._thread.join(max(0.0, deadline - time.monotonic()) / 2)
            writer = self._writer
            if self._thread.is_alive() and writer is not None:
                writer.interrupt()
            self._thread.join(max(0.0, deadline - time.monotonic()))
        if self.state != "refused":
            self._enter("stopped", self.error)

    # --- the thread

    def _run(self) -> None:
        seen = -1
        while not self._ended.is_set():
            with self._changed:
                while seen == self._asked and not self._ended.is_set():
                    if not self._changed.wait(self._patience()):
                        break
                seen = self._asked
                self._turn.clear()
                paused, standing = self._paused, self.state == "refused" and self.error is not None
            if self._ended.is_set():
                break
            if paused:
                self._close()
                self._enter("paused")
            elif not standing:
                self._follow()
                with self._changed:
                    self._served = self._served if self._interrupted else seen
                    self._changed.notify_all()
            if not self._hurry:
                self._turn.wait(self.options.linger.total_seconds())
        self._close()

    def _patience(self) -> float:
        return self.options.refresh.total_seconds() if self._writer is not None else _CALM_S

    def _follow(self) -> None:
        try:
            when_ready(self._round, self._turn, self._waiting)
        except HeadraceError as error:
            self._fail(error)
        except BaseException as error:  # noqa: BLE001 - a bug, or a panic of a library, must not go unseen
            said = "" if isinstance(error, OF_DATA) else f": {error}"
            self._fail(InternalError(f"replica '{self.name}': {type(error).__name__}{said}"))

    def _fail(self, error: HeadraceError) -> None:
        self._close()
        if not self._ended.is_set():
            self._enter("refused", error)

    def _waiting(self, pause: Waiting | None) -> None:
        if pause is not None:
            self._enter("waiting", pause.error)

    def _round(self) -> bool:
        """Send what is new. Raises TransientError after closing the writer."""
        try:
            if self._writer is None:
                if self.state != "waiting":  # that it is tried again is nothing new
                    self._enter("starting", self.error)
                self._open()
            head = self._head()
            self._begin_tables(head)
            self._catch_up(head.epoch)
            self._enter("following", self._failure)
        except TransientError:
            self._close()
            raise
        return True

    def _catch_up(self, goal: int) -> None:
        """Send what the store had at epoch `goal`. What comes meanwhile gathers for the next round."""
        asked, began = self._asked, time.monotonic()
        while not self._interrupted and self._step(goal):
            self._telling.state(self)
            if asked != self._asked and not self._hurry:  # the engine works, too: it gets its share
                self._turn.wait((time.monotonic() - began) * _RESTS[self.options.share])
            asked, began = self._asked, time.monotonic()

    @property
    def _interrupted(self) -> bool:
        return self._ended.is_set() or self._turn.is_set()

    def _head(self) -> Head:
        with self._store.snapshot() as reader:
            return read_head(reader)

    @cached_property
    def _store_id(self) -> str:
        return self._head().store_id  # asked once, and not again at each try to open a target that is away

    def _open(self) -> None:
        task = Task(
            replica=self.name,
            pipeline=self._pipeline,
            tables=tuple(copy.shape for copy in self.copies),
            set_aside=self._set_aside,
            store_id=self._store_id,
        )
        for copy in self.copies:
            copy.cursor = None
        self._writer = self.options.open(task)  # type: ignore[attr-defined]

    def _begin_tables(self, head: Head) -> None:
        """Take over in the target what is ready to be copied and not taken yet."""
        again, begun = self._again, self._begun_again
        told = set() if again is None else {copy.shape.name for copy in self.copies} - begun
        waiting = [copy for copy in self.copies if copy.cursor is None or copy.shape.name in told]
        ready = [copy for copy in waiting if not head.rebuilding(copy.shape.name)]
        if not ready or self._writer is None:
            return
        seen = self._writer.cursors()
        with self._store.snapshot() as reader:
            head, takings = read_head(reader), takings_of(reader, self.name)  # no target is ahead of this one
            restarted = {}
            for name, cursor in seen.items():
                since = max(cursor.position.epoch, min(cursor.begun, head.epoch))
                restarted[name] = begun_again(reader, name, since) is not None
        for copy in ready:  # what an earlier run has left behind may be of another store
            copy.reached = _reached(seen.get(copy.shape.name), head)
        for copy in ready:
            name = copy.shape.name
            way, known = again if name in told else None, seen.get(name)
            if way is None and known is not None:
                # Before anything that copies the table again by itself: that would write over what is there.
                self._refuse_foreign(known, head, name, takings.get(name, Taking()))
                if restarted[name]:
                    way = self._way_after_rebuild(copy)
                elif copy.outrun(known, head):
                    way = "rebuild"
            before = takings.get(name, Taking())
            # The greatest: the profile may name another target for a while.
            taken = Taking(max(before.generation or 0, 1 if known is None else known.generation + 1))
            if name not in told:
                # Before it is taken: a generation that the store does not know is another history's.
                self._remember(name, takings, replace(taken, ceiling=before.ceiling))
            copy.begin(self._writer, known, head, way)
            self._remember(name, takings, taken)
            begun.add(name)
        if again is not None and len(ready) == len(waiting):
            self._again = None
            self._telling.begun_again(self)

    def _refuse_foreign(self, known: Cursor, head: Head, name: str, taking: Taking) -> None:
        """See `refuse_foreign`. That the store was set back is written down: its epochs grow again."""
        try:
            refuse_foreign(self.name, known, head, name, taking, self._outside)
        except SetBackError:
            ours = head.epoch if taking.ceiling is None else min(head.epoch, taking.ceiling)
            self._remember(name, {name: taking}, replace(taking, ceiling=ours))
            raise

    def _remember(self, name: str, known: dict[str, Taking], taking: Taking) -> None:
        if known.get(name) != taking:
            with self._store.beside() as cursor:
                write_taking(cursor, self.name, name, taking)
            known[name] = taking

    def _way_after_rebuild(self, copy: TableCopy) -> str:
        """Return how a table that the store computed again is copied."""
        if not copy.plan.table.keep or self.options.expired == "delete":
            return "rebuild"
        if copy.shape.key:
            return "adopt"  # windows that the store has retired stay in the target
        # Rows without a key cannot be written over: those of before would be there twice.
        name, own = copy.shape.name, "NAME" if self._outside else self.name
        raise RefusedError(
            f"replica '{self.name}': the table '{name}' was computed again, and its rows have no "
            "key by which the target's could be replaced",
            fix=ways_on(
                self.name,
                name,
                self._outside,
                f"`headrace replicas rebuild {own}` replaces all rows, also those older than the store "
                f"keeps; `headrace replicas adopt {own}` leaves them and adds all rows of the store",
            ),
        )

    def _step(self, goal: int) -> bool:
        """Send a chunk of every table that has one; whether there is more of what was there at `goal`."""
        more, left = False, deque(sorted(self.copies, key=lambda copy: bool(copy.plan.view_sql)))
        while left and not self._interrupted and self._writer is not None:
            found = self._read(left)  # all of it is written: a view that was read counts as sent
            together = isinstance(self._writer, TogetherWriter)
            for part in [found] if together else [[each] for each in found]:
                write_chunks(self._writer, [chunk for _, chunk in part])
                for copy, chunk in part:
                    copy.written(chunk)
                    more = more or copy.behind(goal)
                if part and self.state == "waiting":  # not sooner: who lets us in may still take nothing
                    self._enter("starting")
        return more

    def _read(self, left: deque[TableCopy]) -> list[tuple[TableCopy, Chunk]]:
        """Take tables out of `left` and return their chunks: in one look at the store while they are small.

        Tables come before views. A view is looked at alone: its query, a user's, may fail, and end the look
        for those behind it.
        """
        found: list[tuple[TableCopy, Chunk]] = []
        size, looked, alone = 0, False, False
        with self._store.snapshot() as reader:
            head = read_head(reader)
            self.epoch = head.epoch
            while left and size < _TOGETHER_BYTES and not alone:
                copy = left[0]
                if copy.cursor is not None and not copy.quiet(head):
                    alone = bool(copy.plan.view_sql)
                    if alone and looked:
                        break
                    looked = True
                    if copy.outrun(copy.cursor, head):  # the next try begins this table anew
                        raise TransientError(
                            f"the store forgot which rows of '{copy.shape.name}' expired while it was copied",
                            fix='the table is copied anew; share = "all", or a longer keep, lets it come '
                            "along",
                        )
                    chunk = copy.next_chunk(reader, head, hurry=self._hurry)
                    if chunk is not None:
                        found.append((copy, chunk))
                        size += chunk.rows.nbytes + chunk.removed.nbytes
                left.popleft()
        return found

    def _set_aside(self, refusals: Sequence[Refusal]) -> None:
        self.rows_refused += len(refusals)
        self._telling.refused(self, refusals)

    def _enter(self, state: str, error: HeadraceError | None = None) -> None:
        with self._changed:
            self.state, self.error = state, error
            self._changed.notify_all()
        self._telling.state(self)

    def _close(self) -> None:
        writer, self._writer = self._writer, None
        for copy in self.copies:
            copy.cursor = None
        if writer is not None:
            with suppress(Exception):
                writer.close()


def _reached(seen: Cursor | None, head: Head) -> int:
    """Return up to which of the store's epochs the target says that it has a table."""
    if seen is None or seen.store_id != head.store_id:
        return 0
    return reached_at(seen, min(seen.position.epoch, head.epoch))
