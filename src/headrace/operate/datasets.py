"""Where streams and tables lie, under the names that lineage servers know such places by.

The names follow https://openlineage.io/docs/spec/naming; where it says nothing of a system, its address is
the namespace, in the same manner. None of them holds a user or a password.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from headrace.operate.bindings import KafkaBinding

if TYPE_CHECKING:
    from headrace.observe.lineage import Data, Step
    from headrace.operate.project import Project
    from headrace.sql.plan import NamedColumn, PipelinePlan, TablePlan

__all__ = ["steps_of"]


def steps_of(project: Project, plan: PipelinePlan) -> tuple[Step, ...]:
    """Return the tables of a pipeline, with what each reads and where its rows go."""
    from headrace.observe.lineage import Data, Step
    from headrace.sql.system import system_relations

    def stream(name: str) -> Data:
        binding = project.profile.stream(name)
        place = ("file", f"{project.log_path}/{name}")
        if isinstance(binding, KafkaBinding):
            place = (f"kafka://{_first(binding.brokers, 9092)}", binding.topic or name)
        return Data(*place, _columns(plan.streams[name].columns), counted=name)

    def stored(table: TablePlan) -> Data:
        return Data("file", f"{project.store_path}/{table.name}", _columns(table.columns), counted=table.name)

    def read(name: str) -> Data:
        if name in plan.streams:
            return stream(name)
        word = name.lower()  # a view names what it reads as it likes
        if word in tables:
            return stored(tables[word])
        return Data("file", f"{project.store_path}/{kept[word][0]}", _columns(kept[word][1]))

    tables = {table.name.lower(): table for table in plan.tables}
    relations = system_relations(plan.streams.values())
    kept = {name.lower(): (name, columns) for name, columns in relations.items()}
    steps = []
    for table in plan.tables:
        reads = [read(name) for name in table.sources]
        copies = [Data(*place, _columns(table.columns)) for place in _copies(project, plan, table)]
        steps.append(Step(table.name, table.table.query, tuple(reads), (stored(table), *copies)))
    return tuple(steps)


def _columns(columns: tuple[NamedColumn, ...]) -> tuple[tuple[str, str], ...]:
    return tuple((column.name, column.type) for column in columns)


def _copies(project: Project, plan: PipelinePlan, table: TablePlan) -> list[tuple[str, str]]:
    from headrace.replicate.shapes import shape_of, tables_of

    found = []
    for replica, options in project.profile.replicas.items():
        if table in tables_of(plan, options, replica):
            place = _place(options, shape_of(table, options), replica)
            if place is not None:
                found.append(place)
    return found


def _place(options: Any, shape: Any, replica: str) -> tuple[str, str] | None:
    """Return namespace and name of a table's copy; None for a target that keeps no tables."""
    kind = options.kind
    if kind == "postgresql":
        return _postgresql(options, shape.name)
    if kind in ("elasticsearch", "opensearch"):
        from headrace.replicate.elasticsearch.mapping import index_names

        index = index_names(options, (shape,), replica)[shape.name]
        return f"{kind}://{_first(options.url, 9200)}", index
    if kind == "cassandra":
        return f"cassandra://{_first(options.hosts, 9042)}", f"{options.keyspace}.{shape.name}"
    if kind == "kafka":
        return f"kafka://{_first(options.brokers, 9092)}", options.prefix + shape.name
    if kind in ("delta", "parquet") and options.uri:
        at = urlsplit(options.uri)
        return f"{at.scheme}://{at.netloc}", f"{at.path.strip('/')}/{shape.name}".lstrip("/")
    if kind in ("delta", "parquet", "files"):
        return "file", str(Path(options.path) / shape.name)
    return None


def _postgresql(options: Any, table: str) -> tuple[str, str]:
    from psycopg.conninfo import conninfo_to_dict

    given = conninfo_to_dict(options.dsn.reveal())
    host = str(given.get("host") or "localhost").split(",")[0]
    port = str(given.get("port") or "5432").split(",")[0]
    database = given.get("dbname") or given.get("user") or "postgres"
    return f"postgres://{host}:{port}", f"{database}.{options.schema}.{table}"


def _first(addresses: str, port: int) -> str:
    """Return HOST:PORT of the first of several addresses."""
    bare = addresses.partition(",")[0].strip().split("://")[-1].split("/")[0].rpartition("@")[2]
    return bare if bare.rpartition(":")[2].isdecimal() else f"{bare}:{port}"
