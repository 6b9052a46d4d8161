"""`served_page`: the page of a run, from its profile's options to a port. It never stops the pipeline."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headrace.errors import HeadraceError, RefusedError
from headrace.operate.page_options import PageOptions
from headrace.web.exposure import Exposure

if TYPE_CHECKING:
    from headrace.engine.local import EpochReport
    from headrace.log.backoff import Waiting
    from headrace.operate import Runtime
    from headrace.web.page.sources import PageSources

__all__ = ["Page", "check_page", "served_page"]

_STOP_S_MAX = 1


@dataclass(frozen=True)
class Page:
    """The page of a run: where it is (empty: nowhere), and what the run tells it."""

    address: str = ""
    sources: PageSources | None = None

    def epochs_too(self, told: Callable[[EpochReport], None]) -> Callable[[EpochReport], None]:
        """Return what tells `told` of an epoch, and the page too."""
        if self.sources is None:
            return told
        live = self.sources.live

        def both(report: EpochReport) -> None:
            told(report)
            live.epoch(report)

        return both

    def waiting_too(self, told: Callable[[Waiting | None], None]) -> Callable[[Waiting | None], None]:
        """Return what tells `told` that a run waits, and the page too."""
        if self.sources is None:
            return told
        live = self.sources.live

        def both(pause: Waiting | None) -> None:
            told(pause)
            live.waiting(pause)

        return both


def check_page(options: PageOptions) -> str | None:
    """Return the token. Raises ProfileError when the page would be open to strangers."""
    if options.serve == "off":
        return None
    exposure = _exposure(options)
    exposure.check()
    return exposure.token


def _exposure(options: PageOptions) -> Exposure:
    return Exposure(
        section="page",
        lets="read and redrive",
        host=options.host,
        token=None if options.token is None else options.token.reveal(),
        certificate=options.certificate,
        certificate_key=options.certificate_key,
        plain_http=options.plain_http,
        panels_token=None if options.panels_token is None else options.panels_token.reveal(),
    )


@contextmanager
def served_page(runtime: Runtime, tell: Callable[[str], None], *, wanted: bool = True) -> Iterator[Page]:
    """Serve the page of `runtime` while the block runs; without one when it is off or no port is free.

    `tell` is given in words what is other than expected. Raises ProfileError as `check_page` does.
    """
    options = runtime.project.profile.page
    token = check_page(options)
    if options.serve == "off" or not wanted:
        yield Page()
        return
    with ExitStack() as files:
        try:
            page = _opened(runtime, options, token, files, tell)
        except HeadraceError as error:
            tell(f"the page is not served: {error.message}")
            page = Page()
        yield page


def _opened(
    runtime: Runtime, options: PageOptions, token: str | None, files: ExitStack, tell: Callable[[str], None]
) -> Page:
    from headrace.web.page.app import page_app
    from headrace.web.page.guard import GuardRules
    from headrace.web.page.sources import PageSources
    from headrace.web.serving import bound_socket, serving

    try:
        listening = bound_socket(options.host, options.port)
    except RefusedError:
        listening = bound_socket(options.host, 0)
        tell(f"port {options.port} is taken, so the page is at port {listening.getsockname()[1]}")
    port = listening.getsockname()[1]
    secure = options.certificate is not None
    exposure = _exposure(options)
    rules = GuardRules(
        names=(*options.names, options.host),
        token=token,
        secure=secure,
        cookie=f"headrace_{port}",
        panels_token=exposure.panels_token,
    )
    sources = PageSources(runtime)
    tls = exposure.tls
    app = page_app(sources, rules)
    try:
        files.enter_context(serving(app, listening, tls=tls, stop_s_max=_STOP_S_MAX))
    except HeadraceError:
        sources.close()
        raise
    files.callback(sources.close)  # before the server ends: it waits for streams that are still open
    host = f"[{options.host}]" if ":" in options.host else options.host
    return Page(f"{'https' if secure else 'http'}://{host}:{port}", sources)
