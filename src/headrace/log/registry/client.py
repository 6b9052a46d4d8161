"""Talks to a Confluent-compatible schema registry over HTTP.

What an id means never changes, so it is asked once. A registry that does not answer, or answers that it
cannot now, is a TransientError: the caller waits and asks again. It is never a record's fault.
"""

from __future__ import annotations

import json
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit, urlunsplit

from headrace.errors import RefusedError, TransientError
from headrace.log.registry.avro_schema import SchemaInvalid
from headrace.log.registry.contents import Content, read_content
from headrace.log.registry.wire import SchemaKey

if TYPE_CHECKING:
    import httpx

__all__ = ["INVALID_SCHEMA", "AnswerRefused", "Registered", "RegistryClient"]

_MEDIA_TYPE = "application/vnd.schemaregistry.v1+json"
_CONNECT_S, _ANSWER_S = 5.0, 20.0
_CACHED_MAX = 10_000
_UNKNOWN_FOR_S = 10.0
"""How long the answer that an id is unknown holds: it may be registered a moment later."""
_REFERENCES_MAX = 200
_NOT_FOUND = (404, 40401, 40402, 40403)
_IDS_END = 1 << 31
_KEPT = ("_auth", "_named", "_login")
"""What goes along to another process."""
INVALID_SCHEMA = (422, 42201)
_FIXES = {
    **dict.fromkeys(INVALID_SCHEMA, "correct the schema"),
    42205: "set the mode of the subject, or of the registry, to READWRITE, or use another subject",
}


class AnswerRefused(RefusedError):
    """The registry answered that it will not. `code` is that of its API, `told` its own words."""

    def __init__(self, message: str, *, fix: str = "", code: int = 0, told: str = "") -> None:
        super().__init__(message, fix=fix)
        self.code = code
        self.told = told


@dataclass(frozen=True)
class Registered:
    """A version of a subject."""

    subject: str
    version: int
    id: int
    kind: str
    text: str


class RegistryClient:
    """A registry's address, and what it said about ids. Connects when first asked; safe for threads.

    `named` and `login` say in errors where address and user were given, so that they can be corrected there.
    """

    def __init__(
        self,
        url: str,
        *,
        user: str | None = None,
        password: str | None = None,
        named: str = "'registry' in headrace.toml",
        login: str = "registry_user and registry_password in headrace.toml",
    ) -> None:
        parts, port = urlsplit(""), None
        # A password with a slash in it ends up in the place of the port, and must not be told.
        with suppress(ValueError):
            parts = urlsplit(url)
            port = parts.port or 0
        if parts.scheme not in ("http", "https") or not parts.hostname or port is None:
            raise RefusedError(
                "the address of the schema registry is no URL",
                fix="write for example http://localhost:8081; a user and password in it need %2F for a slash",
            )
        host = parts.hostname if ":" not in parts.hostname else f"[{parts.hostname}]"
        place = f"{host}:{port}" if port else host
        # A password in the URL must not come back in an error's text.
        self.url = urlunsplit((parts.scheme, place, parts.path.rstrip("/"), "", ""))
        self._auth = (user or parts.username or "", password or parts.password or "")
        self._named, self._login = named, login
        self._client: httpx.Client | None = None
        self._lock = threading.Lock()
        self._known: OrderedDict[SchemaKey, Content] = OrderedDict()
        self._unknown: OrderedDict[SchemaKey, float] = OrderedDict()

    def __reduce__(self) -> tuple[Any, ...]:
        # Another process opens its own connections and asks again.
        return RegistryClient, (self.url,), {name: vars(self)[name] for name in _KEPT}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)

    def close(self) -> None:
        """Give back the connections."""
        with self._lock:
            if self._client is not None:
                self._client.close()
            self._client = None

    # -- schemas by what a record says ---------------------------------------------------------------------

    def schema(self, key: SchemaKey) -> Content | None:
        """Return the schema of an id or guid; None when the registry says that it has none.

        Raises TransientError, RefusedError, and SchemaInvalid for one that cannot be understood.
        """
        with self._lock:
            found = self._known.get(key)
            if found is not None or time.monotonic() < self._unknown.get(key, 0.0):
                return found
        place = f"/schemas/ids/{key}" if isinstance(key, int) else f"/schemas/guids/{key}"
        # Ids are signed to a registry; four bytes of noise in a record may say more.
        answer = None if isinstance(key, int) and key >= _IDS_END else self._get_or_none(place)
        if answer is None:
            _remember(self._unknown, key, time.monotonic() + _UNKNOWN_FOR_S, self._lock)
            return None
        texts: dict[str, str] = {}
        self._gather(answer.get("references") or (), texts, 0)
        content = read_content(_kind_of(answer), str(answer.get("schema", "")), texts)
        _remember(self._known, key, content, self._lock)
        return content

    def _gather(self, references: Sequence[Mapping[str, Any]], texts: dict[str, str], depth: int) -> None:
        """Fetch what a schema refers to, what that needs itself first."""
        for reference in references:
            name = str(reference["name"])
            if name in texts or depth > _REFERENCES_MAX or len(texts) > _REFERENCES_MAX:
                continue
            place = f"/subjects/{_quoted(reference['subject'])}/versions/{reference['version']}"
            answer = self._get_or_none(f"{place}?deleted=true")
            if answer is None:
                raise SchemaInvalid(
                    f"it refers to version {reference['version']} of subject '{reference['subject']}', "
                    "which the registry does not hold"
                )
            self._gather(answer.get("references") or (), texts, depth + 1)
            texts[name] = str(answer["schema"])

    # -- subjects ------------------------------------------------------------------------------------------

    def subjects(self) -> list[str]:
        """Return the subjects."""
        return [str(each) for each in self._ask("GET", "/subjects")]

    def versions(self, subject: str) -> list[int]:
        """Return the versions of a subject; none when there is no such subject."""
        answer = self._get_or_none(f"/subjects/{_quoted(subject)}/versions")
        return [int(each) for each in answer or ()]

    def version(self, subject: str, version: int | str = "latest") -> Registered | None:
        """Return a version of a subject; None when there is none."""
        answer = self._get_or_none(f"/subjects/{_quoted(subject)}/versions/{version}")
        return None if answer is None else _registered(answer)

    def compatibility(self, subject: str) -> str:
        """Return the level that holds for a subject."""
        answer = self._ask("GET", f"/config/{_quoted(subject)}?defaultToGlobal=true")
        return str(answer.get("compatibilityLevel", "BACKWARD"))

    def find(self, subject: str, kind: str, text: str) -> Registered | None:
        """Return the version of a subject that has this content; None when there is none."""
        try:
            return _registered(self._ask("POST", f"/subjects/{_quoted(subject)}", _body(kind, text)))
        except AnswerRefused as error:
            if error.code in _NOT_FOUND:
                return None
            raise

    def register(self, subject: str, kind: str, text: str) -> int:
        """Register a schema, unless it is; returns its id. Raises AnswerRefused with the reasons."""
        try:
            answer = self._ask("POST", f"/subjects/{_quoted(subject)}/versions", _body(kind, text))
        except AnswerRefused as error:
            if error.code != 409:
                raise
            raise AnswerRefused(
                f"the schema is incompatible with subject '{subject}': {_reasons(error.told)}",
                fix="make the schema compatible, for example with defaults, or use another subject",
                code=409,
                told=error.told,
            ) from None
        return int(answer["id"])

    def check(self, subject: str, kind: str, text: str) -> list[str]:
        """Return why a schema is incompatible with its subject; empty when it could be registered.

        Raises SchemaInvalid, or AnswerRefused with a code of INVALID_SCHEMA, for a text that is no schema.
        """
        place = f"/compatibility/subjects/{_quoted(subject)}/versions?verbose=true"
        try:
            answer = self._ask("POST", place, _body(kind, text))
        except AnswerRefused as error:
            if error.code not in _NOT_FOUND:
                raise
            read_content(kind, text)  # the registry has not looked at it
            return []  # a subject without versions takes anything that is a schema
        if answer.get("is_compatible"):
            return []
        return [str(each) for each in answer.get("messages") or ["the registry gives no reason"]]

    # -- HTTP ----------------------------------------------------------------------------------------------

    def _get_or_none(self, place: str) -> Any:
        try:
            return self._ask("GET", place)
        except AnswerRefused as error:
            if error.code in _NOT_FOUND:
                return None
            raise

    def _ask(self, method: str, place: str, body: Mapping[str, Any] | None = None) -> Any:
        import httpx

        content = None if body is None else json.dumps(body).encode()
        try:
            answer = self._opened().request(method, self.url + place, content=content)
        except (httpx.TransportError, httpx.DecodingError) as error:
            what = "in time" if isinstance(error, httpx.TimeoutException) else f"({type(error).__name__})"
            raise TransientError(
                f"the schema registry at {self.url} does not answer {what}",
                fix=f"start it, or correct {self._named}",
            ) from None
        return self._read(answer)

    def _read(self, answer: httpx.Response) -> Any:
        status = answer.status_code
        if status >= 500 or status in (408, 429):
            raise TransientError(
                f"the schema registry at {self.url} answers {status}: it cannot now",
                fix="see what its own log says; asking again may help",
            )
        if status in (401, 403):
            raise RefusedError(
                f"the schema registry at {self.url} refuses this user ({status})",
                fix=f"correct {self._login}",
            )
        try:
            document = answer.json()
        except ValueError:
            document = None
        if answer.is_success and document is not None:
            return document
        code = document.get("error_code") if isinstance(document, dict) else None
        if not isinstance(code, int):
            raise RefusedError(
                f"what answers at {self.url} is no schema registry ({status})",
                fix=f"correct {self._named}; it may need a path, such as /apis/ccompat/v7",
            )
        told = str(document.get("message", ""))
        raise AnswerRefused(
            f"the schema registry at {self.url} answers {code}: {told[:2000]}",
            fix=_FIXES.get(code, "see what its API means by this code, and change what it does not take"),
            code=code,
            told=told,
        )

    def _opened(self) -> httpx.Client:
        import httpx

        with self._lock:
            if self._client is None:
                self._client = httpx.Client(
                    auth=self._auth if any(self._auth) else None,
                    headers={"Accept": _MEDIA_TYPE, "Content-Type": _MEDIA_TYPE},
                    timeout=httpx.Timeout(_ANSWER_S, connect=_CONNECT_S),
                    # A proxy for the world outside must not be asked for what runs on this machine.
                    trust_env=urlsplit(self.url).hostname not in ("localhost", "127.0.0.1", "::1"),
                )
            return self._client


def _remember(cache: OrderedDict[SchemaKey, Any], key: SchemaKey, value: Any, lock: threading.Lock) -> None:
    with lock:
        cache[key] = value
        while len(cache) > _CACHED_MAX:
            cache.popitem(last=False)


def _body(kind: str, text: str) -> dict[str, Any]:
    return {"schema": text, "schemaType": kind}


def _kind_of(answer: Mapping[str, Any]) -> str:
    return str(answer.get("schemaType") or "AVRO")


def _registered(answer: Mapping[str, Any]) -> Registered:
    return Registered(
        str(answer["subject"]),
        int(answer["version"]),
        int(answer["id"]),
        _kind_of(answer),
        str(answer["schema"]),
    )


def _reasons(told: str) -> str:
    return (told.partition("details:")[2].strip() or told)[:2000]


def _quoted(subject: object) -> str:
    return quote(str(subject), safe="")
