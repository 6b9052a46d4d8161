"""The page as an ASGI app: routes, the built page, and the guard before them all."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, Response

from headrace.errors import HeadraceError, IntegrityError, TransientError
from headrace.web.page import models
from headrace.web.page.guard import Guard, GuardRules
from headrace.web.page.routes_letters import letter_routes
from headrace.web.page.routes_observe import observe_routes
from headrace.web.page.routes_records import record_routes
from headrace.web.page.routes_run import run_routes
from headrace.web.page.routes_settings import settings_routes
from headrace.web.page.routes_tables import table_routes
from headrace.web.page.sources import PageSources

__all__ = ["PAGE_FOLDER", "api_app", "openapi_document", "page_app"]

PAGE_FOLDER = Path(__file__).parent.parent / "static"
"""Where the built page lies; it is part of the wheel."""

_NOT_BUILT = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Headrace</title></head>
<body><h1>The page is not built</h1><p>This is a checkout without its page. <code>make page</code> builds it.
The API is there: <a href="/api/openapi.json">/api/openapi.json</a>.</p></body></html>"""
_FOR_EVER = "public, max-age=31536000, immutable"


def api_app(sources: PageSources) -> FastAPI:
    """Return the app without a guard: from its OpenAPI the TypeScript client is made."""
    app = FastAPI(
        title="Headrace page",
        version="1",
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/openapi.json",
        responses={500: {"model": models.Failure}},
    )
    for routes in (run_routes, table_routes, letter_routes, record_routes, observe_routes, settings_routes):
        app.include_router(routes(sources))

    @app.exception_handler(HeadraceError)
    async def refused(request: Request, error: HeadraceError) -> JSONResponse:
        status = (
            503 if isinstance(error, TransientError) else 500 if isinstance(error, IntegrityError) else 422
        )
        return JSONResponse({"error": error.message, "fix": error.fix}, status)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"][1:])
        return JSONResponse({"error": f"{place}: {first['msg']}", "fix": "see /api/openapi.json"}, 422)

    @app.get("/{path:path}", include_in_schema=False)
    def page(path: str) -> Response:
        return _file(path)

    return app


def page_app(sources: PageSources, rules: GuardRules) -> Any:
    """Return the app as it is served."""
    return Guard(api_app(sources), rules)


def _file(path: str) -> Response:
    if path.startswith("api/"):
        return JSONResponse({"error": "there is nothing here", "fix": "see /api/openapi.json"}, 404)
    if not (PAGE_FOLDER / "index.html").is_file():
        return HTMLResponse(_NOT_BUILT)
    try:
        asked = (PAGE_FOLDER / path).resolve()
        ours = asked.is_relative_to(PAGE_FOLDER.resolve()) and asked.is_file()
    except (OSError, ValueError):  # a name that no file can have
        ours = False
    if ours:
        # The names of built files change with what is in them.
        kept = {"Cache-Control": _FOR_EVER} if path.startswith("assets/") else None
        return FileResponse(asked, headers=kept)
    if path.startswith("assets/"):
        return JSONResponse({"error": "there is no such file", "fix": "load the page anew"}, 404)
    return FileResponse(PAGE_FOLDER / "index.html")  # the page itself knows its places


def openapi_document() -> dict[str, Any]:
    """Return the API's description; it depends on no run, because only requests look at one."""
    return api_app(cast(PageSources, None)).openapi()
