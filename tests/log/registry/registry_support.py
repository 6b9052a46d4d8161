"""A registry that runs in a thread, and Avro bytes made by fastavro."""

from __future__ import annotations

import io
import threading
from pathlib import Path
from typing import Any

import fastavro

from headrace.web.registry import RegistryServer

__all__ = ["RunningRegistry", "encoded", "field", "record_schema"]


class RunningRegistry:
    """A registry that can be stopped and started again at the same address."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.port = 0
        self.url = ""
        self._server: RegistryServer | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._server = RegistryServer(self.path, port=self.port)
        self.url = self._server.url
        self.port = int(self.url.rpartition(":")[2])
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        if self._server is not None and self._thread is not None:
            self._server.stop()
            self._thread.join(20)
            assert not self._thread.is_alive()
        self._server = self._thread = None


def record_schema(*fields: dict[str, Any], name: str = "Event") -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": list(fields)}


def field(name: str, kind: Any, **more: Any) -> dict[str, Any]:
    return {"name": name, "type": kind, **more}


def encoded(schema: dict[str, Any], value: Any) -> bytes:
    sink = io.BytesIO()
    fastavro.schemaless_writer(sink, fastavro.parse_schema(schema), value)
    return sink.getvalue()
