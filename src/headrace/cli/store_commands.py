"""`status`, `tables`, `sql`, `ledger`: asks the store, whether the pipeline runs or not."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.arguments import Format, JsonOption, ProfileOption, ProjectOption, examples, home_of

if TYPE_CHECKING:
    from headrace.operate import StoreClient

__all__ = ["client_of", "register"]

RowsOption = Annotated[int, typer.Option("--rows", min=1, max=1_000_000, help="Show at most so many rows.")]
FormatOption = Annotated[Format, typer.Option("--format", help="How rows are printed.")]
_ENDED = {
    "killed": "was killed, or the machine went down",
    "failed": "failed, or was killed: `headrace logs` shows what it said last",
}


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command(epilog=examples("headrace status", "headrace status --json"))(status)
    app.command(epilog=examples("headrace tables", "headrace tables revenue --rows 50"))(tables)
    app.command(
        epilog=examples(
            'headrace sql "SELECT * FROM revenue ORDER BY window_start DESC LIMIT 5"',
            'headrace sql "SELECT outcome, sum(records) FROM outcomes_by_minute GROUP BY ALL" --format json',
        )
    )(sql)
    app.command(epilog=examples("headrace ledger", "headrace ledger --json"))(ledger)


@contextmanager
def client_of(project: Path, profile: str | None) -> "Iterator[StoreClient]":
    """Connect to the project's store for one command."""
    from headrace.operate import connect

    client = connect(home_of(project, profile))
    try:
        yield client
    finally:
        client.close()


def status(
    project: ProjectOption = Path(), profile: ProfileOption = None, as_json: JsonOption = False
) -> None:
    """Show positions, lag, frontiers, outcomes, tables."""
    from headrace.cli.output import console, print_json, rows_table, spell_number
    from headrace.declare.words import counted

    with client_of(project, profile) as client:
        document = client.status()
    if as_json:
        print_json(document)
        return
    _print_run(document)
    if document["log_problem"]:
        typer.secho(
            f"the log does not answer, so the lag is not known: {document['log_problem']}", fg="yellow"
        )
    for alert in document["alerts"]:
        colour = "red" if alert["state"] == "firing" else "yellow"
        typer.secho(f"alert {alert['name']} is {alert['state']}: {alert['summary']}", fg=colour)
    for name, stream in document["streams"].items():
        outcomes = ", ".join(f"{spell_number(n)} {outcome}" for outcome, n in stream["outcomes"].items() if n)
        typer.echo(f"\nstream {name}: {outcomes or 'nothing read yet'}")
        rows = [
            (
                line["partition"] if line["lane"] == "main" else f"{line['partition']} ({line['lane']})",
                line["position"],
                line["end"],
                line["lag_records"],
                line["lag_seconds"],
                _time(line["frontier"]),
            )
            for line in stream["partitions"]
        ]
        names = ("partition", "next offset", "end", "lag", "lag in s", "frontier")
        console().print(rows_table(names, rows))
        if stream["lag_records"]:
            lag = counted(stream["lag_records"], "records")
            typer.echo(f"lag: {lag}, the oldest waits for {spell_number(stream['lag_seconds'])} s")
    for topic in document["dead_letter_topics"]:
        refused = f", {topic['refused']} refused by it" if topic["refused"] else ""
        waiting = f"; waiting: {topic['waiting']}" if topic["waiting"] else ""
        typer.echo(f"\ndead-letter topic {topic['topic']}: {topic['sent']} sent{refused}{waiting}")
    typer.echo("\ntables")
    _print_tables(document["tables"])
    if document["replicas"]:
        from headrace.cli.replica_commands import print_replicas

        typer.echo("\nreplicas")
        print_replicas(document["replicas"], None if document["running"] else document["profile"])


def _print_run(document: Mapping[str, Any]) -> None:
    """Say whether it runs, with which profile, how fast and what it waits for, or how it ended."""
    from headrace.cli.output import spell_number, spell_rate

    state = "running" if document["running"] else "stopped"
    if document["waiting"]:
        state += f", waiting: {document['waiting']}"
    size = spell_number(document["state_bytes"] / 1e6)
    typer.echo(f"profile '{document['profile']}': {state}; epoch {document['epoch']}; store {size} MB")
    if why := _ENDED.get(document["ended"]):
        typer.secho(f"the last run {why}; the next one goes on where its last epoch ended", fg="yellow")
    speed = document["throughput"]
    when = "over the last minute" if document["running"] else "in its last minute"
    if rate := spell_rate(speed["records_per_second"], speed["seconds"]):
        typer.echo(f"{rate.removesuffix('/s')} records/s {when}")
    if document["spark"]:
        typer.echo(_spark_line(document["spark"]))
    if document["awaits"] == "spark":
        typer.echo("Spark is being started; nothing is read before its first micro-batch")
    elif document["awaits"] == "replicas":
        behind = [each["replica"] for each in document["replicas"] if each["lag_epochs"]]
        which = f": {', '.join(behind)}" if behind else ""
        typer.echo(f"everything is read; the run ends when its replicas have it{which}")


def _spark_line(spark: Mapping[str, Any]) -> str:
    from headrace.cli.output import spell_number

    parts = sorted(spark["seconds"].items(), key=lambda part: -part[1])
    whole = dict(parts).get("triggerExecution")
    shown = ", ".join(f"{name} {seconds:.1f}" for name, seconds in parts[:4] if name != "triggerExecution")
    last = "" if whole is None else f"; micro-batch {spark['batch']} took {whole:.1f} s ({shown})"
    named = (("input rate", spark["input_rate"]), ("processing rate", spark["processing_rate"]))
    rates = "".join(f"; {name} {spell_number(rate)} records/s" for name, rate in named if rate is not None)
    page = f"; {spark['page']}" if spark["page"] else ""
    return f"Spark at {spark['master']}: executors {spark['executors']}{last}{rates}{page}"


def tables(
    name: Annotated[str | None, typer.Argument(help="Show the rows of this table.")] = None,
    project: ProjectOption = Path(),
    profile: ProfileOption = None,
    rows: RowsOption = 20,
    form: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """List the tables, or show the rows of one."""
    from headrace.cli.output import print_json, print_rows

    with client_of(project, profile) as client:
        listed = client.status()["tables"]
        if name is None:
            print_json(listed) if as_json else _print_tables(listed)
            return
        _require_table(name, client, listed)
        quoted = '"' + name.replace('"', '""') + '"'
        # One row more than shown tells whether there are more, without counting them all.
        found = client.query(f"SELECT * FROM {quoted} LIMIT {rows + 1}", rows_max=rows + 1)
    print_rows(found.slice(0, rows), Format.JSON if as_json else form)
    if form is Format.TABLE and not as_json:
        if not found.num_rows:
            typer.echo(f"{name} has no rows yet")
        elif found.num_rows > rows:
            more = f'headrace sql "SELECT * FROM {name} ORDER BY 1 DESC"'
            typer.echo(f"the first {'row' if rows == 1 else f'{rows} rows'}; more: {more}")


def sql(
    query: Annotated[str, typer.Argument(help="A SELECT over the tables; - reads it from standard input.")],
    project: ProjectOption = Path(),
    profile: ProfileOption = None,
    form: FormatOption = Format.TABLE,
    rows: RowsOption = 10_000,
    seconds: Annotated[
        float, typer.Option("--seconds", min=0.1, max=60, help="Give up after so long.")
    ] = 5.0,
) -> None:
    """Query the tables in DuckDB's SQL.

    On a running pipeline it sees the latest epoch.
    """
    import sys

    from headrace.cli.output import print_rows
    from headrace.declare.words import counted

    text = sys.stdin.read() if query == "-" else query
    with client_of(project, profile) as client:
        found = client.query(text, rows_max=rows + 1, seconds_max=seconds)
    print_rows(found.slice(0, rows), form)
    if found.num_rows > rows:
        typer.secho(f"cut off after {counted(rows, 'rows')}; --rows gives more", fg="yellow", err=True)


def ledger(
    project: ProjectOption = Path(), profile: ProfileOption = None, as_json: JsonOption = False
) -> None:
    """Show what became of every record.

    Each has exactly one outcome, and the counts add up; if they do not, the exit code is 3.
    """
    from headrace.cli.output import console, print_json, rows_table
    from headrace.declare.words import counted

    with client_of(project, profile) as client:
        document = client.ledger()
    if as_json:
        print_json(document)
        raise typer.Exit(0 if document["balanced"] else 3)
    typer.echo(f"profile '{document['profile']}', epoch {document['epoch']}")
    for name, stream in document["streams"].items():
        typer.echo(f"stream {name}: {counted(stream['read'], 'records')} read")
        console().print(
            rows_table(("outcome", "records"), [(k, v) for k, v in stream["outcomes"].items() if v])
        )
        if lost := sum(lane["lost"] for lane in document["lanes"] if lane["stream"] == name):
            typer.secho(
                f"lost: {counted(lost, 'records')}, deleted by retention before they were read", fg="red"
            )
    if document["tables"]:
        names = ("table", "accepted", "kept", "filtered", "failed", "corrections")
        console().print(rows_table(names, [[line[key] for key in names] for line in document["tables"]]))
    typer.echo("the ledger balances" if document["balanced"] else "the ledger does NOT balance")
    if not document["balanced"]:
        raise typer.Exit(3)


def _print_tables(listed: list[dict[str, Any]]) -> None:
    from headrace.cli.output import console, rows_table

    if not listed:
        typer.echo('no tables yet - declare one in pipeline.py: pipeline.table("name", "SELECT …")')
        return
    rows = [
        (
            line["table"],
            line["kind"],
            "" if line["rows"] is None else line["rows"],  # those of a view are not counted
            _time(line.get("closed_through")),
            _notes(line),
        )
        for line in listed
    ]
    console().print(rows_table(("table", "class", "rows", "closed through", ""), rows))


def _notes(line: dict[str, Any]) -> str:
    from headrace.declare.words import counted

    notes = []
    if line.get("rebuilding"):
        notes.append("rebuilding")
    if line.get("partial_since"):
        notes.append(f"complete from {_time(line['partial_since'])} on")
    if line.get("lost_before"):
        notes.append(f"lacks records lost before {_time(line['lost_before'])}")
    if line.get("corrections"):
        notes.append(counted(line["corrections"], "corrections"))
    return ", ".join(notes)


def _require_table(name: str, client: "StoreClient", listed: list[dict[str, Any]]) -> None:
    from headrace.declare.words import did_you_mean
    from headrace.errors import RefusedError

    known = [line["table"] for line in listed]
    if name in known:
        return
    found = client.query(
        "SELECT table_name FROM information_schema.tables WHERE table_schema = 'main'"
    ).column(0)
    known = sorted({*known, *found.to_pylist()})
    if name not in known:
        raise RefusedError(
            f"there is no table '{name}'{did_you_mean(name, known)}", fix="there are: " + ", ".join(known)
        )


def _time(text: str | None) -> str:
    return "" if text is None else text.replace("T", " ").removesuffix("+00:00").partition(".")[0]
