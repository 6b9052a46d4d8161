"""SELECT ... GROUP BY over a stream: its window, its keys, its aggregates, and what is computed of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

from headrace.declare import format_duration, parse_duration
from headrace.declare.words import counted
from headrace.sql import functions
from headrace.sql.aggregates import AGGREGATES, canonical_name
from headrace.sql.expressions import ALIAS, GROUP, Expressions, has_aggregate, is_aggregate
from headrace.sql.plan import Window
from headrace.sql.sources import Catalog, Source, is_event_time, output_name
from headrace.sql.syntax import (
    WINDOW_FUNCTION,
    Node,
    QueryError,
    arguments_of,
    canonical,
    case_when,
    column,
    constant,
    is_lambda,
    lambda_parameters,
    location_of,
    transformed,
    walk,
)

__all__ = ["Grouped", "Use", "read_grouped"]

WINDOWS_MAX = 10_000
"""Windows that one record may be in: each is a row that it changes."""

_BOUNDS = {"window_start": "window_start", "window_end": "window_end"}
_WITH_PARAMETER = frozenset({"quantile_cont", "quantile_disc", "approx_quantile"})


@dataclass
class Use:
    """One aggregate that a query uses: arguments are expressions of the row part, FILTER folded into them."""

    function: str
    arguments: list[Node]
    parameters: list[Node]
    distinct: bool
    node: Node
    identity: str = field(init=False)  # equal for uses that have the same value

    def __post_init__(self) -> None:
        self.identity = canonical([self.function, self.distinct, self.arguments, self.parameters])


@dataclass
class Grouped:
    """What GROUP BY comes to.

    In `items` and `having` the groups' columns are nodes of class GROUP_REF; an aggregate is one whose name
    is its identity in `uses`.
    """

    window: Window | None
    keys: list[Node]
    uses: dict[str, Use] = field(default_factory=dict)
    items: list[tuple[str, Node]] = field(default_factory=list)
    having: Node | None = None


def read_grouped(query: Node, source: Source, catalog: Catalog, errors: list[QueryError]) -> Grouped:
    """Take a grouped query apart; problems are added to `errors`."""
    return _Grouping(query, source, catalog, errors).read()


class _Grouping:
    def __init__(self, query: Node, source: Source, catalog: Catalog, errors: list[QueryError]) -> None:
        self._query = query
        self._source = source
        self._catalog = catalog
        self._errors = errors
        self._raw = {item["alias"].lower(): item for item in query["select_list"] if item.get("alias")}
        self._open: set[str] = set()  # aliases being read: one that means itself would never end
        self._group: Grouped

    def read(self) -> Grouped:
        """Read GROUP BY, then SELECT and HAVING in its light."""
        query = self._query
        if query["aggregate_handling"] != "STANDARD_HANDLING":
            raise QueryError("GROUP BY ALL", "write the keys after GROUP BY")
        if len(query["group_sets"]) > 1:
            raise QueryError("GROUPING SETS, ROLLUP or CUBE", "declare a table for each grouping",
                             location_of(query["group_expressions"]))  # fmt: skip
        window: Window | None = None
        keys: list[Node] = []
        for node in query["group_expressions"]:
            meant = self._group_item(node)
            if meant["class"] == "FUNCTION" and meant["function_name"].lower() in (
                WINDOW_FUNCTION,
                "session_window",
            ):
                if window is not None:
                    self._refuse("two windows in one query", "declare a table for each", node)
                window = self._window(meant) or window
                continue
            key = self._names().resolved({**meant, "alias": ""}, aggregates="GROUP BY")
            if canonical(key) not in {canonical(known) for known in keys}:
                keys.append(self._without_aliases(key))
        self._group = Grouped(window, keys)
        self._is_windowed = window is not None or any(
            "window" in str(node.get("function_name", "")) or "windo_" in str(node.get("function_name", ""))
            for node in query["group_expressions"]
        )
        names = self._names(bounds=self._is_windowed)
        for position, node in enumerate(query["select_list"]):
            if node["class"] == "STAR":
                self._refuse("* in a query with GROUP BY", "write the keys and the aggregates", node)
                continue
            name = output_name(node, self._errors, position)
            self._group.items.append((name, self._split(names.resolved({**node, "alias": ""}))))
        if query.get("having"):
            self._group.having = self._split(names.resolved(query["having"]))
        return self._group

    def _names(self, *, bounds: bool = False) -> Expressions:
        return Expressions(
            self._source.scope, self._catalog.functions, self._errors,
            aliases=self._raw, group_columns=_BOUNDS if bounds else None,
        )  # fmt: skip

    def _refuse(self, what: str, fix: str, node: Node) -> None:
        self._errors.append(QueryError(what, fix, location_of(node)))

    def _group_item(self, node: Node) -> Node:
        """Return the expression that an item of GROUP BY means: a position, an alias or itself."""
        if node["class"] == "CONSTANT" and node["literal"]["kind"] == "INTEGER":
            position = int(node["literal"]["text"])
            items = self._query["select_list"]
            if not 1 <= position <= len(items):
                raise QueryError(f"GROUP BY {position}: it selects {counted(len(items), 'columns')}",
                                 "write the key", location_of(node))  # fmt: skip
            meant: Node = items[position - 1]
            return meant
        if node["class"] == "COLUMN_REF" and len(node["column_names"]) == 1:
            word = node["column_names"][0].lower()
            if word in self._raw and self._source.scope.find(node["column_names"]) is None:
                item: Node = self._raw[word]
                return item
        return node

    # -- the window ----------------------------------------------------------------------------------------

    def _window(self, node: Node) -> Window | None:
        is_session = node["function_name"].lower() == "session_window"
        name, form = ("session_window", "session_window(time, '30 minutes')") if is_session else (
            "window", "window(time, '5 minutes') or window(time, '5 minutes', '1 minute')")  # fmt: skip
        arguments = arguments_of(node)
        if len(arguments) not in ((2,) if is_session else (2, 3)):
            self._refuse(f"{name}(...) with {counted(len(arguments), 'arguments')}", f"write {form}", node)
            return None
        before = len(self._errors)
        time = self._names().resolved(arguments[0], aggregates="GROUP BY")
        if len(self._errors) > before:
            return None
        if not is_event_time(time, self._source.scope):
            stream = self._source.stream
            own = stream.stream.event_time if stream else None
            self._refuse(f"{name}() is over something else than the event time of the stream",
                         f"write {name}({own or '_record_time'}, ...)", arguments[0])  # fmt: skip
            return None
        lengths = [self._length(argument, name) for argument in arguments[1:]]
        if any(length is None for length in lengths):
            return None
        size = lengths[0] or timedelta()
        if is_session:
            return Window("session", size, size)
        slide = lengths[1] if len(lengths) > 1 and lengths[1] else size
        if slide > size:
            self._refuse("the slide of the window is longer than its size: records between would be lost",
                         "write a slide of at most the size", arguments[2])  # fmt: skip
            return None
        windows = -(-size // slide)
        if windows > WINDOWS_MAX:
            least = format_duration(-(-size // WINDOWS_MAX))
            self._refuse(f"every record would be in {windows} windows: at most {WINDOWS_MAX}",
                         f"write a slide of '{least}' or longer, or a smaller size",
                         arguments[2])  # fmt: skip
            return None
        return Window("tumbling" if slide == size else "sliding", size, slide)

    def _length(self, node: Node, name: str) -> timedelta | None:
        text = node["literal"]["text"] if node["class"] == "CONSTANT" else None
        if text is None or node["literal"]["kind"] != "STRING":
            self._refuse(f"a length of {name}() that is not a text", "write for example '5 minutes'", node)
            return None
        try:
            length = parse_duration(text)
        except ValueError as error:
            self._refuse(f"{name}(): {error}", "write for example '5 minutes'", node)
            return None
        if length <= timedelta():
            self._refuse(f"{name}() of length 0", "write for example '5 minutes'", node)
            return None
        return length

    # -- what stands over the groups -----------------------------------------------------------------------

    def _split(self, node: Node, bound: frozenset[str] = frozenset()) -> Node:
        """Return the expression over keys and aggregates; `bound` are the parameters of lambdas around it."""
        keys = {canonical(key): f"k{position}" for position, key in enumerate(self._group.keys)}

        def change(part: Node) -> Node | None:
            found = keys.get(canonical(part))
            if found:
                return {**column(found), "class": GROUP}
            if part["class"] == GROUP:
                return part
            if part["class"] == ALIAS:
                return self._alias(part)
            if part["class"] == "FUNCTION" and is_aggregate(part["function_name"]):
                return self._aggregate(part)
            if part["class"] == "FUNCTION" and part["function_name"].lower() in self._catalog.functions:
                self._refuse_own(part)
                return part
            if part["class"] == "COLUMN_REF":
                return part if part["column_names"][0].lower() in bound else self._column(part, keys)
            if is_lambda(part):
                return {**part, "expr": self._split(part["expr"], bound | lambda_parameters(part))}
            return None

        split: Node = transformed(node, change)
        return split

    def _column(self, node: Node, keys: dict[str, str]) -> Node | None:
        names = node["column_names"]
        for length in range(len(names) - 1, 1, -1):  # a field of a key that is a struct
            found = keys.get(canonical({**node, "column_names": names[:length]}))
            if found:
                return {**column(found, *names[length:]), "class": GROUP}
        if len(names) < 2:
            return node  # what is wrong with it is said already
        shown = ".".join(names[1:])
        self._refuse(f"'{shown}' is neither a key nor inside an aggregate",
                     f"add it to GROUP BY, or write an aggregate such as max({shown})", node)  # fmt: skip
        return node

    def _refuse_own(self, node: Node) -> None:
        # What is computed of groups is a view of the store, which is also read where the function is not.
        name = node["function_name"]
        self._refuse(f"'{name}' is a function of this pipeline, which sees records and no groups",
                     f"write it inside an aggregate, such as max({name}(x)), after GROUP BY, or in `derive`",
                     node)  # fmt: skip

    def _alias(self, node: Node) -> Node:
        word = node["column_names"][0].lower()
        if word in self._open:
            self._refuse(f"'{node['column_names'][0]}' means itself", "rename one of the two", node)
            return node
        self._open.add(word)
        names = self._names(bounds=self._is_windowed)
        meant = self._split(names.resolved({**self._raw[word], "alias": ""}))
        self._open.discard(word)
        return meant

    def _without_aliases(self, node: Node, place: str = "GROUP BY") -> Node:
        def change(part: Node) -> Node | None:
            if part["class"] != ALIAS:
                return None
            plain = Expressions(self._source.scope, self._catalog.functions, self._errors)
            return plain.resolved(
                {**self._raw[part["column_names"][0].lower()], "alias": ""}, aggregates=place
            )

        plain: Node = transformed(node, change)
        return plain

    def _aggregate(self, node: Node) -> Node:
        name = node["function_name"].lower()
        canonical_word = canonical_name(name)
        if canonical_word not in AGGREGATES:
            self._refuse_aggregate(node)
            return node
        arguments = [self._without_aliases(argument, "an aggregate") for argument in arguments_of(node)]
        if any(has_aggregate(argument) for argument in arguments):
            self._refuse(
                "an aggregate of an aggregate", "make the inner one a table and write a view over it", node
            )
            return node
        if any(part["class"] == GROUP for part in _parts(arguments)):
            self._refuse("a bound of the window inside an aggregate", "use the event time", node)
            return node
        if node["order_bys"]["orders"]:
            self._refuse(f"{name}(... ORDER BY ...)",
                         "write quantile_cont(x, 0.5) or max_by(x, order)", node)  # fmt: skip
            return node
        parameters = arguments[1:] if canonical_word in _WITH_PARAMETER else []
        arguments = arguments[: len(arguments) - len(parameters)]
        if any(self._varies(part) for part in _parts(parameters)):
            self._refuse(f"the second argument of {name}() is not a constant", "write a number", node)
            return node
        wanted = 2 if canonical_word in ("max_by", "min_by") else 1
        if len(arguments) != wanted and not (canonical_word == "count" and not arguments):
            self._refuse(f"{name}() with {counted(len(arguments), 'arguments')}", f"it takes {wanted}", node)
            return node
        if canonical_word == "count" and arguments and not node["distinct"] and _is_value(arguments[0]):
            arguments = []
        if node.get("filter"):
            condition = self._condition(node["filter"])
            if condition is None:
                return node
            arguments = [
                case_when(condition, argument, constant("NULL_LITERAL", ""))
                for argument in arguments or [constant("INTEGER", "1")]
            ]
        use = Use(canonical_word, arguments, parameters, bool(node["distinct"]), node)
        known = self._group.uses.setdefault(use.identity, use)
        return {**column(known.identity), "class": GROUP}

    def _varies(self, part: Node) -> bool:
        """Return whether a part of an expression keeps it from being a constant."""
        is_own = part["class"] == "FUNCTION" and part["function_name"].lower() in self._catalog.functions
        return is_own or part["class"] == "COLUMN_REF"

    def _condition(self, node: Node) -> Node | None:
        """Return the condition of FILTER, over a record; None when it looks at the group."""
        for part in _parts([node]):
            if part["class"] == GROUP:
                self._refuse("a bound of the window inside FILTER", "use the event time", part)
                return None
            if part["class"] == "FUNCTION" and is_aggregate(part["function_name"]):
                self._refuse("an aggregate inside FILTER", "write it in HAVING, or a view over the table",
                             part)  # fmt: skip
                return None
        return self._without_aliases(node, "FILTER")

    def _refuse_aggregate(self, node: Node) -> None:
        name = node["function_name"]
        if name.lower() in functions.ORDERED_AGGREGATES:
            what = f"{name}() depends on the order in which records are read"
            fix = "write max_by(x, time), min_by(x, time), min(x), max(x) or mode(x)"
        else:
            what = f"{name}() is not in the short list of aggregates that are kept up to date"
            fix = f"use one of {', '.join(sorted(AGGREGATES))}, or a rows table and a view over it"
        self._refuse(what, fix, node)


def _is_value(node: Node) -> bool:
    return bool(node["class"] == "CONSTANT" and node["literal"]["kind"] != "NULL_LITERAL")


def _parts(nodes: list[Node]) -> list[Node]:
    return [part for node in nodes for part in walk(node) if "class" in part]
