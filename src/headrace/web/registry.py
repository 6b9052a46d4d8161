"""The embedded schema registry over HTTP, as clients of Confluent's registry expect it.

Every route is one call of `Registry`; what it means stands there. An error is
`{"error_code": …, "message": …}`.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse, Response

from headrace.errors import HeadraceError, RefusedError, TransientError
from headrace.log.registry.rules import Registry, RegistryRefusal
from headrace.log.registry.rules import Request as SchemaRequest
from headrace.log.registry.storage import Storage, StoredSchema, StoredVersion

__all__ = ["BODY_BYTES_MAX", "RegistryServer", "registry_app"]

BODY_BYTES_MAX = 4 * 1024 * 1024
_MEDIA_TYPE = "application/vnd.schemaregistry.v1+json"


def _answer(content: Any, status: int = 200) -> JSONResponse:
    return JSONResponse(content, status_code=status, media_type=_MEDIA_TYPE)


def _refused(status: int, code: int, message: str) -> JSONResponse:
    return _answer({"error_code": code, "message": message}, status)


def _schema_facts(schema: StoredSchema) -> dict[str, Any]:
    """What every answer with a schema has; AVRO is what a client assumes, so it is not said."""
    facts: dict[str, Any] = {} if schema.kind == "AVRO" else {"schemaType": schema.kind}
    if schema.references:
        facts["references"] = [
            {"name": each.name, "subject": each.subject, "version": each.version}
            for each in schema.references
        ]
    return {**facts, "guid": schema.guid, "schema": schema.text}


def _version_facts(found: StoredVersion) -> dict[str, Any]:
    facts = {"subject": found.subject, "version": found.version, "id": found.schema.id}
    return {**facts, **_schema_facts(found.schema)}


async def _body(request: Request) -> Any:
    """Read a JSON body of a bounded size, whatever its content type says."""
    content = b""
    async for chunk in request.stream():
        content += chunk
        if len(content) > BODY_BYTES_MAX:
            raise RegistryRefusal(413, 413, f"The body is larger than {BODY_BYTES_MAX} bytes")
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        raise RegistryRefusal(422, 422, "The body is not JSON") from None


def _flag(request: Request, name: str) -> bool:
    return request.query_params.get(name, "").lower() == "true"


def _flags(request: Request, *names: str) -> dict[str, bool]:
    return {_PARAMETERS[name]: _flag(request, name) for name in names}


_PARAMETERS = {
    "deleted": "deleted",
    "deletedOnly": "deleted_only",
    "latestOnly": "latest_only",
    "normalize": "normalize",
    "permanent": "permanent",
    "force": "force",
    "defaultToGlobal": "default_to_global",
}


def registry_app(registry: Registry) -> FastAPI:
    """Return the application; whoever runs it closes `registry`."""
    app = FastAPI(title="Headrace schema registry", openapi_url=None, docs_url=None, redoc_url=None)
    app.add_exception_handler(RegistryRefusal, _tell_refusal)
    app.add_exception_handler(HeadraceError, _tell_error)
    for status in (404, 405):  # of a place or a method that there is not
        app.add_exception_handler(status, _tell_http)
    app.add_exception_handler(Exception, _tell_bug)
    app.middleware("http")(_refuse_browsers)
    for routes in (_schema_routes, _compatibility_routes, _version_routes, _setting_routes):
        routes(app, registry)
    return app


async def _refuse_browsers(request: Request, call: Callable[[Request], Awaitable[Response]]) -> Response:
    """Let no page of another site write through somebody's browser; programs send no Origin."""
    if "origin" in request.headers:
        return _refused(403, 403, "Requests from web pages are not taken")
    return await call(request)


def _tell_refusal(request: Request, error: Exception) -> Response:
    if not isinstance(error, RegistryRefusal):
        return _tell_bug(request, error)
    return _refused(error.status, error.code, error.message)


def _tell_error(_: Request, error: Exception) -> Response:
    busy = isinstance(error, TransientError)
    return _refused(503 if busy else 500, 50003 if busy else 50001, str(error))


def _tell_http(_: Request, error: Exception) -> Response:
    status = int(getattr(error, "status_code", 500))
    return _refused(status, status, f"HTTP {status}: {getattr(error, 'detail', '')}")


def _tell_bug(_: Request, error: Exception) -> Response:
    return _refused(500, 50001, f"Error in the backend datastore: {type(error).__name__}")


def _schema_routes(app: FastAPI, registry: Registry) -> None:
    @app.get("/")
    def root() -> Response:
        return _answer({})

    @app.get("/contexts")
    def contexts() -> Response:
        return _answer(["."])

    @app.get("/v1/metadata/id")
    def metadata() -> Response:
        return _answer({"scope": {"path": [], "clusters": {"schema-registry-cluster": "headrace"}}})

    @app.get("/schemas")
    def schemas(request: Request) -> Response:
        prefix = request.query_params.get("subjectPrefix", "")
        found = registry.schemas(prefix=prefix, **_flags(request, "deleted", "latestOnly"))
        return _answer([_version_facts(each) for each in _page(request, found)])

    @app.get("/schemas/types")
    def kinds() -> Response:
        return _answer(registry.kinds())

    @app.get("/schemas/guids/{guid}")
    def by_guid(guid: str) -> Response:
        return _answer(_schema_facts(registry.schema_by_guid(guid)))

    @app.get("/schemas/ids/{number}")
    def by_id(number: str, request: Request) -> Response:
        facts = _schema_facts(registry.schema(_id(number)))
        if _flag(request, "fetchMaxId"):
            facts["maxId"] = registry.last_id()
        return _answer(facts)

    @app.get("/schemas/ids/{number}/schema")
    def text_by_id(number: str) -> Response:
        return _text(registry.schema(_id(number)))

    @app.get("/schemas/ids/{number}/subjects")
    def subjects_of(number: str, request: Request) -> Response:
        found = registry.versions_of_schema(_id(number), **_flags(request, "deleted"))
        return _answer(list(dict.fromkeys(each.subject for each in found)))

    @app.get("/schemas/ids/{number}/versions")
    def versions_of(number: str, request: Request) -> Response:
        found = registry.versions_of_schema(_id(number), **_flags(request, "deleted"))
        return _answer([{"subject": each.subject, "version": each.version} for each in found])


def _compatibility_routes(app: FastAPI, registry: Registry) -> None:
    def check(subject: str, version: str | None, request: Request, body: Any) -> Response:
        reasons = registry.check(subject, SchemaRequest.of(body), version, **_flags(request, "normalize"))
        verdict: dict[str, Any] = {"is_compatible": not reasons}
        return _answer({**verdict, "messages": reasons} if _flag(request, "verbose") else verdict)

    @app.post("/compatibility/subjects/{subject:path}/versions/{version}")
    def check_one(subject: str, version: str, request: Request, body: Any = Depends(_body)) -> Response:  # noqa: B008
        return check(subject, version, request, body)

    @app.post("/compatibility/subjects/{subject:path}/versions")
    def check_all(subject: str, request: Request, body: Any = Depends(_body)) -> Response:  # noqa: B008
        return check(subject, None, request, body)


def _version_routes(app: FastAPI, registry: Registry) -> None:
    @app.get("/subjects")
    def subjects(request: Request) -> Response:
        prefix = request.query_params.get("subjectPrefix", "")
        found = registry.subjects(prefix=prefix, **_flags(request, "deleted", "deletedOnly"))
        return _answer(_page(request, found))

    @app.get("/subjects/{subject:path}/versions/{version}/schema")
    def text(subject: str, version: str, request: Request) -> Response:
        return _text(registry.version(subject, version, **_flags(request, "deleted")).schema)

    @app.get("/subjects/{subject:path}/versions/{version}/referencedby")
    def referring(subject: str, version: str) -> Response:
        return _answer(registry.referring(subject, version))

    @app.get("/subjects/{subject:path}/versions/{version}")
    def version_of(subject: str, version: str, request: Request) -> Response:
        return _answer(_version_facts(registry.version(subject, version, **_flags(request, "deleted"))))

    @app.delete("/subjects/{subject:path}/versions/{version}")
    def delete_version(subject: str, version: str, request: Request) -> Response:
        return _answer(registry.delete_version(subject, version, **_flags(request, "permanent")))

    @app.get("/subjects/{subject:path}/versions")
    def versions(subject: str, request: Request) -> Response:
        found = registry.versions(subject, **_flags(request, "deleted", "deletedOnly"))
        return _answer([each.version for each in _page(request, found)])

    @app.post("/subjects/{subject:path}/versions")
    def register(subject: str, request: Request, body: Any = Depends(_body)) -> Response:  # noqa: B008
        found = registry.register(subject, SchemaRequest.of(body), **_flags(request, "normalize"))
        facts = _version_facts(found)
        return _answer({word: facts[word] for word in facts if word != "subject"})

    @app.post("/subjects/{subject:path}")
    def find(subject: str, request: Request, body: Any = Depends(_body)) -> Response:  # noqa: B008
        flags = _flags(request, "normalize", "deleted")
        return _answer(_version_facts(registry.find(subject, SchemaRequest.of(body), **flags)))

    @app.delete("/subjects/{subject:path}")
    def delete_subject(subject: str, request: Request) -> Response:
        return _answer(registry.delete_subject(subject, **_flags(request, "permanent")))


def _setting_routes(app: FastAPI, registry: Registry) -> None:
    # What a setting is called in a URL, in the registry, in a request, and in an answer to GET.
    for place, name, asked, told in (
        ("config", "compatibility", "compatibility", "compatibilityLevel"),
        ("mode", "mode", "mode", "mode"),
    ):
        _setting(app, registry, place, name, asked, told)


def _setting(app: FastAPI, registry: Registry, place: str, name: str, asked: str, told: str) -> None:
    def given(body: Any) -> Any:
        return body.get(asked) if isinstance(body, dict) else None

    def read(request: Request, subject: str = "") -> Response:
        found = registry.own_setting(name, subject, **_flags(request, "defaultToGlobal"))
        return _answer({told: found})

    def write(request: Request, subject: str = "", body: Any = Depends(_body)) -> Response:  # noqa: B008
        return _answer({asked: registry.set_setting(name, given(body), subject, **_flags(request, "force"))})

    def drop(subject: str = "") -> Response:
        if not subject:
            registry.reset_setting(name)
            return _answer({told: registry.own_setting(name, "")})
        return _answer({told: registry.drop_setting(name, subject)})

    calls: list[tuple[str, Callable[..., Response]]] = [("GET", read), ("PUT", write), ("DELETE", drop)]
    for method, call in calls:
        app.add_api_route(f"/{place}", call, methods=[method])
        app.add_api_route(f"/{place}/{{subject:path}}", call, methods=[method])


def _id(word: str) -> int:
    if not word.isdecimal() or len(word) > 10:
        raise RegistryRefusal(404, 404, "HTTP 404 Not Found")
    return int(word)


def _text(schema: StoredSchema) -> Response:
    return Response(schema.text, media_type=_MEDIA_TYPE)


def _page(request: Request, found: list[Any]) -> list[Any]:
    """Give the part of a list that `offset` and `limit` ask for."""
    numbers = [request.query_params.get(word, "") for word in ("offset", "limit")]
    offset, limit = (int(each) if each.isdecimal() and len(each) < 10 else None for each in numbers)
    return found[offset or 0 :][: limit or None]


class RegistryServer:
    """The registry in `path`, listening on `host` and `port` (0: any free one) once it is made.

    `run` answers until `stop` is called from another thread, or in a main thread until SIGINT or SIGTERM.
    Raises RefusedError when the file or the port cannot be had.
    """

    def __init__(self, path: Path, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self._listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._listener.bind((host, port))
            self._listener.listen()
        except OSError as error:
            self._listener.close()
            raise RefusedError(
                f"cannot listen on {host}:{port}: {error.strerror}", fix="give another --port, or --host"
            ) from None
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self._listener.getsockname()[1]}"
        try:
            self._registry = Registry(Storage(path))
        except BaseException:
            self._listener.close()
            raise
        app = registry_app(self._registry)
        self._server = uvicorn.Server(
            uvicorn.Config(
                app, log_level="warning", access_log=False, lifespan="off", timeout_graceful_shutdown=5
            )
        )

    def run(self) -> None:
        """Answer; gives back file and port at the end."""
        try:
            with self._listener:
                self._server.run(sockets=[self._listener])
        finally:
            self._registry.close()

    def stop(self) -> None:
        """Let `run` end."""
        self._server.should_exit = True
