"""The pollers of a project: beside a run, or in a process of their own."""

from __future__ import annotations

import importlib.util
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headrace.declare.words import did_you_mean
from headrace.errors import HeadraceError, InternalError, ProfileError
from headrace.operate.extras import missing_extra

if TYPE_CHECKING:
    from headrace.log.backoff import Waiting
    from headrace.operate.journal import Journal
    from headrace.operate.project import Project
    from headrace.produce.polling import Poller, PollSettings

__all__ = ["Pollers", "flatten_of", "open_poller"]

_JOIN_S = 2.0


def open_poller(
    project: Project,
    stream: str,
    stop: threading.Event,
    *,
    tell: Callable[[Waiting | None], None] = lambda pause: None,
) -> tuple[Poller, Any]:
    """Return the poller of a stream and the log that it appends to, which the caller closes.

    Raises ProfileError when the stream has none, and what `open_producer_log` raises.
    """
    from headrace.operate.formats import open_producer_log
    from headrace.produce.polling import Poller

    settings = _settings(project, stream)
    log = open_producer_log(project, stream, unfit="keep")
    try:
        return Poller(settings, log, stop, tell=tell), log
    except BaseException:
        log.close()
        raise


def _settings(project: Project, stream: str) -> PollSettings:
    from headrace.produce.polling import PollSettings

    known = project.profile.polling
    declared = next((each for each in project.pipeline.streams if each.name == stream), None)
    if stream not in known or declared is None:
        hint = did_you_mean(stream, known)
        raise ProfileError(
            f"profile '{project.profile.name}' polls nothing for a stream '{stream}' of this pipeline{hint}",
            fix=f"add polling.{stream} = {{ url = … }}"
            + (f"; there are: {', '.join(known)}" if known else ""),
        )
    options = known[stream]
    return PollSettings(
        url=options.url,
        items=options.items,
        flatten=None if options.flatten is None else flatten_of(project, options.flatten),
        key=declared.key,
        every_s=options.every.total_seconds(),
        timeout_s=options.timeout.total_seconds(),
        body_bytes_max=options.body_bytes_max,
        page_first=options.page_first,
        page_items=options.page_items,
        hosts=options.hosts,
        private_addresses=options.private_addresses == "yes",
    )


def flatten_of(project: Project, place: str) -> Callable[..., Any]:
    """Return the function `file:name` of a project, which makes records of items.

    Raises ProfileError when there is none.
    """
    file, _, name = place.partition(":")
    path = project.folder / f"{file}.py"
    found: Any = None
    if path.is_file():
        spec = importlib.util.spec_from_file_location(f"headrace_poller_{file}", path)
        if spec is not None and spec.loader is not None:
            module = importlib.util.module_from_spec(spec)
            # Registered, because dataclasses, pydantic and pickle look a class up by its module's name.
            sys.modules[spec.name] = module
            try:
                spec.loader.exec_module(module)
            except Exception as error:
                del sys.modules[spec.name]
                lacking = missing_extra(error)
                raise ProfileError(
                    f"{path} cannot be run: {type(error).__name__}: {error}",
                    fix="correct it" if lacking is None else lacking.fix,
                ) from error
            found = getattr(module, name, None)
    if not callable(found):
        raise ProfileError(f"there is no function '{name}' in {path}", fix="correct flatten of the poller")
    return found  # type: ignore[no-any-return]


@dataclass(frozen=True)
class _Working:
    """A poller's thread, and what ends it."""

    thread: threading.Thread
    stop: threading.Event


class Pollers:
    """The pollers that work beside a run, each in a thread. Nothing here may stop the pipeline.

    Where a poller stands is kept in the log, so one that pauses ends, and one that goes on begins anew there.
    """

    def __init__(self, project: Project, journal: Journal) -> None:
        self._project = project
        self._journal = journal
        self._lock = threading.Lock()
        self._runs = False
        self._paused: frozenset[str] = frozenset()
        self._working: dict[str, _Working] = {}
        self.streams = tuple(
            stream for stream, options in project.profile.polling.items() if options.with_run == "yes"
        )
        """The streams whose pollers these are."""
        self.on_notice: Callable[[str], None] = lambda notice: None
        """Told in words when a poller stands still, waits, or goes on."""

    def start(self) -> None:
        """Begin to poll, but for the pollers that pause."""
        with self._lock:
            self._runs = True
            self._follow()

    def pause(self, streams: frozenset[str]) -> None:
        """Let the pollers of these streams pause, and those of all others work; any thread may call it.

        A request that is on its way is answered first, and what it brings is appended.
        """
        with self._lock:
            self._paused = streams
            self._follow()

    def stop(self) -> None:
        """End all of them; one that hangs in a request is left behind, and what it polls is not lost."""
        with self._lock:
            self._runs = False
            self._follow()
            working = tuple(self._working.values())
        for each in working:
            each.thread.join(_JOIN_S)

    def _follow(self) -> None:
        """Begin the pollers that should work and do not, and end the others."""
        for stream in self.streams:
            working = self._working.get(stream)
            if not self._runs or stream in self._paused:
                if working is not None:
                    working.stop.set()
            elif working is None or working.stop.is_set():
                stop = threading.Event()
                before = None if working is None else working.thread
                thread = threading.Thread(
                    target=self._work,
                    args=[stream, stop, before],
                    name=f"headrace-poller-{stream}",
                    daemon=True,
                )
                self._working[stream] = _Working(thread, stop)
                thread.start()

    def _work(self, stream: str, stop: threading.Event, before: threading.Thread | None) -> None:
        if before is not None:
            before.join()  # two at once would poll the same page
        if stop.is_set():
            return
        try:
            self._until_ready(stream, stop)
        except HeadraceError as error:
            self._failed(stream, stop, error)
        except Exception as error:  # noqa: BLE001 - a poller's bug must not end the pipeline
            self._failed(stream, stop, InternalError(f"poller '{stream}': {type(error).__name__}: {error}"))

    def _until_ready(self, stream: str, stop: threading.Event) -> None:
        """Poll; a registry or a log that is not ready yet is waited for, as the API is."""
        from headrace.log.backoff import BackOff, when_ready

        waiting = threading.Event()

        def tell(pause: Waiting | None) -> None:
            if pause is None:
                self._say(stream, "goes on")
                waiting.clear()
            elif not waiting.is_set():
                self._say(stream, f"waits: {pause.error.message}")
                waiting.set()

        back_off = BackOff(tell)

        def work() -> None:
            poller, log = open_poller(self._project, stream, stop, tell=tell)
            back_off.over()
            try:
                poller.run()
            finally:
                with suppress(Exception):
                    log.close()

        when_ready(work, stop, back_off)

    def _failed(self, stream: str, stop: threading.Event, error: HeadraceError) -> None:
        if not stop.is_set():
            self._say(stream, f"has stopped: {error.message}" + (f" (fix: {error.fix})" if error.fix else ""))

    def _say(self, stream: str, what: str) -> None:
        self._journal.warning("poller", stream=stream, what=what)
        self.on_notice(f"poller of '{stream}' {what}")
