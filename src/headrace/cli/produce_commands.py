"""`produce`: records from files into the log."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.arguments import ProfileOption, ProjectOption, examples, hint_other_run
from headrace.errors import ProfileError

if TYPE_CHECKING:
    from headrace.produce.files import ProduceProgress, ProduceReport

__all__ = ["register"]


class FileFormatWord(StrEnum):
    """What a file holds."""

    NDJSON = "ndjson"
    CSV = "csv"
    PARQUET = "parquet"


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command(
        epilog=examples(
            "headrace produce events day1.ndjson day2.csv",
            "headrace produce events last-year.parquet --record-time event",
            "gzip -dc day.ndjson.gz | headrace produce events - --record-time field:received_at",
        )
    )(produce)


def produce(
    stream: Annotated[str, typer.Argument(help="A stream of the pipeline.")],
    files: Annotated[
        list[str], typer.Argument(help="NDJSON, CSV or Parquet; - is NDJSON from standard input.")
    ],
    project: ProjectOption = Path(),
    profile: ProfileOption = None,
    record_time: Annotated[
        str, typer.Option("--record-time", help="now, event, or field:NAME (when the record arrived).")
    ] = "now",
    form: Annotated[
        FileFormatWord | None,
        typer.Option("--format", help="Default: by the file's name.", show_default=False),
    ] = None,
    rate: Annotated[
        float | None, typer.Option("--rate", help="Records a second; default: unlimited.")
    ] = None,
    skip: Annotated[int, typer.Option("--skip", min=0, help="Pass over so many records first.")] = 0,
) -> None:
    """Append records from files to the log.

    Nothing is checked here: what a record is worth, the pipeline says when it reads it.
    """
    from headrace.cli.output import spell_rate
    from headrace.declare.words import did_you_mean
    from headrace.operate import load_project
    from headrace.operate.formats import open_producer_log
    from headrace.operate.supervise import StopSignals
    from headrace.produce.files import produce_files

    loaded = load_project(project, profile=profile, replicas=False)
    streams = {each.name: each for each in loaded.pipeline.streams}
    if stream not in streams:
        hint = did_you_mean(stream, streams)
        raise ProfileError(f"there is no stream '{stream}'{hint}", fix="there are: " + ", ".join(streams))
    hint_other_run(loaded, profile, [stream])
    stop = threading.Event()
    log = open_producer_log(loaded, stream)
    try:
        with StopSignals(stop, lambda note: None), _progress_bar() as on_progress:
            report = produce_files(
                log,
                streams[stream],
                files,
                format=None if form is None else form.value,
                record_time=record_time,
                rate=rate,
                skip=skip,
                stop=stop,
                on_progress=on_progress,
            )
    finally:
        log.close()
    each_second = spell_rate(report.records / report.seconds, report.seconds) if report.seconds > 0 else ""
    typer.echo(
        f"{report.records:,} record{'s' if report.records != 1 else ''} appended to '{stream}' "
        f"in {report.seconds:.1f} s"
        + (each_second and f", {each_second}")
        + (f"; {report.lines_empty:,} empty lines passed over" if report.lines_empty else "")
    )
    _warn(report, record_time, skip)
    if report.stopped:
        typer.echo(f"stopped before the end; go on with --skip {report.resume_at}")
        raise typer.Exit(130)


def _warn(report: "ProduceReport", record_time: str, skip: int) -> None:
    if report.timeless:
        typer.secho(
            f"warning: --record-time {record_time}: no time was found for {report.timeless:,} records; "
            "they got the log's clock",
            fg="yellow",
            err=True,
        )
    if report.skipped < skip and not report.stopped:
        typer.secho(
            f"warning: --skip {skip}: there are {report.skipped:,} records, and all were passed over",
            fg="yellow",
            err=True,
        )


@contextmanager
def _progress_bar() -> "Iterator[Callable[[ProduceProgress], None] | None]":
    """Give what a run reports to: a bar on a terminal, nothing elsewhere."""
    from headrace.cli.output import error_console

    if not error_console().is_terminal:
        yield None
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), TextColumn("{task.fields[records]:,} records"), TimeRemainingColumn())
    with Progress(*columns, console=error_console(), transient=True) as progress:
        task = progress.add_task("", total=None, records=0)

        def show(done: "ProduceProgress") -> None:
            progress.update(task, completed=done.bytes_read, total=done.bytes_total, records=done.records)

        yield show
