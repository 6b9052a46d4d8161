"""HTTP in front of the log: `POST /streams/NAME/records`, and `GET /health` for whoever watches it."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse

from headrace.errors import HeadraceError
from headrace.produce.ingest import Admitted, Ingest, IngestAnswer, IngestLimits
from headrace.produce.ingest_body import (
    ContentType,
    RefusedRequest,
    content_type_of,
    decompressed,
    key_bytes,
    read_records,
    too_large,
)
from headrace.web.exposure import leads_here

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["ingest_app"]

_BODY_S_MAX = 30
# Small bodies are read where they are: handing them to a thread costs more than reading them.
_INLINE_BYTES_MAX = 64 * 1024

Tell = Callable[[str], None]


def ingest_app(
    ingest: Ingest, *, key_fields: Mapping[str, str | None], token: str | None, tell: Tell
) -> FastAPI:
    """Return the app. `key_fields` has each stream's key field; `tell` is given what an operator must know.

    `token` None: whoever reaches the port may append, but not under a stranger's host name.
    """
    app = FastAPI(title="Headrace ingest", docs_url=None, redoc_url=None, openapi_url=None)
    secret = None if token is None else token.encode()

    async def append(request: Request) -> JSONResponse:
        name = request.path_params["name"]
        _require_sender(request, secret)
        ingest.require_stream(name)
        headers = request.headers
        kind = content_type_of(headers.get("content-type", ""))
        limits = ingest.limits
        with ingest.admitted(_announced(request, limits.body_bytes_max)) as admitted:
            key_field = request.query_params.get("key") or key_fields.get(name)
            values, keys = await _records(request, kind, key_field, limits, admitted)
            future = ingest.submit(name, values, keys, idempotency_key=headers.get("idempotency-key"))
            answer: IngestAnswer = await asyncio.wrap_future(future)
        again = {"Idempotent-Replayed": "true"} if answer.repeated else None
        return JSONResponse(answer.to_json(), headers=again)

    # A plain route: FastAPI's own looks for parameters and dependencies, of which there are none here.
    app.add_route("/streams/{name}/records", append, methods=["POST"])

    @app.get("/health")
    async def health() -> JSONResponse:
        try:
            await run_in_threadpool(ingest.check)
        except HeadraceError as error:
            tell(str(error))
            return JSONResponse({"status": "the log is not ready"}, status_code=503)
        return JSONResponse({"status": "ok"})

    @app.exception_handler(RefusedRequest)
    async def refuse(request: Request, error: RefusedRequest) -> JSONResponse:
        if isinstance(error.__cause__, HeadraceError):
            tell(str(error.__cause__))  # it names files and servers, which are no sender's business
        headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
        if error.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return JSONResponse({"error": error.message, "fix": error.fix}, error.status, headers)

    @app.exception_handler(404)
    @app.exception_handler(405)
    async def unknown(request: Request, error: Exception) -> JSONResponse:
        known = {"error": "there is nothing here", "fix": "POST /streams/NAME/records, or GET /health"}
        return JSONResponse(known, getattr(error, "status_code", 404), getattr(error, "headers", None))

    return app


async def _records(
    request: Request, kind: ContentType, key_field: str | None, limits: IngestLimits, admitted: Admitted
) -> tuple[list[bytes], pa.Array | None]:
    """Return the records of a body and their keys; `admitted` is told what is held meanwhile and then."""
    packed = request.headers.get("content-encoding", "")

    def read(body: bytes) -> tuple[list[bytes], pa.Array | None]:
        plain = decompressed(
            body,
            packed,
            bytes_max=limits.body_bytes_max,
            grows=lambda size: admitted.holds(len(body) + size),
        )
        records = read_records(
            plain,
            kind,
            key=key_field,
            record_bytes_max=limits.record_bytes_max,
            records_max=limits.records_max,
        )
        keys = None if key_field is None else key_bytes(records, key_field)
        # What waits from now on are the records: what they came in is gone.
        admitted.holds(records.memory + (0 if keys is None else keys.nbytes))
        return records.values, keys

    body = await _body(request, limits.body_bytes_max)
    small = len(body) <= _INLINE_BYTES_MAX and not packed
    return read(body) if small else await run_in_threadpool(read, body)


def _require_sender(request: Request, secret: bytes | None) -> None:
    if secret is None:
        if not leads_here(request.headers.get("host", "")):
            raise RefusedRequest(
                421, "this host name is not ours", fix="send to the address or localhost, or set ingest.token"
            )
        return
    kind, _, given = request.headers.get("authorization", "").partition(" ")
    # Compared in constant time: how long a wrong guess takes must not say how much of it was right.
    if not hmac.compare_digest(given.strip().encode("latin-1"), secret) or kind.lower() != "bearer":
        raise RefusedRequest(
            401, "the token is missing or wrong", fix="send the header 'Authorization: Bearer TOKEN'"
        )


def _announced(request: Request, bytes_max: int) -> int:
    """Return how large the body will be at most."""
    text = request.headers.get("content-length", "")
    if not text.isdecimal():
        return bytes_max
    if int(text) > bytes_max:
        raise too_large(bytes_max)
    return int(text)


async def _body(request: Request, bytes_max: int) -> bytes:
    pieces: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(_BODY_S_MAX):
            more = True
            while more:
                message = await request.receive()
                if message["type"] != "http.request":
                    raise RefusedRequest(400, "the body was cut off", fix="send all of it again")
                pieces.append(message.get("body", b""))
                more = message.get("more_body", False)
                size += len(pieces[-1])
                if size > bytes_max:
                    raise too_large(bytes_max)
    except TimeoutError:
        raise RefusedRequest(
            408, f"the body did not arrive within {_BODY_S_MAX} s", fix="send it again"
        ) from None
    return b"".join(pieces)
