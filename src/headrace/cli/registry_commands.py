"""`registry`: an embedded schema registry, and questions to any Confluent-compatible one."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from headrace.cli.arguments import JsonOption, examples
from headrace.errors import ProfileError, RefusedError

__all__ = ["register"]

_URL = "http://127.0.0.1:8081"
UrlOption = Annotated[
    str, typer.Option("--url", envvar="SCHEMA_REGISTRY_URL", help="The registry's address.")
]
UserOption = Annotated[
    str | None, typer.Option("--user", envvar="SCHEMA_REGISTRY_USER", help="Who asks.", show_default=False)
]
SubjectArgument = Annotated[str, typer.Argument(help="Where the schema belongs, such as events-value.")]
FileArgument = Annotated[Path, typer.Argument(help="An Avro (.avsc) or JSON Schema (.json) file.")]
_PASSWORD_VARIABLE = "SCHEMA_REGISTRY_PASSWORD"  # noqa: S105 - where it is looked for


def register(app: typer.Typer) -> None:
    """Add these commands."""
    group = typer.Typer(
        no_args_is_help=True, rich_markup_mode=None, help="Serve, read and fill schema registries."
    )
    group.command("serve", epilog=examples("headrace registry serve", "headrace registry serve --port 9081"))(
        serve
    )
    group.command("list", epilog=examples("headrace registry list", "headrace registry list --json"))(list_)
    group.command("register", epilog=examples("headrace registry register events-value event.avsc"))(
        register_
    )
    group.command("check", epilog=examples("headrace registry check events-value event.avsc"))(check)
    app.add_typer(group, name="registry")


def serve(
    host: Annotated[
        str, typer.Option("--host", help="Where it listens; nobody is asked for a password.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0: any free one.")] = 8081,
    path: Annotated[Path, typer.Option("--path", help="The file that it is kept in.")] = Path(
        ".headrace/registry.db"
    ),
) -> None:
    """Run a schema registry until Ctrl-C.

    It speaks the REST API of Confluent's Schema Registry: Avro and JSON Schema, versions, compatibility.
    """
    from headrace.web.registry import RegistryServer

    server = RegistryServer(path, host=host, port=port)
    if host not in ("127.0.0.1", "localhost", "::1"):
        typer.secho("warning: whoever reaches this address may change schemas", fg="yellow", err=True)
    typer.echo(f"schema registry at {server.url}, kept in {path}; Ctrl-C stops")
    server.run()


def list_(url: UrlOption = _URL, user: UserOption = None, as_json: JsonOption = False) -> None:
    """Show the subjects with their latest versions."""
    from headrace.cli.arguments import Format
    from headrace.cli.output import print_json, print_rows

    with _client(url, user) as client:
        rows = []
        for subject in client.subjects():
            latest = client.version(subject)
            if latest is not None:
                facts = {"subject": subject, "version": latest.version, "id": latest.id, "type": latest.kind}
                rows.append({**facts, "compatibility": client.compatibility(subject)})
    if as_json:
        print_json(rows)
        return
    import pyarrow as pa

    names = ("subject", "version", "id", "type", "compatibility")
    print_rows(pa.table({name: [row[name] for row in rows] for name in names}), Format.TABLE)


def register_(
    subject: SubjectArgument,
    file: FileArgument,
    url: UrlOption = _URL,
    user: UserOption = None,
    as_json: JsonOption = False,
) -> None:
    """Register a schema under a subject.

    Registering it again changes nothing. One that the subject's compatibility does not allow is refused.
    """
    from headrace.cli.output import print_json

    kind, text = _schema(file)
    with _client(url, user) as client, _naming(file, kind, text):
        number = client.register(subject, kind, text)
        found = client.find(subject, kind, text)
    version = None if found is None else found.version
    if as_json:
        print_json({"subject": subject, "version": version, "id": number})
    else:
        typer.echo(f"'{subject}' version {version}, id {number}")


def check(
    subject: SubjectArgument,
    file: FileArgument,
    url: UrlOption = _URL,
    user: UserOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask whether a schema could be registered.

    Ends with code 1 and the reasons when the subject's compatibility does not allow it. Nothing is changed.
    """
    from headrace.cli.output import print_json

    kind, text = _schema(file)
    with _client(url, user) as client, _naming(file, kind, text):
        reasons = client.check(subject, kind, text)
    if as_json:
        print_json({"subject": subject, "compatible": not reasons, "reasons": reasons})
    elif reasons:
        typer.echo("\n".join([f"incompatible with '{subject}':", *(f"  {reason}" for reason in reasons)]))
    else:
        typer.echo(f"compatible with '{subject}'")
    if reasons:
        raise typer.Exit(1)


def _client(url: str, user: str | None) -> Any:
    import os
    from contextlib import closing

    from headrace.log.registry.client import RegistryClient

    password = os.environ.get(_PASSWORD_VARIABLE)
    login = f"--user and {_PASSWORD_VARIABLE}"
    return closing(RegistryClient(url, user=user, password=password, named="--url", login=login))


@contextmanager
def _naming(file: Path, kind: str, text: str) -> Iterator[None]:
    """Say of a schema that the registry takes for none in which file it stands, and where."""
    from headrace.log.registry.avro_schema import SchemaInvalid
    from headrace.log.registry.client import INVALID_SCHEMA, AnswerRefused
    from headrace.log.registry.contents import read_content

    try:
        yield
        return
    except SchemaInvalid as error:
        why = error.message
    except AnswerRefused as error:
        if error.code not in INVALID_SCHEMA:
            raise
        why = error.message
        try:
            read_content(kind, text)
        except SchemaInvalid as found:  # it says where, which not every registry does
            why = found.message
    raise RefusedError(f"{file}: {why}", fix="correct the schema there, then try again") from None


def _schema(file: Path) -> tuple[str, str]:
    """Return the kind and the text of a schema's file. Raises ProfileError, RefusedError."""
    kinds = {".avsc": "AVRO", ".json": "JSON"}
    if file.suffix.lower() not in kinds:
        what = ", Protobuf is not supported" if file.suffix.lower() == ".proto" else ""
        raise ProfileError(
            f"{file}: its name does not say which kind of schema it is{what}", fix="name it .avsc or .json"
        )
    try:
        return kinds[file.suffix.lower()], file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise RefusedError(f"{file} cannot be read: {reason}", fix="check the name") from None
