"""What signups has beside it: the API that is polled, and the registry that knows what its Avro means."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import fastavro
import httpx

from headrace.blueprints.signups.people import page_of_people
from headrace.web.registry import RegistryServer
from headrace.web.serving import bound_socket, serving
from headrace.web.users import users_app

__all__ = ["USERS", "Beside", "beside_signups"]

USERS = 300


class Beside:
    """Both running; `addresses` is what stands in `headrace.toml`, and what is to stand there."""

    def __init__(self, api: str, registry: str) -> None:
        self.addresses: Mapping[str, str] = {
            "http://127.0.0.1:8610": api,
            "http://127.0.0.1:8081": registry,
            'every = "6 seconds"': 'every = "100 ms"',
        }
        self._registry = registry
        self._schemas: dict[int, Any] = {}

    def json_of(self, value: bytes) -> bytes:
        """The JSON of a record, read by fastavro; what is no Avro, as it is."""
        if value[:1] != b"\0":
            return value
        number = int.from_bytes(value[1:5])
        if number not in self._schemas:
            told = httpx.get(f"{self._registry}/schemas/ids/{number}").json()["schema"]
            self._schemas[number] = fastavro.parse_schema(json.loads(told))
        record = fastavro.schemaless_reader(io.BytesIO(value[5:]), self._schemas[number])
        return json.dumps(record, default=datetime.isoformat).encode()


def page_of_users(seed: str, page: int, results: int) -> dict[str, Any]:
    """USERS people, one of whom has no e-mail address; then nobody has signed up since."""
    made = page_of_people(seed, page, results)
    if page == 2:
        del made["results"][5]["email"]
    if page > USERS // results:
        made["results"] = []
    return made


@contextmanager
def beside_signups(folder: Path) -> Iterator[Beside]:
    """Run both."""
    with ExitStack() as undo:
        registry = RegistryServer(folder / "registry.db")
        thread = threading.Thread(target=registry.run, daemon=True)
        thread.start()
        undo.callback(thread.join)
        undo.callback(registry.stop)
        listening = bound_socket("127.0.0.1", 0)
        undo.enter_context(serving(users_app(page_of_users), listening))
        yield Beside(f"http://127.0.0.1:{listening.getsockname()[1]}", registry.url)
