"""`ingest`: records over HTTP into the log."""

import os
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.arguments import ProfileOption, ProjectOption, examples
from headrace.errors import ProfileError, RefusedError

if TYPE_CHECKING:
    from headrace.log import Log
    from headrace.operate import Project
    from headrace.produce.ingest import Ingest
    from headrace.web.exposure import Exposure

__all__ = ["register"]

_TOLD_MAX_EVERY_S = 1.0
_PORT = 8070


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command(
        epilog=examples(
            "headrace ingest",
            "curl -H 'Content-Type: application/json' -d '[{\"id\": 1}]' "
            f"http://127.0.0.1:{_PORT}/streams/events/records",
            "INGEST_TOKEN=… headrace ingest --token-env INGEST_TOKEN --profile kafka",
        )
    )(ingest)


def ingest(
    project: ProjectOption = Path(),
    profile: ProfileOption = None,
    host: Annotated[str, typer.Option("--host", help="Where to listen.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="Where to listen; 0: one that is free.")
    ] = _PORT,
    token_env: Annotated[
        str | None,
        typer.Option("--token-env", help="The environment variable that holds the token senders must show."),
    ] = None,
) -> None:
    """Take records over HTTP: POST /streams/NAME/records, as a JSON array, one object, or NDJSON.

    An answer says how many records are durable in the log, and at which offsets. A body is taken as a whole
    or not at all. The header Idempotency-Key makes sending again safe for 24 hours; ?key=FIELD chooses the
    partition by a field. GET /health says whether the log answers. Beyond loopback it wants a token, and
    TLS by `ingest.certificate` and `ingest.certificate_key` in the profile.
    """
    from headrace.cli.output import told_waiting
    from headrace.log.backoff import when_ready
    from headrace.operate import load_project
    from headrace.operate.supervise import StopSignals
    from headrace.web.ingest import ingest_app
    from headrace.web.serving import bound_socket, serving

    loaded = load_project(project, profile=profile, replicas=False)
    exposure = _exposure(loaded, host, _token(loaded, token_env))
    exposure.check()
    stop = threading.Event()
    with ExitStack() as undo:
        listening = bound_socket(host, port)
        undo.callback(listening.close)
        undo.enter_context(StopSignals(stop, lambda note: None))
        taken = when_ready(lambda: _open(loaded, undo), stop, told_waiting())
        if taken is None:
            return
        key_fields = {each.name: each.key for each in loaded.pipeline.streams}
        app = ingest_app(taken, key_fields=key_fields, token=exposure.token, tell=_Told())
        with serving(app, listening, tls=exposure.tls) as ended:
            scheme = "http" if exposure.tls is None else "https"
            place = f"{scheme}://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}"
            typer.echo(f"taking records at {place}/streams/NAME/records; Ctrl-C stops")
            typer.echo("streams: " + ", ".join(key_fields))
            while not stop.wait(0.2):
                if ended.is_set():
                    raise RefusedError("the HTTP server ended", fix="start again with --debug")
    typer.echo("stopped; what was answered is in the log")


def _token(loaded: "Project", token_env: str | None) -> str | None:
    if token_env is not None:
        token = os.environ.get(token_env, "")
        if not token:
            raise ProfileError(
                f"the environment variable '{token_env}' is not set or empty",
                fix=f"set it before the command: {token_env}=… headrace ingest",
            )
        return token
    secret = loaded.profile.ingest.token
    return None if secret is None else secret.reveal()


def _exposure(loaded: "Project", host: str, token: str | None) -> "Exposure":
    from headrace.web.exposure import Exposure

    options = loaded.profile.ingest
    return Exposure(
        section="ingest",
        lets="append",
        host=host,
        token=token,
        certificate=options.certificate,
        certificate_key=options.certificate_key,
        plain_http=options.plain_http,
    )


def _open(loaded: "Project", undo: ExitStack) -> "Ingest":
    """Open everything or nothing; see `_opened`."""
    with ExitStack() as attempt:
        taken = _opened(loaded, attempt)
        undo.push(attempt.pop_all())
    return taken


def _opened(loaded: "Project", undo: ExitStack) -> "Ingest":
    """Open the logs, hold the table of idempotency keys, and start the threads that append."""
    from headrace.log.answered import AnsweredKeys
    from headrace.operate.formats import open_producer_log
    from headrace.operate.runtime import make_data_folder
    from headrace.produce.ingest import Ingest, IngestLimits
    from headrace.produce.ingest_keys import KEYS_KEPT, KEYS_MAX
    from headrace.store.lock import StoreLock, holder_of

    lock = StoreLock(loaded.data / "ingest")
    make_data_folder(loaded)
    try:
        lock.acquire()
    except RefusedError:
        raise RefusedError(
            f"another process takes records for {loaded.folder}: {holder_of(loaded.data / 'ingest.lock')}",
            fix="stop it first; two of them could not tell a repeated request from a new one",
        ) from None
    undo.callback(lock.release)
    logs: dict[str, Log] = {}
    for stream in loaded.pipeline.streams:
        logs[stream.name] = open_producer_log(loaded, stream.name, unfit="keep")
        undo.callback(logs[stream.name].close)
    answered = AnsweredKeys(
        loaded.data / "ingest.db", kept_us=int(KEYS_KEPT.total_seconds() * 1e6), keys_max=KEYS_MAX
    )
    undo.callback(answered.close)
    options = loaded.profile.ingest
    limits = IngestLimits(
        body_bytes_max=options.body_bytes_max,
        record_bytes_max=options.record_bytes_max,
        behind_records_max=options.behind_records_max,
    )
    taken = Ingest(logs, answered=answered, limits=limits)
    undo.callback(taken.close)
    return taken


class _Told:
    """Prints what an operator must know, the same thing at most once a second."""

    def __init__(self) -> None:
        self._last: dict[str, float] = {}

    def __call__(self, what: str) -> None:
        import time

        now = time.monotonic()
        if now - self._last.get(what, float("-inf")) >= _TOLD_MAX_EVERY_S:
            self._last = {what: now}
            typer.echo(what, err=True)
