"""Who may ask the page: host names, origins, the token, the size of a body; and what browsers are told.

It stands before every route, so that a route which is added later is guarded too.
"""

from __future__ import annotations

import hashlib
import hmac
import html
import json
import re
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlsplit

from headrace.web.exposure import leads_here

__all__ = ["BODY_BYTES_MAX", "Guard", "GuardRules"]

BODY_BYTES_MAX = 1024 * 1024
_SAFE = ("GET", "HEAD", "OPTIONS")
_COOKIE_S = 7 * 24 * 3600
_OF_PANELS = re.compile(r"/metrics|/api/panels(/[0-9]+/rows)?")
"""What may be read with the token for panels."""

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; font-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_HEADERS = (
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


@dataclass(frozen=True)
class GuardRules:
    """`names`: host names beside localhost and IP addresses. `token` None: whoever reaches the port may ask.

    `panels_token`: who shows it reads panels and metrics, and may do nothing else; it opens no page.
    `secure`: the page is served with TLS. `cookie` names the cookie, which all ports of a host share.
    """

    names: tuple[str, ...]
    token: str | None
    secure: bool
    cookie: str
    panels_token: str | None = None


class Guard:
    """ASGI middleware; see `GuardRules`.

    A host name that is not ours is refused on every verb: a stranger's page whose name was made to lead
    here (DNS rebinding) must not read. What changes something must come from our own page, or from no page.
    """

    def __init__(self, app: Any, rules: GuardRules) -> None:
        self._app = app
        self._rules = rules
        self._names = {name.lower() for name in rules.names}
        secret = (rules.token or "").encode()
        self._token = secret
        # What the cookie holds opens the page, but does not tell the token.
        self._session = hmac.new(secret, b"headrace page", hashlib.sha256).hexdigest()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer it."""
        if scope["type"] != "http":
            return  # nothing here speaks websockets
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        refusal = self._refusal(scope, headers)
        if refusal is not None:
            await _answer(send, *refusal)
            return
        if self._rules.token is not None and not self._known(headers):
            if self._rules.panels_token is not None and _shows(headers, self._rules.panels_token.encode()):
                await self._read_panels(scope, receive, send)
            elif scope["path"] == "/login" and scope["method"] == "POST":
                await self._login(await _body(receive), send)
            elif "text/html" in headers.get("accept", ""):
                await _answer(send, 401, _login_page(""), kind="text/html; charset=utf-8")
            else:
                document = _error("the token is missing or wrong", "send 'Authorization: Bearer TOKEN'")
                await _answer(send, 401, document, extra=((b"www-authenticate", b"Bearer"),))
            return
        await self._app(scope, _bounded(receive), _with_headers(send))

    def _refusal(self, scope: Scope, headers: dict[str, str]) -> tuple[int, bytes] | None:
        host = headers.get("host", "")
        if not leads_here(host, self._names):
            document = _error(
                "this host name is not one of the page's",
                "open the page by its address, or add the name to page.names in the profile",
            )
            return 421, document
        if scope["method"] not in _SAFE:
            origin = headers.get("origin")
            site = headers.get("sec-fetch-site", "same-origin")
            if site not in ("same-origin", "none") or (origin is not None and not _same(origin, host)):
                return 403, _error("the request comes from another site", "send it from the page itself")
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > BODY_BYTES_MAX:
            return 413, _error("the body is larger than 1 MiB", "send less")
        return None

    async def _read_panels(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "GET" and _OF_PANELS.fullmatch(scope["path"]):
            await self._app(scope, _bounded(receive), _with_headers(send))
            return
        document = _error("this token reads panels and metrics alone", "ask with the token of the page")
        await _answer(send, 403, document)

    def _known(self, headers: dict[str, str]) -> bool:
        if _shows(headers, self._token):
            return True
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(self._rules.cookie)
        except CookieError:
            return False
        return cookie is not None and hmac.compare_digest(cookie.value.encode(), self._session.encode())

    async def _login(self, body: bytes, send: Send) -> None:
        given = parse_qs(body.decode("latin-1"), max_num_fields=4).get("token", [""])[0]
        if not hmac.compare_digest(given.encode(), self._token):
            page = _login_page("That is not the token.")
            await _answer(send, 401, page, kind="text/html; charset=utf-8")
            return
        secure = "; Secure" if self._rules.secure else ""
        cookie = (
            f"{self._rules.cookie}={self._session}; Path=/; Max-Age={_COOKIE_S}; HttpOnly; SameSite=Strict"
            + secure
        )
        await _answer(send, 303, b"", extra=((b"location", b"/"), (b"set-cookie", cookie.encode())))


def _shows(headers: dict[str, str], token: bytes) -> bool:
    kind, _, given = headers.get("authorization", "").partition(" ")
    return kind.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), token)


def _same(origin: str, host: str) -> bool:
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and parts.netloc.lower() == host.lower()


def _error(message: str, fix: str) -> bytes:
    return json.dumps({"error": message, "fix": fix}).encode()


async def _answer(
    send: Send,
    status: int,
    body: bytes,
    *,
    kind: str = "application/json",
    extra: tuple[tuple[bytes, bytes], ...] = (),
) -> None:
    headers = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode())]
    headers += [(b"cache-control", b"no-store"), *_HEADERS, *extra]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _body(receive: Receive) -> bytes:
    body = b""
    more = True
    while more and len(body) <= BODY_BYTES_MAX:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


def _bounded(receive: Receive) -> Receive:
    """Return a `receive` that ends a body without an announced length when it grows too large."""
    size = 0

    async def bounded() -> MutableMapping[str, Any]:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        return {"type": "http.disconnect"} if size > BODY_BYTES_MAX else message

    return bounded


def _with_headers(send: Send) -> Send:
    async def sending(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            headers = list(message.get("headers", ()))
            if not any(name == b"cache-control" for name, _ in headers):
                headers.append((b"cache-control", b"no-store"))
            message["headers"] = headers + list(_HEADERS)
        await send(message)

    return sending


def _login_page(problem: str) -> bytes:
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Headrace</title></head>
<body><main><h1>Headrace</h1><p role="alert">{html.escape(problem)}</p>
<form method="post" action="/login">
<label>Token of this page <input type="password" name="token" autocomplete="current-password" autofocus>
</label> <button>Open</button></form>
<p>It is the <code>page.token</code> of the profile that the pipeline runs with.</p></main></body></html>
""".encode()
