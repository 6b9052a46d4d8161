"""Writes the pages that are made of the code: `python docs/generate.py`. A test says when one is stale."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Container, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headrace.operate.options import OptionLine

DOCS = Path(__file__).parent
_MADE = "<!-- made by docs/generate.py: edit the code, then run it -->"


def _table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    names = list(header)
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _commands(command: Any, words: tuple[str, ...]) -> Iterable[str]:
    if subcommands := getattr(command, "commands", None):
        for name, child in subcommands.items():
            yield from _commands(child, (*words, name))
        return
    yield f"## `{' '.join(words)}`\n\n{_help_text(command)}"
    rows = []
    for parameter in command.params:
        names = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
        if getattr(parameter, "param_type_name", "") == "argument":
            names = f"`{(parameter.name or '').upper()}`"
        rows.append((names, (getattr(parameter, "help", "") or "").replace("\n", " ")))
    if rows:
        yield _table(("option", "what it does"), rows)


def _help_text(command: Any) -> str:
    """Return a command's help; the example that `--help` shows below it becomes a code block."""
    text = inspect.cleandoc(command.help or "").replace("\b\n", "")
    example = textwrap.dedent("\n".join((command.epilog or "").strip("\b\n").splitlines()[1:]))
    return f"{text}\n\n```sh\n{example}\n```" if example else text


def commands_page() -> str:
    """Return the page of every command with its example and options."""
    import typer

    from headrace.cli.app import app

    root = typer.main.get_command(app)
    return "\n\n".join(
        [
            "# Commands",
            _MADE,
            "Every command takes `--help`; a command that reads a project takes `-C FOLDER`. "
            "`headrace --install-completion` lets the shell complete commands and options. "
            "Exit codes stand in [errors.md](errors.md).",
            *_commands(root, ("headrace",)),
        ]
    )


def profile_page() -> str:
    """Return the page of every key of headrace.toml."""
    from headrace.operate.alert_options import NOTIFIERS, AlertOptions
    from headrace.operate.bindings import EmbeddedBinding, KafkaBinding
    from headrace.operate.ingest_options import IngestOptions
    from headrace.operate.metrics_options import MetricsOptions
    from headrace.operate.options import describe_options
    from headrace.operate.page_options import PageOptions
    from headrace.operate.polling_options import PollingOptions
    from headrace.operate.profiles import EngineOptions, StoreBinding
    from headrace.operate.spark_options import SparkOptions
    from headrace.operate.telemetry_options import TelemetryOptions
    from headrace.replicate import CommonOptions, replica_kind, replica_kinds

    parts = [
        "# The profile: `headrace.toml`",
        _MADE,
        "Where a pipeline runs is not in the pipeline. Without this file everything is embedded. "
        "A text may hold `${env:NAME}` or `${file:PATH}`; what stands for a secret is never printed.",
        '```toml\n[profiles.local]\nengine = "local"\n'
        'streams.events = { log = "embedded", partitions = 3, retention = "24 hours" }\n'
        'store.path = ".headrace/store.duckdb"\nengine_settings.epoch_rows_max = 50000\n```',
    ]
    for title, kind in (
        ("`streams.NAME` in the embedded log", EmbeddedBinding),
        ('`streams.NAME` on Kafka, `log = "kafka"`', KafkaBinding),
        ("`store`", StoreBinding),
        ("`engine_settings`", EngineOptions),
        ("`spark`; what else stands under it is Spark's own ([spark.md](spark.md))", SparkOptions),
        ("`ingest`", IngestOptions),
        ("`page`", PageOptions),
        ("`metrics`", MetricsOptions),
        ("`telemetry`", TelemetryOptions),
        ("`alerts`", AlertOptions),
        ("`polling.STREAM`", PollingOptions),
    ):
        parts += [f"## {title}", _options_table(kind)]
    for name, kind in NOTIFIERS.items():
        parts += [f'### `alerts.notify.NAME` with `kind = "{name}"`', _options_table(kind)]
    parts += [
        "## `replicas.NAME`",
        "Where tables are copied to; [replicas.md](replicas.md) says how. "
        "Every kind takes these (unless its own table says otherwise):",
        _options_table(CommonOptions),
    ]
    common = describe_options(CommonOptions)
    for name in replica_kinds():
        parts += [f'### `kind = "{name}"`', _options_table(replica_kind(name), without=common)]
    return "\n\n".join(parts)


def _options_table(kind: type[Any], *, without: Container[OptionLine] = ()) -> str:
    from headrace.operate.options import describe_options

    lines = [line for line in describe_options(kind) if line not in without]
    rows = ((f"`{line.name}`", line.takes, line.default, line.help) for line in lines)
    return _table(("key", "takes", "default", "what it does"), rows)


def functions_page() -> str:
    """Return the page of functions and aggregates."""
    from headrace.sql import functions

    def words(names: Iterable[str]) -> str:
        return textwrap.fill(", ".join(f"`{name}`" for name in sorted(names)), 110, break_on_hyphens=False)

    return "\n\n".join(
        [
            "# Functions",
            _MADE,
            "A query over streams may use every function of DuckDB whose value depends on its arguments "
            "alone. What is refused, is refused when it is declared. Views, panels and alerts may use "
            "everything that reads, but no function of the pipeline "
            "([why](declarations.md#function-and-reference)).",
            "## Aggregates that are kept up to date",
            words(functions.SHORT_LIST),
            "## Refused in a query over streams",
            _table(
                ("because it depends on", "functions"),
                (
                    ("the order of records", words(functions.ORDERED_AGGREGATES).replace("\n", " ")),
                    ("the clock", words(functions.CLOCK).replace("\n", " ")),
                    ("chance", words(functions.CHANCE).replace("\n", " ")),
                    ("files", words(functions.FILES).replace("\n", " ")),
                    ("the session", words(functions.SESSION).replace("\n", " ")),
                    ("state that is not kept", words(functions.OTHER_AGGREGATES).replace("\n", " ")),
                ),
            ),
        ]
    )


def relations_page() -> str:
    """Return the page of the relations that every store has."""
    from headrace.sql.system import SYSTEM_RELATIONS

    parts = [
        "# Relations of every store",
        _MADE,
        "Beside the declared tables, `headrace sql`, views, panels and alerts may read these. "
        "`late_STREAM` has the columns of the stream, then `_partition`, `_offset` and `_record_time`.",
    ]
    for name, columns in SYSTEM_RELATIONS.items():
        rows = ((f"`{column.name}`", f"`{column.type}`") for column in columns)
        parts += [f"## `{name}`", _table(("column", "type"), rows)]
    return "\n\n".join(parts)


def metrics_page() -> str:
    """Return the page of every metric."""
    from headrace.observe.metrics import METRICS, Source

    parts = [
        "# Metrics",
        _MADE,
        "A run takes these once a second. Counters count committed work only, so they are the same before "
        "and after a crash. Every label is bounded by what is declared or by the words in its help. "
        "The store keeps two hours by the second (relation `metrics`) and two weeks by the minute "
        "(`metrics_by_minute`). There a histogram is three series: `NAME_count` and `NAME_sum`, which only "
        "grow, and `NAME` with a label `quantile` over the last minute.",
        "```sh\nheadrace sql \"SELECT time, value FROM metrics WHERE name = 'headrace_lag_records' "
        'ORDER BY time DESC LIMIT 5"\n```',
    ]
    for source in Source:
        rows = (
            (
                f"`{each.name}`" + (f" (also `{each.known}`)" if each.known else ""),
                str(each.kind),
                each.unit,
                ", ".join(f"`{label}`" for label in each.labels),
                each.help,
            )
            for each in METRICS
            if each.source is source
        )
        title = f"From {source.value}"
        parts += [f"## {title}", _table(("metric", "kind", "unit", "labels", "what it says"), rows)]
    return "\n\n".join(parts)


PAGES = {
    "commands.md": commands_page,
    "profile.md": profile_page,
    "functions.md": functions_page,
    "relations.md": relations_page,
    "metrics.md": metrics_page,
}


def main() -> None:
    """Write every page."""
    for name, page in PAGES.items():
        (DOCS / name).write_text(page() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
