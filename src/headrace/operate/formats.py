"""From a profile's options to what reads and writes the records of a stream in its format."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.declare import Stream
from headrace.errors import ProfileError
from headrace.operate.format_options import FormatOptions
from headrace.operate.project import Home, Project
from headrace.operate.runtime import open_log

if TYPE_CHECKING:
    from headrace.log import Log
    from headrace.log.registry.client import RegistryClient
    from headrace.log.registry.framing import StreamFormat
    from headrace.produce.encoding import Unfit
    from headrace.rows.framing import Framing

__all__ = ["open_framings", "open_producer_log"]


def open_framings(home: Home, streams: Iterable[Stream], undo: ExitStack) -> dict[str, Framing]:
    """Return what reads the streams that are not plain JSON; `undo` closes them.

    Connects to nothing yet. Raises ProfileError when an option is missing, RefusedError for a schema file.
    """
    framings: dict[str, Framing] = {}
    for stream in streams:
        options = home.profile.stream(stream.name)
        if options.format == "json":
            continue
        from headrace.log.registry.framing import RegistryFraming

        framing = RegistryFraming(_client(stream.name, options), _format(home, stream, options))
        undo.callback(framing.close)
        framings[stream.name] = framing
    return framings


def open_producer_log(project: Project, stream: str, *, unfit: Unfit = "refuse") -> Log:
    """Open the log of a stream for producers: what is appended as JSON is written in its format.

    The schema is registered, or looked up, before the first record. `unfit`: what becomes of a record that
    the schema cannot hold. Raises RefusedError that names what is incompatible, TransientError when the
    registry does not answer.
    """
    options = project.profile.stream(stream)
    declared = next(each for each in project.pipeline.streams if each.name == stream)
    if options.format == "json":
        return open_log(project, stream)
    from headrace.produce.encoding import EncodedLog, Encoder, prepare

    client = _client(stream, options)
    try:
        form = _format(project, declared, options)
        number = prepare(client, form, auto_register=options.registry_auto_register == "yes")
    finally:
        client.close()
    return EncodedLog(open_log(project, stream), Encoder(form, number, unfit=unfit))


def _client(stream: str, options: FormatOptions) -> RegistryClient:
    from headrace.log.registry.client import RegistryClient

    if options.registry is None:
        raise ProfileError(
            f"stream '{stream}': format = \"{options.format}\" needs a schema registry",
            fix='add registry = "http://localhost:8081" (headrace registry serve runs one)',
        )
    password = options.registry_password
    return RegistryClient(
        options.registry, user=options.registry_user, password=None if password is None else password.reveal()
    )


def _format(home: Home, stream: Stream, options: FormatOptions) -> StreamFormat:
    from headrace.log.registry.framing import StreamFormat

    topic = getattr(options, "topic", None) or stream.name
    text = None if options.registry_schema is None else _text_of(home.folder / options.registry_schema)
    return StreamFormat(stream, options.format, options.registry_subject or f"{topic}-value", text)


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ProfileError(
            f"the schema {path} cannot be read: {reason}", fix="correct registry_schema in headrace.toml"
        ) from None
