"""Posts chunks. The endpoint keeps no cursor, so it stands in a folder here.

A body is written down before it is posted, and posted again, the same bytes with the same key, by whoever
opens the replica after a crash: an endpoint that remembers keys, or the versions of rows, does nothing twice.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import httpx

from headrace.errors import RefusedError, TransientError
from headrace.replicate.columns import folder_name
from headrace.replicate.folders import deleted, folder_failures, locked, make_folder, write_json
from headrace.replicate.plain import json_bytes, objects, sound, swept_from
from headrace.replicate.protocol import REFUSED_MAX, Chunk, Cursor, Refusal, Task, fenced

if TYPE_CHECKING:
    from headrace.replicate.webhook import WebhookReplica

__all__ = ["WebhookWriter"]

_TRANSIENT = (408, 425, 429)
_OF_THE_ROWS = (400, 413, 422)
_SAID_MAX = 200


class _RowsRefused(Exception):
    """The endpoint does not take a body for what is in it."""


class WebhookWriter:
    """See `ReplicaWriter`."""

    def __init__(self, options: WebhookReplica, task: Task) -> None:
        self._folder = Path(options.path)
        self._task = task
        self._url = options.url
        parts = urlsplit(options.url)
        self._place = f"replica '{task.replica}': {parts.hostname}"
        headers = {"Content-Type": "application/json"}
        if options.authorization is not None:
            headers["Authorization"] = options.authorization.reveal()
        self._client = httpx.Client(
            headers=headers,
            timeout=options.timeout.total_seconds(),
            follow_redirects=False,
            verify=parts.scheme == "https",  # certificates take long to read, and are for nothing without TLS
        )
        try:
            with folder_failures(self._folder):
                make_folder(self._folder, mode=0o700)
                for shape in task.tables:
                    with locked(self._file(shape.name, "lock")):
                        self._finish(shape.name)
        except BaseException:
            self.close()
            raise

    def _file(self, table: str, kind: str) -> Path:
        return self._folder / f"{folder_name(table)}.{kind}"

    # --- cursors

    def _cursor(self, table: str) -> Cursor | None:
        path = self._file(table, "cursor.json")
        return Cursor.of(json.loads(path.read_text())) if path.exists() else None

    def cursors(self) -> Mapping[str, Cursor]:
        """See `ReplicaWriter`."""
        with folder_failures(self._folder):
            found = {shape.name: self._cursor(shape.name) for shape in self._task.tables}
        return {name: cursor for name, cursor in found.items() if cursor is not None}

    def take(self, table: str, seen: Cursor | None, cursor: Cursor) -> None:
        """See `ReplicaWriter`."""
        with folder_failures(self._folder), locked(self._file(table, "lock")):
            if self._cursor(table) != seen:
                raise fenced(table)
            write_json(self._file(table, "cursor.json"), cursor.facts())

    # --- rows

    def write(self, chunk: Chunk) -> None:
        """See `ReplicaWriter`."""
        table, cursor = chunk.table.name, chunk.cursor
        with folder_failures(self._folder), locked(self._file(table, "lock")):
            there = self._cursor(table)
            if there == cursor:
                return
            if there is None:
                raise deleted(self._file(table, "cursor.json"))
            if not cursor.same_writer(there):
                raise fenced(table)
            body = self._body(sound(chunk, self._task.set_aside))
            pending = {"cursor": cursor.facts(), "body": body}
            write_json(self._file(table, "pending.json"), pending)
            self._finish(table)

    def _body(self, chunk: Chunk) -> dict[str, Any]:
        """Return what a body says. A row is its version, its key, and itself: JSON that is not read again."""
        shape = chunk.table
        versions = chunk.rows.column("_version").to_pylist()
        keys = objects(chunk.rows, shape, shape.key or [column.name for column in shape.columns])
        return {
            "pipeline": self._task.pipeline,
            "table": shape.name,
            "key": list(shape.key),
            "removed": objects(chunk.removed, shape),
            "rows": list(zip(versions, keys, objects(chunk.rows, shape), strict=True)),
            "sweep_from": swept_from(chunk) if chunk.sweep_below else 0,
            "sweep_below": chunk.sweep_below,
        }

    def _finish(self, table: str) -> None:
        """Post what is written down, if anything is, then move the cursor."""
        path = self._file(table, "pending.json")
        if not path.exists():
            return
        pending = _pending_of(path.read_text())
        if pending is None:
            # The cursor stands before it, so whoever takes the table gives its changes once more.
            path.unlink()
            return
        cursor, body = pending
        at = cursor.position
        last = "-last" if body["sweep_below"] else ""
        # An endpoint may be posted to by several pipelines, or by two replicas of one.
        whose = "/".join(quote(name, safe="") for name in (cursor.store_id, cursor.replica, table))
        key = f"{whose}/{cursor.generation}/{at.epoch}-{at.through}-{at.after}{last}"
        refusals: list[Refusal] = []
        self._post(body, key, refusals)
        if refusals:
            self._task.set_aside(refusals)
        write_json(self._file(table, "cursor.json"), cursor.facts())
        path.unlink()

    def _post(self, body: dict[str, Any], key: str, refusals: list[Refusal]) -> None:
        """Post a body; of one that is not taken, post halves, until the rows to blame stand alone."""
        try:
            self._send(_bytes(body), key)
        except _RowsRefused as refused:
            rows, said = body["rows"], str(refused)
            if len(rows) == 1 and not body["removed"] and not body["sweep_below"]:
                version, told, _ = rows[0]
                refusals.append(Refusal(body["table"], told, version, said))
                if len(refusals) > REFUSED_MAX:
                    what = f"{self._place} refuses more than {REFUSED_MAX} rows of '{body['table']}' at once"
                    raise RefusedError(f"{what}: {said}", fix="correct the endpoint, then resume") from None
                return
            if not rows:
                what = f"{self._place} does not take removals of '{body['table']}': {said}"
                raise RefusedError(what, fix="correct the endpoint, then resume") from None
            for part, some in enumerate(_parts(body)):
                self._post(some, f"{key}.{part}", refusals)

    def _send(self, body: bytes, key: str) -> None:
        try:
            answer = self._client.post(self._url, content=body, headers={"Idempotency-Key": key})
        except httpx.TimeoutException:
            raise TransientError(f"{self._place} gave no answer in time", fix="it is tried again") from None
        except httpx.TransportError as error:
            # Not its text: it may hold the address with what stands behind the question mark.
            what = f"{self._place} cannot be reached ({type(error).__name__})"
            raise TransientError(what, fix="it is tried again") from None
        code = answer.status_code
        if answer.is_success:
            return
        said = f"{code} {answer.reason_phrase}"
        if code in _TRANSIENT or code >= 500:
            raise TransientError(f"{self._place} is not ready: {said}", fix="it is tried again")
        if code in _OF_THE_ROWS:
            told = "".join(letter for letter in answer.text[:_SAID_MAX] if letter.isprintable())
            raise _RowsRefused(f"{said}: {told}")
        fix = "correct url and authorization in the profile, or the endpoint, then resume"
        raise RefusedError(f"{self._place} refuses: {said}", fix=fix)

    def interrupt(self) -> None:
        """See `ReplicaWriter`."""
        self.close()

    def close(self) -> None:
        """See `ReplicaWriter`."""
        with suppress(Exception):
            self._client.close()


def _pending_of(text: str) -> tuple[Cursor, dict[str, Any]] | None:
    """Return what was written down, its cursor and its body; None for what another build wrote otherwise."""
    try:
        facts = json.loads(text)
        cursor, body = Cursor.of(facts["cursor"]), {"sweep_from": 0, **facts["body"]}
        told = [body["pipeline"], body["table"], *body["removed"]]
        told += [text for _, key, row in body["rows"] for text in (key, row)]
        numbers = [body["sweep_from"], body["sweep_below"], *(version for version, _, _ in body["rows"])]
    except (ValueError, TypeError, KeyError):
        return None
    known = all(isinstance(each, str) for each in told) and all(isinstance(each, int) for each in numbers)
    return (cursor, body) if known and isinstance(body["key"], list) else None


def _bytes(body: dict[str, Any]) -> bytes:
    """Return a body as it is posted."""
    lead = json_bytes({name: body[name] for name in ("pipeline", "table", "key")})[:-1].decode()
    removed, rows = ",".join(body["removed"]), ",".join(row for _, _, row in body["rows"])
    # Only where it says something: a body that was written down before it had a name keeps its bytes.
    first = f'"sweep_from":{body["sweep_from"]},' if body["sweep_from"] else ""
    swept = f'{first}"sweep_below":{body["sweep_below"]}'
    return f'{lead},"removed":[{removed}],"rows":[{rows}],{swept}}}'.encode()


def _parts(body: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the pieces of a body, in order: removals, rows in halves, and what is swept at the end."""
    nothing = {**body, "removed": [], "rows": [], "sweep_from": 0, "sweep_below": 0}
    half = (len(body["rows"]) + 1) // 2
    pieces: list[dict[str, Any]] = []
    if body["removed"]:
        pieces.append({**nothing, "removed": body["removed"]})
    pieces += [{**nothing, "rows": some} for some in (body["rows"][:half], body["rows"][half:]) if some]
    if body["sweep_below"]:
        pieces.append({**nothing, "sweep_from": body["sweep_from"], "sweep_below": body["sweep_below"]})
    return pieces
