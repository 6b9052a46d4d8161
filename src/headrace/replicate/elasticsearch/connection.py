"""Talks HTTP with Elasticsearch or OpenSearch, and says what an answer means: try again, or somebody acts."""

from __future__ import annotations

import json
import re
import ssl
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import httpx

from headrace.errors import HeadraceError, ProfileError, RefusedError, TransientError

if TYPE_CHECKING:
    from headrace.replicate.elasticsearch import ElasticsearchReplica

__all__ = ["Answer", "Connection", "reason_of", "typed"]

_TRANSIENT = frozenset({408, 429, 502, 503, 504})
_ES_MIN = (7, 10)
_PAUSES_S = (0.1, 0.3, 1.0, 3.0)
"""Between tries when the server has too much to do; then the follower's own back-off goes on."""
_JSON = {"content-type": "application/json"}
_NDJSON = {"content-type": "application/x-ndjson"}
_FIXES = {
    401: "correct user and password, or api_key, in the profile",
    403: "give the user manage, read, write and delete on the tables' indices and on that of the cursors",
    404: "look at the message, correct the target, then resume",
}
_BLOCKED_FIX = "end the block (PUT INDEX/_settings with index.blocks.… set to null), then resume"
_WORDS_MAX = 300
_QUOTED = re.compile(
    r"\. Preview of field's value| in document with id |\s+at \[Source|(?<=For input string)"
)
"""Where a server's reason begins to quote what it was given."""
_VALUE = re.compile(r"(?<=Numeric value) \([^)]*\)")


class Answer:
    """What the server said: its status, and its body, read as JSON when it is asked for."""

    def __init__(self, response: httpx.Response) -> None:
        self.status = response.status_code
        self.content = response.content

    @property
    def body(self) -> dict[str, Any]:
        """The body; empty when it is no JSON object."""
        try:
            found = json.loads(self.content)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}


class Connection:
    """One node of the server. Calls may raise TransientError and RefusedError."""

    def __init__(self, replica: ElasticsearchReplica, name: str) -> None:
        self._name = name
        self._ended = threading.Event()
        self._urls = _urls(replica, name)
        self._client = _client(replica, name, tls=any(url.startswith("https:") for url in self._urls))
        self.server = ""
        self.version = (0, 0)
        try:
            self._choose_node()
        except BaseException:
            self.close()
            raise

    def _choose_node(self) -> None:
        """Keep the first node that answers. Raises what the last one failed with."""
        for at, url in enumerate(self._urls):
            self._client.base_url = httpx.URL(url)
            try:
                self._meet()
            except TransientError:
                if at == len(self._urls) - 1:
                    raise
            else:
                return

    def _meet(self) -> None:
        facts = self.call("GET", "/").body.get("version", {})
        self.server = "OpenSearch" if facts.get("distribution") == "opensearch" else "Elasticsearch"
        numbers = str(facts.get("number", "")).split(".")
        if len(numbers) < 2 or not (numbers[0].isdigit() and numbers[1].isdigit()):
            raise RefusedError(
                f"what answers at {self.place} is neither Elasticsearch nor OpenSearch",
                fix="correct url in the profile",
            )
        self.version = (int(numbers[0]), int(numbers[1]))
        if self.server == "Elasticsearch" and self.version < _ES_MIN:
            raise RefusedError(
                f"Elasticsearch {facts['number']} is too old", fix="use 7.10 or later, or OpenSearch"
            )

    @property
    def place(self) -> str:
        """Where the node is."""
        return str(self._client.base_url).rstrip("/")

    def call(
        self, method: str, path: str, body: Any = None, *, accept: tuple[int, ...] = (), **params: Any
    ) -> Answer:
        """Send a request and return its answer: of status 200 or 201, or one that is in `accept`."""
        content = None if body is None else json.dumps(body).encode()
        for pause in (*_PAUSES_S, None):
            answer = self._send(method, path, content, _JSON, params)
            if answer.status in (200, 201, *accept):
                return answer
            if answer.status != 429 or pause is None or self._ended.wait(pause):
                raise typed(answer.status, reason_of(answer.body.get("error")), self.server or "the server")
        raise AssertionError

    def bulk(self, index: str, lines: bytes | memoryview, **params: Any) -> Answer:
        """Send `lines` to `_bulk` once; any status is given back."""
        return self._send("POST", f"/{index}/_bulk", bytes(lines), _NDJSON, params)

    def _send(
        self,
        method: str,
        path: str,
        content: bytes | None,
        headers: Mapping[str, str],
        params: Mapping[str, Any],
    ) -> Answer:
        try:
            return Answer(
                self._client.request(method, path, content=content, headers=headers, params=dict(params))
            )
        except (httpx.TransportError, RuntimeError) as error:
            # RuntimeError: the client was closed by `interrupt`.
            if isinstance(error, httpx.ConnectError) and "CERTIFICATE_VERIFY_FAILED" in str(error):
                raise RefusedError(
                    f"the certificate of {self.place} is not trusted",
                    fix='name the file with the certificates of who signed it: ca = "ca.pem"',
                ) from error
            # Not the text of a header that cannot be sent: it would hold the secret.
            what = type(error).__name__ if isinstance(error, httpx.LocalProtocolError) else str(error)
            raise TransientError(
                f"{self.place} cannot be reached: {what}", fix="it is tried again"
            ) from error

    def pause(self, seconds: float) -> None:
        """Wait. Raises TransientError when `interrupt` ends it."""
        if self._ended.wait(seconds):
            raise TransientError("the writing was ended", fix="it is tried again")

    def interrupt(self) -> None:
        """End what is under way in another thread."""
        self._ended.set()
        with suppress(Exception):
            self._client.close()

    def close(self) -> None:
        """Give the connection back."""
        with suppress(Exception):
            self._client.close()


def typed(status: int, reason: str, server: str) -> HeadraceError:
    """Return the error that says who must act."""
    if status in _TRANSIENT or (status >= 500 and status != 501):
        full = "flood-stage" in reason or "disk usage" in reason
        fix = "make room on the server's disk; it is tried again" if full else "it is tried again"
        return TransientError(f"{server} is not ready: {reason} ({status})", fix=fix)
    blocked = "blocked by" in reason or "index read-only" in reason
    fix = _BLOCKED_FIX if blocked else _FIXES.get(status, _FIXES[404])
    return RefusedError(f"{server} refuses: {reason} ({status})", fix=fix)


def reason_of(error: Any) -> str:
    """Return in one line why the server said no; the innermost cause says most."""
    if isinstance(error, str):
        return error[:_WORDS_MAX]
    if not isinstance(error, dict):
        return "without a reason"
    words = f"{error.get('type', 'error')}: {_without_values(str(error.get('reason', '')))}"
    cause = error.get("caused_by")
    if isinstance(cause, dict) and cause.get("reason"):
        words += f" ({_without_values(str(cause['reason']))})"
    return " ".join(words.split())[:_WORDS_MAX]


def _without_values(reason: str) -> str:
    """Leave out what the server quotes of a row: values and keys do not belong into a log."""
    return _VALUE.sub("", _QUOTED.split(reason)[0]).rstrip(" .,:")


def _urls(replica: ElasticsearchReplica, name: str) -> list[str]:
    found = []
    for text in replica.url.split(","):
        try:
            url = httpx.URL(text.strip())
        except httpx.InvalidURL:
            url = httpx.URL("")
        if url.userinfo:
            # Not shown: it holds a password.
            raise ProfileError(
                f"the url of replica '{name}' holds a user", fix='write user = "…" and password = "${env:…}"'
            )
        if url.scheme not in ("http", "https") or not url.host:
            raise ProfileError(
                f"the url of replica '{name}' is none", fix='write url = "http://localhost:9200"'
            )
        found.append(str(url))
    return found


def _client(replica: ElasticsearchReplica, name: str, *, tls: bool) -> httpx.Client:
    headers, auth = {}, None
    if replica.api_key is not None:
        key = replica.api_key.reveal()
        if not (key.isascii() and key.isprintable() and key == key.strip()):
            # Not shown: it is a secret.
            raise ProfileError(
                f"the api_key of replica '{name}' has signs that no header can hold, such as a line break",
                fix="take them out of the variable or file that holds it",
            )
        headers["authorization"] = f"ApiKey {key}"
    elif replica.user:
        auth = httpx.BasicAuth(replica.user, replica.password.reveal() if replica.password else "")
    # Reading the system's certificates takes longer than all else of a try, and is for nothing without TLS.
    verify: ssl.SSLContext | bool = tls
    if replica.ca:
        try:
            verify = ssl.create_default_context(cafile=replica.ca)
        except (OSError, ssl.SSLError) as error:
            raise ProfileError(
                f"the certificates of replica '{name}' cannot be read: {type(error).__name__}",
                fix="name a PEM file: ca = …",
            ) from error
    timeout = httpx.Timeout(replica.timeout.total_seconds(), connect=10.0)
    return httpx.Client(headers=headers, auth=auth, verify=verify, timeout=timeout, trust_env=False)
