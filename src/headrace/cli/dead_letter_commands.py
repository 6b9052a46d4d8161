"""`dead-letters`: looks at records that were set aside, and gives them back."""

import re
import sys
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.arguments import JsonOption, ProfileOption, ProjectOption, examples, home_of
from headrace.cli.store_commands import client_of
from headrace.declare.words import printable
from headrace.errors import ProfileError

if TYPE_CHECKING:
    from headrace.operate import Home

__all__ = ["register"]

StreamOption = Annotated[str | None, typer.Option("--stream", help="Only of this stream.")]
OutcomeOption = Annotated[
    str | None, typer.Option("--outcome", help="Only malformed, rejected or future ones.")
]
RuleOption = Annotated[
    str | None, typer.Option("--rule", help="Only those that broke this rule, such as expect:known_type.")
]
NONE = "no dead letters - nothing was set aside"
_OUTCOMES = ("malformed", "rejected", "future")
_PREVIEW_BYTES = 160
_SAME_BYTES = 24
_SHOWN = 3

commands = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="See records that were set aside, and give them back.",
)


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.add_typer(commands, name="dead-letters")


@commands.command(
    "list",
    epilog=examples(
        "headrace dead-letters list", "headrace dead-letters list --rule expect:known_type --limit 100"
    ),
)
def list_letters(
    project: ProjectOption = Path(),
    profile: ProfileOption = None,
    stream: StreamOption = None,
    outcome: OutcomeOption = None,
    rule: RuleOption = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Show at most so many.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """List records that were set aside: address, reason, beginning of the bytes."""
    from headrace.cli.output import console, print_json, rows_table

    _require_outcome(outcome)
    with client_of(project, profile) as client:
        letters = client.dead_letters(stream=stream, outcome=outcome, rule=rule, limit=limit + 1).to_pylist()
    if as_json:
        print_json([_document(letter) for letter in letters[:limit]])
        return
    if not letters:
        filtered = any(word is not None for word in (stream, outcome, rule))
        typer.echo("no dead letter matches" if filtered else NONE)
        return
    rows = []
    for letter in letters[:limit]:
        document = _document(letter)
        rules = ", ".join(reason["rule"] for reason in document["reasons"])
        rows.append((document["address"], letter["outcome"], rules, (document["value"] or "")[:60]))
    console().print(rows_table(("address", "outcome", "rules", "record"), rows))
    if len(letters) > limit:
        typer.echo(f"the first {limit}; --limit shows more")
    typer.echo(f"look at one: headrace dead-letters show {rows[0][0]}")


@commands.command(
    "show",
    epilog=examples(
        "headrace dead-letters show events:0:1234",
        "headrace dead-letters show events:0:1234 --raw > record.json",
    ),
)
def show(
    address: Annotated[str, typer.Argument(help="STREAM:PARTITION:OFFSET")],
    project: ProjectOption = Path(),
    profile: ProfileOption = None,
    as_json: JsonOption = False,
    raw: Annotated[bool, typer.Option("--raw", help="Print the record's bytes and nothing else.")] = False,
) -> None:
    """Show one record that was set aside: bytes, address, times, every reason, what became of it since."""
    from headrace.cli.output import cell, print_facts, print_json
    from headrace.operate.redrive import Address, find_letters, since

    with client_of(project, profile) as client:
        letter = find_letters(client, [Address.parse(address)])[0]
        later = None if raw else since(client, letter)
    if later is None:
        sys.stdout.buffer.write(letter["value"] or b"")
        return
    again = later.again and str(later.again)
    document = {**_document(letter), "accepted_since": later.accepted, "set_aside_again": again}
    if as_json:
        print_json(document)
        return
    print_facts(
        [
            ("address", document["address"]),
            ("outcome", document["outcome"]),
            *(("reason", f"{reason['rule']}: {reason['detail']}") for reason in document["reasons"]),
            ("record time", cell(letter["record_time"])),
            ("event time", "" if letter["event_time"] is None else cell(letter["event_time"])),
            ("key", document["key"] or ""),
            *(("header", f"{key}: {value}") for key, value in document["headers"].items()),
        ]
    )
    value = "(a tombstone: no value)" if letter["value"] is None else document["value"]
    typer.echo("\n" + printable(value, keep="\n\t"))
    if later.accepted:
        typer.echo("\nthe record was given back and accepted since: there is nothing to correct", err=True)
    elif again:
        typer.echo(
            f"\nthe record was given back and set aside again: headrace dead-letters show {again}", err=True
        )
    else:
        correct = f"headrace dead-letters redrive {document['address']} --set field=value"
        typer.echo(f"\ncorrect it: {correct}", err=True)


@commands.command(
    "redrive",
    epilog=examples(
        "headrace dead-letters redrive events:0:1234 --set device=mobile",
        "headrace dead-letters redrive --rule expect:known_type --dry-run",
        "headrace dead-letters redrive events:0:1234 --with record.json --yes",
        "headrace dead-letters redrive --from-topic shop-dead-letters --profile kafka",
    ),
)
def redrive(  # noqa: PLR0913, PLR0917 - each is an option of the command
    addresses: Annotated[
        list[str] | None, typer.Argument(help="STREAM:PARTITION:OFFSET; none: those of the filters.")
    ] = None,
    project: ProjectOption = Path(),
    profile: ProfileOption = None,
    stream: StreamOption = None,
    outcome: OutcomeOption = None,
    rule: RuleOption = None,
    everything: Annotated[bool, typer.Option("--all", help="Every dead letter there is.")] = False,
    replacement: Annotated[
        Path | None, typer.Option("--with", help="A file with the corrected record, for one address.")
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", help="field=value of a JSON record; may be given several times."),
    ] = None,
    from_topic: Annotated[
        str | None,
        typer.Option("--from-topic", help="A Kafka topic that holds corrected records with their addresses."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be done, and do nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Give records that were set aside to the engine again, as they were or corrected.

    Each goes to the stream's redrive lane, without checks of time, and is accepted at most once. Filters
    and --all leave out what was accepted since, and of a record that failed again take the last try. From a
    topic go those whose bytes were changed there (with --all, the others too): of a record the latest, and
    not again next time. Who is killed meanwhile and begins again may give a few thousand records twice.
    """
    from headrace.operate.redrive import Address
    from headrace.operate.redrive_parts import GoingBack

    _require_outcome(outcome)
    home = home_of(project, profile)
    if from_topic is not None:
        if addresses or replacement or assignments or outcome or rule:
            raise ProfileError(
                "--from-topic takes what is in the topic",
                fix="leave out addresses, --set, --with and filters",
            )
        _redrive_from_topic(home, from_topic, stream, everything=everything, dry_run=dry_run, yes=yes)
        return
    chosen = [Address.parse(text) for text in addresses or ()]
    if not chosen and not everything and (stream, outcome, rule) == (None, None, None):
        raise ProfileError(
            "nothing was chosen", fix="name addresses, or --stream, --outcome, --rule, or --all"
        )
    change = _change(chosen, replacement, assignments)
    with client_of(project, profile) as client:
        letters = GoingBack(client, change, addresses=chosen, stream=stream, outcome=outcome, rule=rule)
        records, first = letters.look(_SHOWN)
    # Nothing is held open while somebody is asked: a run may begin meanwhile.
    if not records:
        typer.echo("no dead letter matches" if (stream, outcome, rule) != (None, None, None) else NONE)
    elif _wanted(records, first, dry_run=dry_run, yes=yes):
        with client_of(project, profile) as client:
            letters.letters = client
            _tell(letters.give_back(partial(_open_log, home)), running=client.running)


def _require_outcome(outcome: str | None) -> None:
    from headrace.declare.words import did_you_mean

    if outcome is not None and outcome not in _OUTCOMES:
        raise ProfileError(
            f"--outcome: no record is set aside as '{outcome}'{did_you_mean(outcome, _OUTCOMES)}",
            fix="one of: " + ", ".join(_OUTCOMES),
        )


def _open_log(home: "Home", stream: str) -> Any:
    from headrace.operate import open_log

    return open_log(home, stream)


def _wanted(records: int, first: list[Any], *, dry_run: bool, yes: bool) -> bool:
    """Show the first of so many records; return whether they are to be given back."""
    _preview(first, records)
    if dry_run:
        typer.echo(f"{_counted(records)} would be given back; nothing was done")
        return False
    if not yes and not _agreed(f"give {_counted(records)} back?"):
        typer.echo("nothing was done")
        raise typer.Exit(1)
    return True


def _agreed(question: str) -> bool:
    """Ask. Raises ProfileError where nobody is there who could answer."""
    try:
        return typer.confirm(question)
    except typer.Abort as ended:
        if not isinstance(ended.__context__, EOFError):  # Ctrl-C
            raise
        typer.echo()
        raise ProfileError(
            "nobody answers, so nothing was done: standard input is at its end",
            fix="--yes gives them back without asking, --dry-run only shows them",
        ) from None


def _tell(records: int, *, running: bool) -> None:
    then = "the running pipeline takes them now" if running else "`headrace run` takes them"
    typer.echo(f"{_counted(records)} given back; {then}, and `headrace ledger` shows what became of them")


def _counted(records: int) -> str:
    return f"{records} record" + ("s" if records != 1 else "")


def _redrive_from_topic(
    home: "Home", name: str, stream: str | None, *, everything: bool, dry_run: bool, yes: bool
) -> None:
    from headrace.operate import connect
    from headrace.operate.dead_letter_topics import open_letters_topic, streams_of_topics
    from headrace.operate.redrive_topic import TopicLetters

    with closing(open_letters_topic(home, name, stream)) as topic:
        with closing(connect(home)) as client:
            letters = TopicLetters(topic, streams_of_topics(home))
            chosen = letters.look(client, _SHOWN, unchanged=everything)
        left_out = [
            f"{number} {why}"
            for number, why in (
                (chosen.unchanged, "as they were (--all gives them back too)"),
                (chosen.unknown, "that this store has no dead letter for"),
                (letters.nameless, "without an address in their headers"),
            )
            if number
        ]
        if left_out:
            typer.echo(f"left out of {letters.records} in the topic: " + ", ".join(left_out))
        if not chosen.records:
            typer.echo("the topic holds no corrected record that was not given back before")
        # The store is not held open while somebody is asked: a run may begin meanwhile.
        elif _wanted(chosen.records, chosen.first, dry_run=dry_run, yes=yes):
            with closing(connect(home)) as client:
                _tell(letters.give_back(client, partial(_open_log, home)), running=client.running)


def _change(chosen: list[Any], replacement: Path | None, assignments: list[str] | None) -> Any:
    from headrace.operate.redrive import replace_bytes, set_fields

    if replacement is not None and assignments:
        raise ProfileError("--with and --set at once", fix="give one of them")
    if replacement is not None:
        if len(chosen) != 1:
            raise ProfileError("--with corrects one record", fix="name its address")
        try:
            return replace_bytes(
                sys.stdin.buffer.read() if str(replacement) == "-" else replacement.read_bytes()
            )
        except OSError as error:
            raise ProfileError(
                f"{replacement} cannot be read: {error.strerror}", fix="name a file with the corrected record"
            ) from None
    return set_fields(assignments) if assignments else None


def _preview(first: list[Any], records: int) -> None:
    from headrace.cli.output import cell

    for record in first:
        typer.echo(f"{record.address}  {record.outcome}")
        if record.value == record.before:
            typer.echo(f"    {cell(record.value or b'')}")
            continue
        before, after = _from_the_change(record.before or b"", record.value or b"")
        typer.echo(f"  - {before}\n  + {after}")
    if records > len(first):
        typer.echo(f"… and {records - len(first)} more")


def _from_the_change(before: bytes, after: bytes) -> tuple[str, str]:
    """Return both as a line from shortly before they differ: cut at the same place, they could look alike."""
    from headrace.cli.output import cell

    before, after = _without_blanks(before), _without_blanks(after)  # a field that was set makes JSON anew
    pairs = enumerate(zip(before, after, strict=False))
    same = next((place for place, (one, other) in pairs if one != other), min(len(before), len(after)))
    begin = max(0, same - _SAME_BYTES)
    while begin and before[begin : begin + 1] >= b"\x80" and before[begin : begin + 1] < b"\xc0":
        begin -= 1  # never within a character
    lead = "…" if begin else ""
    return lead + cell(before[begin:]), lead + cell(after[begin:])


def _without_blanks(value: bytes) -> bytes:
    if not value.lstrip().startswith(b"{"):
        return value
    return re.sub(rb'("(?:[^"\\]|\\.)*")|\s+', lambda found: found[1] or b"", value)


def _document(letter: dict[str, Any]) -> dict[str, Any]:
    from headrace.operate.redrive import Address

    times = {name: letter[name] and letter[name].isoformat() for name in ("record_time", "event_time")}
    return {
        "address": str(Address.of(letter)),
        **{name: letter[name] for name in ("stream", "lane", "partition", "offset", "outcome")},
        **times,
        "reasons": letter["reasons"],
        "key": _shown(letter["key"]),
        "value": _shown(letter["value"]),
        "headers": {header["key"]: _shown(header["value"]) for header in letter["headers"] or ()},
    }


def _shown(value: bytes | None) -> str | None:
    if value is None:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return "\\x" + value.hex()
