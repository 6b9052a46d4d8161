"""One HTTP request of a poller: only to hosts that are allowed, bounded in time and size.

The address that a name resolves to is checked and then connected to, so a name cannot mean one address when
it is checked and another one when it is used (DNS rebinding). Every redirect is checked like the first URL.
No proxy is asked, and no credentials are sent.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from urllib.parse import SplitResult, urljoin, urlsplit

from headrace.errors import RefusedError, TransientError

__all__ = ["Answer", "Guard", "fetch"]

_REDIRECTS = (301, 302, 303, 307, 308)
_REDIRECTS_MAX = 5
_PORTS = {"http": 80, "https": 443}
_PIECE = 65_536
# IPv4 addresses written as IPv6 ones: for a gateway (NAT64, RFC 6052), and as it was done before (RFC 4291).
_HOLD_IPV4 = tuple(map(ipaddress.IPv6Network, ("64:ff9b::/96", "64:ff9b:1::/48", "::/96")))


@dataclass(frozen=True)
class Guard:
    """Where a poller may go.

    hosts     names that may be asked, in lower case
    ports     ports that may be asked
    private   whether addresses that are not public (loopback, private, link-local, …) may be asked
    """

    hosts: frozenset[str]
    ports: frozenset[int]
    private: bool = False

    @staticmethod
    def of(url: str, hosts: tuple[str, ...] = (), *, private: bool = False) -> Guard:
        """Return the guard of a poller of `url`: its own host, and `hosts` for redirects."""
        place = _split(url)
        allowed = frozenset(each.lower().rstrip(".") for each in (*hosts, place.hostname or ""))
        return Guard(allowed, frozenset((80, 443, _port(place))), private)

    def addresses(self, url: str) -> list[tuple[str, int]]:
        """Return the addresses that may be connected to for `url`.

        Raises RefusedError where it leads out of what is allowed, TransientError when its name is not known.
        """
        place = _split(url)
        host, port = (place.hostname or "").rstrip("."), _port(place)
        if host not in self.hosts:
            raise RefusedError(
                f"the poller may not ask the host '{host}'", fix="add it to hosts of the poller, if it should"
            )
        if port not in self.ports:
            raise RefusedError(
                f"the poller may not ask port {port} of '{host}'", fix="write the port into the poller's url"
            )
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise TransientError(f"the name '{host}' cannot be resolved: {error}") from None
        addresses = list(dict.fromkeys((str(each[4][0]), port) for each in found))
        if not self.private and not all(_is_public(address) for address, _ in addresses):
            raise RefusedError(
                f"'{host}' has an address that is not public, and the poller may not ask such",
                fix='write private_addresses = "yes" for the poller, if it should',
            )
        return addresses


def _is_public(address: str) -> bool:
    found = ipaddress.ip_address(address.partition("%")[0])
    inside = None
    if isinstance(found, ipaddress.IPv6Address):
        inside = found.ipv4_mapped or found.sixtofour
        if any(found in network for network in _HOLD_IPV4):
            inside = ipaddress.IPv4Address(found.packed[-4:])
    return found.is_global and not found.is_multicast and (inside is None or inside.is_global)


def _split(url: str) -> SplitResult:
    try:
        place = urlsplit(url)
        fine = place.scheme in _PORTS and bool(place.hostname) and _port(place) > 0
    except ValueError:
        fine = False
    odd = not url.isascii() or any(sign <= " " for sign in url)
    if not fine or place.username is not None or odd:
        raise RefusedError(
            "the poller's URL, or one that it is sent to, is none that it can ask",
            fix="write http:// or https://, a host, no user or password, other letters than ASCII as %XX",
        )
    return place


def _port(place: SplitResult) -> int:
    return place.port or _PORTS[place.scheme]


@dataclass(frozen=True)
class Answer:
    """What a server said; the names of `headers` are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def fetch(url: str, guard: Guard, *, timeout_s: float, body_bytes_max: int) -> Answer:
    """Ask for `url` and return the answer, whatever its status; redirects are followed.

    `timeout_s` is for all of it, redirects too. Raises TransientError when there is none in time, and
    RefusedError when the guard says no or the answer is larger than `body_bytes_max`.
    """
    end = time.monotonic() + timeout_s
    for _ in range(_REDIRECTS_MAX + 1):
        left = end - time.monotonic()
        if left <= 0:
            raise TransientError(f"'{_split(url).hostname}' does not answer: its redirects took too long")
        answer = _ask(url, guard, left, body_bytes_max)
        target = answer.headers.get("location")
        if answer.status not in _REDIRECTS or target is None:
            return answer
        following = urljoin(url, target)
        if url.startswith("https:") and not following.startswith("https:"):
            raise RefusedError("the poller is sent from https to a place without", fix="correct its url")
        url = following
    raise RefusedError(f"the poller is sent on more than {_REDIRECTS_MAX} times", fix="correct its url")


def _ask(url: str, guard: Guard, timeout_s: float, body_bytes_max: int) -> Answer:
    place, addresses = _split(url), guard.addresses(url)
    host = place.hostname or ""
    try:
        with _connected(addresses, timeout_s) as plain, _deadline(plain, timeout_s) as cut:
            used = plain
            if place.scheme == "https":
                used = ssl.create_default_context().wrap_socket(plain, server_hostname=host)
            connection = http.client.HTTPConnection(host, _port(place), timeout=timeout_s)
            connection.sock = used
            try:
                path = (place.path or "/") + (f"?{place.query}" if place.query else "")
                headers = {"Accept": "application/json", "User-Agent": "headrace", "Connection": "close"}
                connection.request("GET", path, headers=headers)
                said = connection.getresponse()
                body = _body(said, body_bytes_max)
                if cut.is_set() or said.length:
                    raise TransientError(f"the answer of '{host}' ended before it was whole")
                return Answer(said.status, {name.lower(): value for name, value in said.getheaders()}, body)
            finally:
                connection.close()
    except ssl.SSLCertVerificationError as error:
        raise RefusedError(
            f"the certificate of '{host}' is not trusted: {error.verify_message}", fix="correct the url"
        ) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise TransientError(f"'{host}' does not answer: {type(error).__name__}") from None


def _body(said: http.client.HTTPResponse, bytes_max: int) -> bytes:
    parts, size = [], 0
    while piece := said.read(_PIECE):
        parts.append(piece)
        size += len(piece)
        if size > bytes_max:
            raise RefusedError(
                f"an answer has more than {bytes_max:,} bytes",
                fix="ask for fewer at once, or raise body_bytes_max",
            )
    return b"".join(parts)


@contextmanager
def _connected(addresses: list[tuple[str, int]], timeout_s: float) -> Iterator[socket.socket]:
    failure: OSError | None = None
    for address in addresses:
        try:
            plain = socket.create_connection(address, timeout=timeout_s)
        except OSError as error:
            failure = error
            continue
        with plain:
            yield plain
        return
    raise failure or OSError("no address")


@contextmanager
def _deadline(plain: socket.socket, seconds: float) -> Iterator[threading.Event]:
    """Cut the connection after so long: a server that sends a byte now and then would hold it for ever.

    Gives an event that is set when it was cut.
    """
    cut, held = threading.Event(), plain.dup()

    def end() -> None:
        cut.set()
        with suppress(OSError):
            held.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield cut
    finally:
        timer.cancel()
        timer.join()
        held.close()
