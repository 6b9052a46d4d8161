"""`log`: what a log holds, single records of it, and copying one to another."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.arguments import JsonOption, ProfileOption, ProjectOption, examples, hint_other_run
from headrace.errors import ProfileError, RefusedError

if TYPE_CHECKING:
    from headrace.log import Log
    from headrace.operate import Project
    from headrace.operate.log_copy import CopyProgress, CopyReport
    from headrace.rows.framing import Framing

__all__ = ["register"]

LaneOption = Annotated[
    str,
    typer.Option(
        "--lane",
        help="A side log of the stream: redrive holds what was given back, polling where a poller stands.",
    ),
]

commands = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="See what a log holds, look at records, copy a log to another one.",
)


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.add_typer(commands, name="log")


@commands.command(
    "describe",
    epilog=examples("headrace log describe", "headrace log describe events --profile kafka --json"),
)
def describe(
    stream: Annotated[str | None, typer.Argument(help="A stream of the pipeline; none: all.")] = None,
    project: ProjectOption = Path(),
    profile: ProfileOption = None,
    lane: LaneOption = "main",
    as_json: JsonOption = False,
) -> None:
    """Show settings, partitions and readers of a log: offsets, records, bytes, share, lag."""
    from headrace.cli.output import print_json
    from headrace.operate.log_tools import describe_log, settings_of

    _require_lane(lane)
    loaded = _loaded(project, profile)
    documents = []
    names = _streams(loaded, [stream] if stream is not None else [])
    hint_other_run(loaded, profile, names)
    for name in names:
        with _opened(loaded, name, lane) as log:
            document = describe_log(log)
        document["settings"] = settings_of(loaded.profile.stream(name))
        documents.append(document)
    if as_json:
        print_json(documents if stream is None else documents[0])
        return
    for number, document in enumerate(documents):
        if number:
            typer.echo()
        _print_description(document)


def _print_description(document: dict[str, Any]) -> None:
    from headrace.cli.output import console, rows_table, spell_number
    from headrace.declare.words import counted

    about = "about " if document["bytes_estimated"] else ""
    typer.echo(
        f"stream {document['stream']}: {counted(document['records'], 'records')}, "
        f"{about}{spell_number(document['bytes'])} bytes"
    )
    typer.echo(
        ", ".join(f"{name} = {value}" for name, value in document["settings"].items() if value is not None)
    )
    rows = [
        (p["partition"], p["start"], p["end"], p["records"], p["bytes"], f"{p['share']:.1%}")
        for p in document["partitions"]
    ]
    console().print(rows_table(("partition", "first offset", "end", "records", "bytes", "share"), rows))
    if not document["readers"]:
        typer.echo("\nnobody reads it yet")
        return
    typer.echo()
    lags = [
        (each["reader"], p["partition"], p["position"], p["lag_records"])
        for each in document["readers"]
        for p in each["partitions"]
    ]
    console().print(rows_table(("reader", "partition", "next offset", "lag"), lags))


@commands.command(
    "peek",
    epilog=examples(
        "headrace log peek events",
        "headrace log peek events --last 100 --json | jq .value",
        "headrace log peek events --offset 0:1234 -n 1",
        "headrace log peek events --follow --profile kafka",
    ),
)
def peek_command(
    stream: Annotated[str, typer.Argument(help="A stream of the pipeline.")],
    project: ProjectOption = Path(),
    profile: ProfileOption = None,
    from_beginning: Annotated[
        bool, typer.Option("--from-beginning", help="Begin with the first record that is kept.")
    ] = False,
    last: Annotated[
        int | None,
        typer.Option("--last", min=0, help="Begin with the last so many, over all partitions; default: 10."),
    ] = None,
    offset: Annotated[
        str | None, typer.Option("--offset", help="PARTITION:OFFSET; only that partition, from there on.")
    ] = None,
    count: Annotated[int | None, typer.Option("-n", min=1, help="End after so many records.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for more, until Ctrl-C.")] = False,
    lane: LaneOption = "main",
    as_json: Annotated[bool, typer.Option("--json", help="Print a record per line, as JSON.")] = False,
) -> None:
    """Show records of a log; no reader's position is moved.

    Values in Avro or with a JSON schema are decoded through the stream's registry. What is no JSON is shown
    as text, bytes that are no text are escaped.
    """
    from headrace.cli.output import told_waiting
    from headrace.operate.log_tools import From, peek
    from headrace.operate.supervise import StopSignals

    if sum((from_beginning, last is not None, offset is not None)) > 1:
        raise ProfileError("several places to begin", fix="give --from-beginning, --last or --offset")
    _require_lane(lane)
    begin = From(
        beginning=from_beginning,
        last=10 if last is None else last,
        offset=None if offset is None else From.parse_offset(offset),
    )
    loaded = _loaded(project, profile)
    [name] = _streams(loaded, [stream])
    hint_other_run(loaded, profile, [name])
    stop = threading.Event()
    shown = False
    with ExitStack() as undo:
        undo.enter_context(StopSignals(stop, lambda note: None))
        log = undo.enter_context(_opened(loaded, name, lane))
        framing = _framing(loaded, name, undo)
        for record in peek(
            log,
            begin,
            lane=lane,
            records_max=count,
            follow=follow,
            framing=framing,
            stop=stop,
            tell=told_waiting(),
        ):
            shown = True
            typer.echo(record.line() if as_json else _for_people(record))
        if not shown and not as_json and not stop.is_set():
            empty = all(each.start == each.end for each in log.partitions())
            where = _EMPTY.get(lane, "there") if empty else "there"
            typer.echo(f"stream '{name}' holds no record {where}", err=True)


def _for_people(record: Any) -> str:
    head = f"{record.address}  {record.facts['record_time'].replace('+00:00', 'Z')}"
    if record.facts["key"] is not None:
        head += f"  key {record.facts['key']}"
    lines = [head, *(f"  {each['key']}: {each['value']}" for each in record.facts["headers"])]
    if record.problem:
        lines.append(f"  cannot be read: {record.problem}")
    return "\n".join((*lines, record.pretty(), ""))


@commands.command(
    "copy",
    epilog=examples(
        "headrace log copy --from-profile local --to-profile kafka",
        "headrace log copy events --from-profile kafka --to-profile local --json",
    ),
)
def copy(
    streams: Annotated[list[str] | None, typer.Argument(help="Streams of the pipeline; none: all.")] = None,
    from_profile: Annotated[str, typer.Option("--from-profile", help="Where the records are.")] = "local",
    to_profile: Annotated[
        str, typer.Option("--to-profile", help="Where they go: a section [profiles.NAME] of headrace.toml.")
    ] = "",
    project: ProjectOption = Path(),
    without_redrive: Annotated[
        bool, typer.Option("--without-redrive", help="Leave out dead letters that were given back.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Copy the records of streams from one profile's log to another's.

    Order within a partition, partition numbers, keys, headers and record times stay. A copy that was stopped
    or killed goes on where it was when the same command is given again: nothing is lost or copied twice. It
    ends with what the source held when it began.
    """
    from headrace.cli.output import print_json
    from headrace.operate.supervise import StopSignals

    if not to_profile:
        raise ProfileError("where to is not said", fix="add --to-profile NAME")
    source, target = _loaded(project, from_profile), _loaded(project, to_profile)
    names = _streams(source, streams or [])
    for name in names:
        _require_times(target, name)
    stop = threading.Event()
    reports = []
    with StopSignals(stop, lambda note: None):
        for name in names:
            if not stop.is_set():
                reports.append(_copy_stream(source, target, name, stop, redrive=not without_redrive))
    if as_json:
        print_json(reports)
    else:
        for report in reports:
            _print_copy(report)
    if stop.is_set():
        typer.echo("stopped before the end; the same command goes on", err=True)
        raise typer.Exit(130)


def _copy_stream(
    source: "Project", target: "Project", name: str, stop: threading.Event, *, redrive: bool
) -> dict[str, Any]:
    from headrace.cli.output import told_waiting
    from headrace.operate.log_copy import copy_log, copy_redrive_lane

    with (
        _opened(source, name) as from_log,
        _opened(target, name, make=True) as to_log,
        _progress(name) as show,
    ):
        report: CopyReport = copy_log(from_log, to_log, stop=stop, on_progress=show, tell=told_waiting())
        document = report.to_json()
        document["partitions_added"] = len(to_log.partitions()) - len(from_log.partitions())
        if redrive and not stop.is_set():
            lane = copy_redrive_lane(from_log, to_log, stop=stop, tell=told_waiting())
            document["redrive_copied"] = lane.copied
    return document


def _print_copy(report: dict[str, Any]) -> None:
    from headrace.declare.words import counted

    before = f" ({report['copied_before']:,} were there already)" if report["copied_before"] else ""
    typer.echo(f"{report['stream']}: {counted(report['copied'], 'records')} copied{before}")
    if report.get("redrive_copied"):
        typer.echo(f"{report['stream']}: {report['redrive_copied']:,} redriven records copied")
    if report["lost"]:
        typer.secho(
            f"warning: {report['lost']:,} records were gone from the source before they were copied",
            fg="yellow",
            err=True,
        )
    if report["partitions_added"] > 0:
        typer.secho(
            f"note: the target has {report['partitions_added']} partitions more; keys of new records may go "
            "to other partitions than before",
            fg="yellow",
            err=True,
        )


def _require_times(target: "Project", name: str) -> None:
    binding = target.profile.stream(name)
    if getattr(binding, "log", "") == "kafka" and getattr(binding, "record_time", "") != "header":
        raise RefusedError(
            f"stream '{name}' of profile '{target.profile.name}' takes record times from Kafka, so every "
            "copied record would count as one that arrives now",
            fix=f'add record_time = "header" to streams.{name} of that profile',
        )


def _loaded(project: Path, profile: str | None) -> "Project":
    from headrace.operate import load_project

    return load_project(project, profile=profile, replicas=False)


def _streams(loaded: "Project", wanted: Sequence[str]) -> list[str]:
    from headrace.declare.words import did_you_mean

    known = [each.name for each in loaded.pipeline.streams]
    for name in wanted:
        if name not in known:
            raise ProfileError(
                f"there is no stream '{name}'{did_you_mean(name, known)}",
                fix="there are: " + ", ".join(known),
            )
    return list(dict.fromkeys(wanted)) or known


_EMPTY = {
    "redrive": "in its lane redrive: `headrace dead-letters redrive` puts them there",
    "polling": "in its lane polling: a poller keeps there how far it came (polling.STREAM, `headrace poll`)",
}
"""What is said of a lane that holds nothing."""


def _require_lane(lane: str) -> None:
    """Raise ProfileError for a lane that no stream has: asking a log for one would make it."""
    from headrace.declare.words import did_you_mean, printable
    from headrace.operate.redrive import LANE as REDRIVE
    from headrace.produce.polling import LANE as POLLING

    known = ("main", REDRIVE, POLLING)
    if lane not in known:
        raise ProfileError(
            f"--lane: there is no lane '{printable(lane)}'{did_you_mean(lane, known)}",
            fix="there are: " + ", ".join(known),
        )


@contextmanager
def _opened(loaded: "Project", name: str, lane: str = "main", *, make: bool = False) -> "Iterator[Log]":
    from headrace.operate import open_log

    with ExitStack() as undo:
        log = open_log(loaded, name, make=make)
        undo.callback(log.close)
        yield log if lane == "main" else log.lane(lane)


def _framing(loaded: "Project", name: str, undo: ExitStack) -> "Framing | None":
    """Return what reads the stream's format; None for plain JSON."""
    from headrace.operate.formats import open_framings

    streams = [each for each in loaded.pipeline.streams if each.name == name]
    return open_framings(loaded, streams, undo).get(name)


@contextmanager
def _progress(name: str) -> "Iterator[Callable[[CopyProgress], None]]":
    """Give what a copy reports to: a bar on a terminal, nothing elsewhere."""
    from headrace.cli.output import error_console

    if not error_console().is_terminal:
        yield lambda done: None
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} of {task.total:,.0f} records"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=error_console(), transient=True) as progress:
        task = progress.add_task(name, total=1)
        yield lambda done: progress.update(task, completed=done.records, total=done.total)
