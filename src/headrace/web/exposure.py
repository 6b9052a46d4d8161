"""What an HTTP server needs before it may listen where strangers reach it: a token, and TLS."""

from __future__ import annotations

import ipaddress
from collections.abc import Container
from dataclasses import dataclass
from urllib.parse import urlsplit

from headrace.errors import ProfileError

__all__ = ["Exposure", "leads_here"]

_TOKEN_CHARACTERS_MIN = 16


@dataclass(frozen=True, kw_only=True)
class Exposure:
    """Where a server listens and how it is guarded, as a profile says.

    section       of the profile, for errors: `page`, `ingest`
    lets          what somebody without the token could do otherwise
    plain_http    `anywhere`: beyond loopback without TLS too, behind a proxy that ends it
    panels_token  the page's second token, for programs that may read panels alone
    """

    section: str
    lets: str
    host: str
    token: str | None
    certificate: str | None
    certificate_key: str | None
    plain_http: str
    panels_token: str | None = None

    @property
    def tls(self) -> tuple[str, str] | None:
        """The files of certificate and key; None: plain HTTP."""
        if self.certificate is None or self.certificate_key is None:
            return None
        return self.certificate, self.certificate_key

    def check(self) -> None:
        """Raise ProfileError when the server would be open to strangers, or talk to them in the clear."""
        section, host = self.section, self.host
        for name, token in (("token", self.token), ("panels_token", self.panels_token)):
            if token is not None and len(token) < _TOKEN_CHARACTERS_MIN:
                raise ProfileError(
                    f"{section}.{name} has less than {_TOKEN_CHARACTERS_MIN} characters",
                    fix='make a longer one: python3 -c "import secrets; print(secrets.token_urlsafe())"',
                )
        if self.panels_token is not None and self.token is None:
            raise ProfileError(
                f"without {section}.token everybody may do what {section}.panels_token is to leave out",
                fix=f'add {section}.token = "${{env:NAME}}", or take {section}.panels_token out',
            )
        if self.panels_token is not None and self.panels_token == self.token:
            raise ProfileError(
                f"{section}.panels_token is {section}.token, which lets everything be done",
                fix="let it be another one",
            )
        if (self.certificate is None) != (self.certificate_key is None):
            raise ProfileError(
                f"{section}.certificate and {section}.certificate_key go together",
                fix="name both files, or none",
            )
        if _is_loopback(host):
            return
        if self.token is None:
            raise ProfileError(
                f"listening on {host} without a token would let everybody {self.lets}",
                fix=f'add {section}.token = "${{env:NAME}}", or listen on 127.0.0.1',
            )
        if self.certificate is None and self.plain_http != "anywhere":
            raise ProfileError(
                f"listening on {host} without TLS would send token and records in the clear",
                fix=f"add {section}.certificate and {section}.certificate_key; behind a proxy that ends TLS: "
                f'{section}.plain_http = "anywhere"',
            )


def leads_here(host: str, names: Container[str] = ()) -> bool:
    """Return whether a request's `Host` is localhost, an IP address, or one of `names` (in small letters).

    Any other name may be a stranger's that was made to lead here (DNS rebinding), so that a browser lets
    the stranger's page ask what only we may be asked.
    """
    try:
        name = (urlsplit(f"//{host}").hostname or "").lower()
        if name == "localhost" or name in names:
            return True
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
