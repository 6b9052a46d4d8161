"""Puts the commands together, and turns errors into a message, a fix and an exit code."""

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from headrace.cli import (
    alert_commands,
    blueprint_commands,
    check_commands,
    dead_letter_commands,
    demo_commands,
    export_commands,
    generate_commands,
    handover_commands,
    ingest_commands,
    journal_commands,
    log_commands,
    poll_commands,
    produce_commands,
    registry_commands,
    replica_commands,
    run_commands,
    store_commands,
    verify_commands,
    watch_commands,
)
from headrace.cli.arguments import examples
from headrace.errors import HeadraceError, InternalError

__all__ = ["app", "run"]

app = typer.Typer(
    name="headrace",
    no_args_is_help=True,
    rich_markup_mode=None,  # rich takes as long to import as all the rest, and `--help` is asked often
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
for group in (
    blueprint_commands,
    demo_commands,
    check_commands,
    run_commands,
    handover_commands,
    produce_commands,
    generate_commands,
    poll_commands,
    ingest_commands,
    log_commands,
    store_commands,
    watch_commands,
    verify_commands,
    dead_letter_commands,
    registry_commands,
    replica_commands,
    export_commands,
    alert_commands,
    journal_commands,
):
    group.register(app)


def _print_version(asked: bool) -> None:
    if asked:
        check_commands.version()
        raise typer.Exit


@app.callback(
    epilog=examples(
        "headrace demo                             watch a shop's events become tables",
        "headrace new --blueprint commerce shop    the same, as a project of your own",
        "cd shop && headrace run",
    )
)
def root(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_print_version, is_eager=True)
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the trace of an error; may stand anywhere in the line.")
    ] = False,
) -> None:
    """Real-time data pipelines, declared once in Python and SQL."""


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; never raises."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = words[: words.index("--")] if "--" in words else words
    debug = "--debug" in options
    if debug:
        words.remove("--debug")
    try:
        app(args=words, prog_name="headrace")
    except SystemExit as ending:
        return ending.code if isinstance(ending.code, int) else int(ending.code is not None)
    except KeyboardInterrupt:
        return 130
    except HeadraceError as error:
        return _tell(error, debug)
    except Exception as error:  # noqa: BLE001 - the last place where a bug can become a message
        from headrace.operate.extras import missing_extra

        wrapped = missing_extra(error) or InternalError(f"{type(error).__name__}: {error}")
        wrapped.__cause__ = error
        return _tell(wrapped, debug)
    return 0


def _tell(error: HeadraceError, debug: bool) -> int:
    if debug:
        import traceback

        typer.echo("".join(traceback.format_exception(error)), err=True)
    typer.secho("error: ", fg="red", bold=True, nl=False, err=True)
    typer.echo(error.message, err=True)
    if error.fix:
        typer.secho("  fix: ", fg="green", nl=False, err=True)
        typer.echo(error.fix, err=True)
    return error.exit_code
