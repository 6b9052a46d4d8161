"""An API with made-up users, of the shape of randomuser's, for pollers that have no other one to ask."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

__all__ = ["RESULTS_MAX", "users_app"]

RESULTS_MAX = 5_000


def users_app(page_of_people: Callable[[str, int, int], dict[str, Any]]) -> FastAPI:
    """Return the app: `GET /api/?results=n&seed=…&page=…`.

    `page_of_people` takes seed, page (from 1) and how many, and gives the answer. As there, what cannot be
    read counts as 1, and more than 5,000 results at once are not given.
    """
    app = FastAPI(title="Made-up users", docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/api/")
    @app.get("/api")
    def api(request: Request) -> Response:
        asked = request.query_params
        seed = asked.get("seed", "headrace")[:200]
        results = min(_number(asked.get("results")), RESULTS_MAX)
        return JSONResponse(page_of_people(seed, _number(asked.get("page")), results))

    return app


def _number(text: str | None) -> int:
    """Return a number from 1 on; 1 for what is none."""
    if text is None or not text.isascii() or not text.isdecimal() or len(text) > 9:
        return 1
    return max(1, int(text))
