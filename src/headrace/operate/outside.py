"""Tables whose rows Spark's executors write into a replica themselves: which, where, and whether they can."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.declare.words import did_you_mean
from headrace.errors import ProfileError, RefusedError
from headrace.operate.project import Home

if TYPE_CHECKING:
    from headrace.engine.spark.outside import Stage
    from headrace.replicate.delta import DeltaReplica
    from headrace.replicate.options import CommonOptions
    from headrace.replicate.parquet import ParquetReplica
    from headrace.sql.plan import PipelinePlan, TablePlan
    from headrace.store import Store

__all__ = [
    "check_outside",
    "check_places",
    "is_moved",
    "outside_of_profile",
    "outside_places",
    "refuse_again",
    "stages_of",
    "wrong_outside",
]


def check_outside(home: Home, plan: PipelinePlan) -> None:
    """Raise ProfileError when executors cannot write the tables that the profile says."""
    for error in wrong_outside(home, plan):
        raise error


def outside_places(home: Home, plan: PipelinePlan) -> dict[str, str]:
    """Return by table in words where its rows are. Raises ProfileError, see `check_outside`."""
    check_outside(home, plan)
    found = {}
    for name in outside_of_profile(home):
        replica, options = _taker(home, plan, name)
        found[name] = f"{_words(replica, options)}{Path(options.path).absolute()}"
    return found


def _words(replica: str, options: CommonOptions) -> str:
    return f"replica '{replica}', {options.kind}, "


def is_moved(home: Home, plan: PipelinePlan, table: str, before: str, store_id: str) -> bool:
    """Return whether the files of a table that were at `before` (see `outside_places`) were moved.

    That is: the replica keeps its name and kind, and the folder where files of the store wait is there now.
    """
    from headrace.replicate.staged import staged_at

    replica, options = _taker(home, plan, table)
    here = staged_at(Path(options.path).absolute(), table, store_id)
    return before.startswith(_words(replica, options)) and here.is_dir()


def check_places(home: Home, plan: PipelinePlan, known: Mapping[str, str]) -> None:
    """Raise RefusedError for a table of which a store with these facts has files in another place."""
    from headrace.store.outside import outside_of, two_places

    before = outside_of(known)
    for name, place in outside_places(home, plan).items():
        was = before.get(name, place)
        if was != place and not is_moved(home, plan, name, was, known["store_id"]):
            raise two_places(name, was, place)


def stages_of(home: Home, plan: PipelinePlan, store: Store) -> dict[str, Stage]:
    """Return where executors write, by table, for a store that was opened for `outside_places`."""
    if not store.outside:
        return {}
    from headrace.replicate.staged import RowsStage

    store_id, tables = store.status().store_id, {table.name: table for table in plan.tables}
    found: dict[str, Stage] = {}
    for name in store.outside:
        _, options = _taker(home, plan, name)
        found[name] = RowsStage.of(tables[name], options, Path(options.path), store_id)
    return found


def wrong_outside(home: Home, plan: PipelinePlan) -> Iterator[ProfileError]:
    """Give every reason for which executors cannot write the tables that the profile says."""
    if not outside_of_profile(home):
        return
    from headrace.engine.spark.gaps import gap_error

    tables = {table.name: table for table in plan.tables}
    for name in outside_of_profile(home):
        table = tables.get(name)
        if table is None:
            what = f"spark.rows_by_executors: the pipeline has no table '{name}'{did_you_mean(name, tables)}"
            yield ProfileError(what, fix="it has: " + (", ".join(tables) or "none"))
            continue
        if gap := _gap_of(table):
            yield gap_error(f"table '{name}'", gap)
        for reader in _readers(plan, name):
            yield gap_error(f"table '{name}', {reader}", "rows_under_a_view")
        takers = [*_takers(home, plan, name)]
        if not takers:
            yield ProfileError(
                f"spark.rows_by_executors: no replica takes table '{name}', so its rows would be nowhere",
                fix=f'add replicas.lake = {{ kind = "delta", path = "…", tables = ["{name}"] }}',
            )
        for number, (replica, options) in enumerate(takers):
            if number or not _is_folder(options):
                yield gap_error(f"replica '{replica}', table '{name}'", "rows_elsewhere_too")


def _gap_of(table: TablePlan) -> str:
    """Return the gap that a table has; "" for none."""
    from headrace.sql.plan import TableClass

    if table.kind is not TableClass.ROWS or table.table.key:
        return "groups_by_executors"
    return "" if table.table.keep is None else "rows_that_expire"


def _readers(plan: PipelinePlan, table: str) -> Iterator[str]:
    """Give the views, panels and alerts that ask the store for a table's rows."""
    from headrace.sql.session import Session
    from headrace.sql.views import relations_read

    queries = {f"view '{each.name}'": each.view_sql for each in plan.tables if each.view_sql}
    queries |= {f"panel '{each.title}'": each.query for each in plan.panels}
    queries |= {f"alert '{each.name}'": each.query for each in plan.alerts}
    with closing(Session()) as session:
        for reader, query in queries.items():
            read = relations_read(session.syntax.read(query))
            if table.lower() in {node["table_name"].lower() for node in read}:
                yield reader


def outside_of_profile(home: Home) -> tuple[str, ...]:
    """Return the tables that the profile says; another engine writes all rows into the store."""
    profile = home.profile
    return tuple(dict.fromkeys(profile.spark.rows_by_executors)) if profile.engine == "spark" else ()


def _takers(home: Home, plan: PipelinePlan, table: str) -> Iterator[tuple[str, CommonOptions]]:
    from headrace.replicate.shapes import tables_of

    for name, options in home.profile.replicas.items():
        if any(each.name == table for each in tables_of(plan, options, name)):
            yield name, options


def _taker(home: Home, plan: PipelinePlan, table: str) -> tuple[str, DeltaReplica | ParquetReplica]:
    """Return the one replica that takes the files of a table, which was checked."""
    ((name, options),) = _takers(home, plan, table)
    return name, options  # type: ignore[return-value]


def _is_folder(options: CommonOptions) -> bool:
    """Whether a replica keeps tables as files in a folder that executors can reach as one."""
    return options.kind in ("delta", "parquet") and bool(getattr(options, "path", ""))


def refuse_again(home: Home, replica: str) -> None:
    """Raise RefusedError when a replica has a table that cannot be copied again."""
    options = home.profile.replicas[replica]
    for name in outside_of_profile(home):
        if {name, "*"} & set(options.tables):
            raise RefusedError(
                f"replica '{replica}' cannot be copied again: the rows of its table '{name}' were written by "
                "executors, and are nowhere else",
                fix="give the table another name: that one is computed from the log; other tables can be "
                "copied again in a replica of their own",
            )
