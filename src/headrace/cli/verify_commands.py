"""`verify`: the proof that both engines answer the same, over a part of the log."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.arguments import JsonOption, ProfileOption, ProjectOption, duration_of, examples
from headrace.errors import ProfileError

if TYPE_CHECKING:
    from headrace.operate import Project
    from headrace.operate.verify import Progress, Recorded, Verdict

__all__ = ["DIFFERENT", "register"]

DIFFERENT = 4
"""The exit code when the engines differ; 0 says that they are equal."""

_TOLD_MAX = 20
_STEPS = {"copy": "copying the slice", "local": "local engine", "spark": "Spark", "compare": "comparing"}


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command(
        epilog=examples(
            "headrace verify --profile cluster",
            "headrace verify --profile cluster --last 10m --report verify.html",
            "headrace verify --profile cluster --from local --offsets events/0:0-5000",
            "headrace verify --profile cluster --file records.ndjson --json",
        )
    )(verify)


def verify(
    project: ProjectOption = Path(),
    profile: ProfileOption = None,
    source: Annotated[
        str | None,
        typer.Option("--from", help="The profile whose log holds the records; default: the same."),
    ] = None,
    last: Annotated[
        str | None,
        typer.Option("--last", help="Back from the newest record: 30s, 10m, 1h (the default), or all."),
    ] = None,
    offsets: Annotated[
        list[str] | None,
        typer.Option("--offsets", help="STREAM/PARTITION:START-END; may be given for each partition."),
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", help="Records as `headrace log peek --json` prints them.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option("--report", help="Write what was found as an HTML page.")
    ] = None,
    master: Annotated[
        str | None,
        typer.Option("--master", help="Spark's master; default: the profile's, or local[2]."),
    ] = None,
    records_max: Annotated[
        int, typer.Option("--records-max", min=1, help="The most records that are verified.")
    ] = 1_000_000,
    as_json: JsonOption = False,
) -> None:
    """Run recorded records through both engines from empty, and compare every answer.

    The records are copied into temporary topics on the profile's brokers; stores are temporary, and the
    project's own is not touched. The exit code is 0 when everything is equal, 4 when something differs.
    """
    from headrace.cli.output import print_json
    from headrace.operate import load_project
    from headrace.operate.supervise import StopSignals
    from headrace.operate.verify import verify as run_verify

    chosen = [name for name, one in (("--last", last), ("--offsets", offsets), ("--file", file)) if one]
    if len(chosen) > 1:
        raise ProfileError(" and ".join(chosen) + " exclude each other", fix="say one of them")
    loaded = load_project(project, profile=profile)
    stop = threading.Event()
    with StopSignals(stop, lambda note: None), ExitStack() as undo:
        slice_ = _slice(loaded, source, last, offsets, file, records_max, undo)
        with _progress() as show:
            verdict = run_verify(loaded, slice_, master=master, stop=stop, on_progress=show, tell=_tell)
    if verdict is None:
        typer.echo("stopped before the end; nothing was compared", err=True)
        raise typer.Exit(130)
    if report is not None:
        _write(report, verdict)
    if as_json:
        print_json(verdict.to_json())
    else:
        _print(verdict)
    if not verdict.equal:
        raise typer.Exit(DIFFERENT)


def _slice(
    loaded: "Project",
    source: str | None,
    last: str | None,
    offsets: list[str] | None,
    file: Path | None,
    records_max: int,
    undo: ExitStack,
) -> "Recorded":
    from headrace.operate import load_project, open_log
    from headrace.operate.verify import OffsetRange, Wanted, read_file, slice_logs

    streams = tuple(each.name for each in loaded.pipeline.streams)
    if file is not None:
        return read_file(file, streams, records_max=records_max)
    named = tuple(OffsetRange.parse(each) for each in offsets or ())
    since = None if last == "all" else duration_of("--last", last or "1h")
    home = loaded if source is None else load_project(loaded.folder, profile=source)
    logs = {}
    for name in streams:
        logs[name] = open_log(home, name, make=False)
        undo.callback(logs[name].close)
    return slice_logs(logs, Wanted(None if named else since, named, records_max))


def _tell(note: str) -> None:
    typer.echo(note, err=True)


@contextmanager
def _progress() -> "Iterator[Callable[[Progress], None]]":
    """Give what a verification reports to: a bar on a terminal, nothing elsewhere."""
    from headrace.cli.output import error_console

    if not error_console().is_terminal:
        yield lambda progress: None
        return
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} of {task.total:,.0f} records"),
        TimeElapsedColumn(),
    )
    with Bars(*columns, console=error_console(), transient=True) as bars:
        tasks = {}

        def show(progress: "Progress") -> None:
            if progress.step not in tasks:
                tasks[progress.step] = bars.add_task(_STEPS[progress.step], total=max(progress.total, 1))
            bars.update(tasks[progress.step], completed=progress.records)

        yield show


def _write(path: Path, verdict: "Verdict") -> None:
    from datetime import UTC, datetime

    from headrace.errors import RefusedError
    from headrace.operate.verify import verdict_page

    try:
        path.write_text(verdict_page(verdict, datetime.now(UTC)), encoding="utf-8")
    except OSError as error:
        raise RefusedError(
            f"{path} cannot be written: {error.strerror}", fix="name another file with --report"
        ) from error


def _print(verdict: "Verdict") -> None:
    from headrace.cli.output import console, rows_table
    from headrace.declare.words import counted
    from headrace.operate.verify import told_differences

    epochs, batches = counted(verdict.local.epochs, "epochs"), counted(verdict.spark.epochs, "micro-batches")
    typer.echo(
        f"{counted(verdict.records, 'records')}: the local engine took {epochs} "
        f"({verdict.local.seconds:.1f} s), Spark at {verdict.master} {batches} "
        f"({verdict.spark.seconds:.1f} s)\n"
    )
    rows = [(one.title, one.rows_local, one.rows_spark, one.different) for one in verdict.compared]
    console().print(rows_table(("compared", "rows, local", "rows, Spark", "differences"), rows))
    typer.echo()
    for line in told_differences(verdict, each_max=_TOLD_MAX):
        typer.echo(line)
    if verdict.equal:
        typer.echo("equal")
        return
    typer.echo(f"different: {verdict.different:,} places")
    if verdict.conflicting:
        typer.echo(
            f"note: {verdict.conflicting:,} copies have other content under the same unique value; which of "
            "them counts is not settled when they lie in different partitions"
        )
