"""Which tables a replica copies, and what each looks like in the target."""

from __future__ import annotations

from collections.abc import Iterable

from headrace.declare.words import did_you_mean
from headrace.errors import ProfileError
from headrace.replicate.columns import LakeOptions
from headrace.replicate.options import CommonOptions
from headrace.replicate.protocol import TableShape
from headrace.sql.plan import NamedColumn, PipelinePlan, TableClass, TablePlan
from headrace.store.changes import has_closings, is_nested

__all__ = ["shape_of", "tables_of"]

KEY = NamedColumn("_key", "VARCHAR")
REVISION = NamedColumn("_revision", "INTEGER")


def tables_of(plan: PipelinePlan, options: CommonOptions, replica: str) -> tuple[TablePlan, ...]:
    """Return the tables that a replica copies, in the pipeline's order.

    Raises ProfileError for a name that is no table, for one that the mode cannot copy, and for a place that
    cannot be.
    """
    if isinstance(options, LakeOptions):
        options.check_place(replica)
    known = {table.name: table for table in plan.tables}
    named = [name for name in options.tables if name != "*"]
    unknown = [name for name in named if name not in known]
    if unknown:
        raise ProfileError(
            f"replica '{replica}': the pipeline has no table '{unknown[0]}'{did_you_mean(unknown[0], known)}",
            fix="one of: " + ", ".join(known),
        )
    if options.mode == "append":
        changing = [name for name in named if not _can_append(known[name])]
        if changing:
            raise ProfileError(
                f"replica '{replica}': rows of '{changing[0]}' are never over, so none can be appended",
                fix='use mode = "update" for it, in a replica of its own',
            )
    wanted = known if "*" in options.tables else dict.fromkeys(named)
    found = tuple(
        table
        for name, table in known.items()
        if name in wanted and (options.mode == "update" or _can_append(table))
    )
    if options.expired == "delete":
        _refuse_lasting(found, options, replica)
    return found


def _can_append(table: TablePlan) -> bool:
    return has_closings(table) or (table.kind is TableClass.ROWS and not table.key)


def _refuse_lasting(tables: Iterable[TablePlan], options: CommonOptions, replica: str) -> None:
    """Raise ProfileError when rows that expire could not be taken out of the target."""
    if options.mode == "append":
        raise ProfileError(
            f"replica '{replica}': with mode = \"append\" rows are never taken out of the target, so "
            'expired = "delete" cannot be',
            fix='use mode = "update", or leave expired out and delete old rows in the target itself',
        )
    for table in tables:
        if table.table.keep is not None and table.kind is TableClass.ROWS and not table.key:
            raise ProfileError(
                f"replica '{replica}': rows of '{table.name}' have no key by which the target could delete "
                "those that expired",
                fix=f"leave '{table.name}' out (tables = …), or give the table a key",
            )


def shape_of(table: TablePlan, options: CommonOptions) -> TableShape:
    """Return what a table looks like in the target of a replica."""
    columns = list(_columns(table.columns, options.json_nested))
    key = table.key
    keyless = (TableClass.VIEW,) if options.row_keys else (TableClass.ROWS, TableClass.VIEW)
    if not key and table.kind not in keyless:
        columns.append(KEY)
        key = (KEY.name,)
    if options.mode == "append" and has_closings(table):
        columns.append(REVISION)
        key = (*key, REVISION.name)
    return TableShape(name=table.name, columns=tuple(columns), key=key)


def _columns(columns: Iterable[NamedColumn], json_nested: bool) -> Iterable[NamedColumn]:
    for column in columns:
        nested = json_nested and is_nested(column.type)
        yield NamedColumn(column.name, "JSON") if nested else column
