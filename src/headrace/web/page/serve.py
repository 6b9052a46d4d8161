"""`served_page`: the page of a run, from its profile's options to a port. It never stops the pipeline."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headrace.errors import HeadraceError, ProfileError, RefusedError
from headrace.operate.page_options import PageOptions

if TYPE_CHECKING:
    from headrace.engine.local import EpochReport
    from headrace.log.backoff import Waiting
    from headrace.operate import Runtime
    from headrace.web.page.sources import PageSources

__all__ = ["Page", "check_page", "served_page"]

_TOKEN_CHARACTERS_MIN = 16
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
    token = None if options.token is None else options.token.reveal()
    if token is not None and len(token) < _TOKEN_CHARACTERS_MIN:
        raise ProfileError(
            f"the token of the page has less than {_TOKEN_CHARACTERS_MIN} characters",
            fix='make a longer one: python3 -c "import secrets; print(secrets.token_urlsafe())"',
        )
    if (options.certificate is None) != (options.certificate_key is None):
        raise ProfileError(
            "page.certificate and page.certificate_key go together", fix="name both files, or none"
        )
    if _is_loopback(options.host):
        return token
    if token is None:
        raise ProfileError(
            f"the page on {options.host} without a token would let everybody read and redrive",
            fix='add page.token = "${env:PAGE_TOKEN}", or leave page.host at 127.0.0.1',
        )
    if options.certificate is None and options.plain_http != "anywhere":
        raise ProfileError(
            f"the page on {options.host} without TLS would send token and records in the clear",
            fix="add page.certificate and page.certificate_key; behind a proxy that ends TLS: "
            'page.plain_http = "anywhere"',
        )
    return token


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
    rules = GuardRules(
        names=(*options.names, options.host), token=token, secure=secure, cookie=f"headrace_{port}"
    )
    sources = PageSources(runtime)
    tls = None
    if options.certificate is not None and options.certificate_key is not None:
        tls = (options.certificate, options.certificate_key)
    app = page_app(sources, rules)
    try:
        files.enter_context(serving(app, listening, tls=tls, stop_s_max=_STOP_S_MAX))
    except HeadraceError:
        sources.close()
        raise
    files.callback(sources.close)  # before the server ends: it waits for streams that are still open
    host = f"[{options.host}]" if ":" in options.host else options.host
    return Page(f"{'https' if secure else 'http'}://{host}:{port}", sources)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
