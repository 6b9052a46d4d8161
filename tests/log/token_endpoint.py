"""A token endpoint (OAuth 2 client credentials) and the keys with which a broker checks its tokens."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

AUDIENCE = "kafka"
ISSUER = "headrace-tests"
_VALID_S = 600


@dataclass
class TokenEndpoint:
    """`url` gives tokens to the client with the right secret; `keys` is a JWKS file."""

    url: str
    keys: Path
    given: int = 0


def _base64url(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def _number(number: int) -> str:
    return _base64url(number.to_bytes((number.bit_length() + 7) // 8, "big"))


def _token(key: rsa.RSAPrivateKey, subject: str) -> str:
    now = int(time.time())
    claims = {"sub": subject, "iss": ISSUER, "aud": AUDIENCE, "iat": now, "exp": now + _VALID_S}
    parts = [{"alg": "RS256", "kid": "one", "typ": "JWT"}, claims]
    signed = ".".join(_base64url(json.dumps(part).encode()) for part in parts)
    signature = key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
    return f"{signed}.{_base64url(signature)}"


@contextmanager
def token_endpoint(folder: Path, client: str, secret: str) -> Iterator[TokenEndpoint]:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public = key.public_key().public_numbers()
    jwk = {"kty": "RSA", "kid": "one", "use": "sig", "alg": "RS256"}
    keys = folder / "jwks.json"
    keys.write_text(json.dumps({"keys": [{**jwk, "n": _number(public.n), "e": _number(public.e)}]}))
    right = "Basic " + base64.b64encode(f"{client}:{secret}".encode()).decode()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Authorization") != right:
                self._answer(401, {"error": "invalid_client"})
            else:
                endpoint.given += 1
                token = {"access_token": _token(key, client), "token_type": "Bearer"}
                self._answer(200, {**token, "expires_in": _VALID_S})

        def _answer(self, status: int, facts: dict[str, Any]) -> None:
            body = json.dumps(facts).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    endpoint = TokenEndpoint(f"http://127.0.0.1:{server.server_port}/token", keys)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield endpoint
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
