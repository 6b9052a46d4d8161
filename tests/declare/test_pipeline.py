import pickle
from datetime import timedelta
from decimal import Decimal
from inspect import currentframe

import pytest

import headrace as hr
from headrace.declare import PANEL_KINDS

SCHEMA = "id VARCHAR NOT NULL, at TIMESTAMP NOT NULL, day DATE, amount DECIMAL(12,2)"
celsius_pipeline = hr.Pipeline("weather")


@celsius_pipeline.function(arguments=["DOUBLE"], returns="DOUBLE")
def celsius(fahrenheit):
    return fahrenheit


def full(name="shop", **changes):
    pipeline = hr.Pipeline(name)
    arguments = {
        "schema": SCHEMA,
        "event_time": "at",
        "unique": ["id"],
        "key": "id",
        "derive": {"big": "amount > 100"},
        "expect": {"positive": "amount > 0", "small": hr.Expect("amount < 1000", on_violation="warn")},
    }
    pipeline.stream("events", **{**arguments, **changes})
    pipeline.table("latest", "SELECT id, amount FROM events", key="id", keep="30 days")
    pipeline.panel("Latest", "SELECT * FROM latest", kind="bar", unit="€")
    pipeline.alert(
        "none", "SELECT count(*) = 0 FROM latest", hold="2 minutes", severity="critical", summary="!"
    )
    pipeline.function("to_celsius", celsius, arguments=["DOUBLE", "int"], returns="float8")
    pipeline.reference("products", "products.csv", key=["sku"], schema="sku VARCHAR NOT NULL, name VARCHAR")
    return pipeline


def problems_of(**changes):
    return [str(problem).partition(": stream 'events': ")[2] for problem in full(**changes).problems]


def test_a_declaration_is_kept_as_it_was_meant():
    pipeline = full()
    assert pipeline.problems == ()
    stream, table, alert = pipeline.streams[0], pipeline.tables[0], pipeline.alerts[0]
    assert (stream.event_time, stream.unique, stream.key) == ("at", ("id",), "id")
    assert (stream.allowed_lateness, stream.future_tolerance) == (timedelta(minutes=1),) * 2
    assert stream.derive == (("big", "amount > 100"),)
    assert stream.expect[0] == ("positive", hr.Expect("amount > 0", on_violation="reject"))
    assert (table.key, table.keep) == (("id",), timedelta(days=30))
    assert (alert.hold, alert.severity) == (timedelta(minutes=2), "critical")
    assert pipeline.functions[0].arguments == ("DOUBLE", "INTEGER")
    assert pipeline.references[0].key == ("sku",)


def test_equal_declarations_make_equal_pipelines_wherever_they_were_written():
    first, second = full(), full()
    assert first == second
    assert first.streams[0] == second.streams[0]
    assert first != full(unique="id", key=None)
    assert first != full(name="other")
    assert first != "shop"


def test_a_pipeline_survives_pickling_and_its_functions_go_by_name():
    pipeline = full()
    again = pickle.loads(pickle.dumps(pipeline))
    assert again == pipeline
    assert again.functions[0].call is celsius
    assert again.streams[0].place == pipeline.streams[0].place


def test_a_decorated_function_is_declared_and_stays_what_it_was():
    assert celsius(3) == 3
    assert celsius_pipeline.functions[0].name == "celsius"
    assert celsius_pipeline.functions[0].call is celsius
    assert celsius_pipeline.problems == ()


def test_a_pipeline_prints_what_it_holds():
    assert repr(full()) == "<Pipeline 'shop' streams=1 tables=1 panels=1 alerts=1 functions=1 references=1>"
    assert repr(hr.Pipeline("empty")) == "<Pipeline 'empty'>"
    assert "problems=1" in repr(full(event_time="att"))


def test_a_problem_stands_at_the_line_of_the_call():
    pipeline = hr.Pipeline("shop")
    line = currentframe().f_lineno + 1
    pipeline.stream(
        "events",
        schema=SCHEMA,
        event_time="att",
    )
    (problem,) = pipeline.problems
    assert problem.file.endswith("test_pipeline.py")
    assert problem.line == line
    assert str(problem).endswith(
        "stream 'events': event_time: no column 'att' in the schema - did you mean 'at'?"
    )


def test_all_problems_are_collected_and_nothing_is_raised():
    pipeline = hr.Pipeline("9 lives")
    pipeline.stream("order", "id VARCHR", evnt_time="at")
    pipeline.stream(5, schema=SCHEMA)
    pipeline.table("late_orders")
    pipeline.panel("", "SELECT 1", kind="lines", unit=3)
    pipeline.alert("a b", 7, hold="soon", severity="warn", summary=None)
    pipeline.function("f", lambda x: x, arguments=["DOUBL"])
    pipeline.reference("r", "r.xlsx")
    subjects = [problem.subject for problem in pipeline.problems]
    assert subjects == [
        "pipeline '9 lives'",
        *["stream 'order'"] * 3,
        "stream '5'",
        *["table 'late_orders'"] * 2,
        *["panel ''"] * 3,
        *["alert 'a b'"] * 5,
        *["function 'f'"] * 3,
        *["reference 'r'"] * 2,
    ]
    assert len(pipeline.streams) == 2


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"event_time": "day"}, "event_time: column 'day' is a DATE, and a day is not an instant"),
        ({"event_time": "amount"}, "is DECIMAL(12,2), not TIMESTAMP - declare 'amount TIMESTAMP NOT NULL'"),
        ({"event_time": 5}, "event_time has to be a column or a list of columns, not int"),
        ({"label": "idd"}, "label: no column 'idd' in the schema - did you mean 'id'?"),
        (
            {"label": "amount"},
            "label: 'amount' is DECIMAL(12,2) - name a column of a few texts or whole numbers",
        ),
        ({"unique": "idd"}, "unique: no column 'idd' in the schema - did you mean 'id'?"),
        ({"unique": ["id", "ID"]}, "unique: column 'ID' stands twice"),
        ({"unique": [3]}, "unique: 3 is not a column's name"),
        ({"unique": "big"}, "unique: 'big' is a derived column - name a column of the schema"),
        ({"key": "nothing_like"}, "key: no column 'nothing_like' in the schema - it has id, at, day, amount"),
        ({"allowed_lateness": 5}, "allowed_lateness: it has to be text such as '5 minutes', not 5"),
        ({"allowed_lateness": "1 month"}, "no fixed length; write days"),
        ({"future_tolerance": timedelta(-1)}, "is negative"),
        ({"allowed_lateness": "99999999999 days"}, "allowed_lateness: "),
        ({"record_time": "logs"}, "record_time 'logs' is not one of log, header - did you mean 'log'?"),
        ({"derive": {"ID": "1"}}, "derive: 'ID' is a column of the schema already"),
        ({"derive": {"a": "1", "A": "2"}}, "derive: 'A' stands twice"),
        ({"derive": {"a b": "1"}}, "derive: the name 'a b' is not an identifier - write for example 'a_b'"),
        ({"derive": {"_a": "1"}}, "derive: the name '_a' begins with _"),
        ({"derive": {"a": ""}}, "derive: 'a' has to be a SQL expression"),
        ({"derive": ["a"]}, "derive has to be a dict of names and SQL, not list"),
        ({"expect": {"a": 5}}, "expect: 'a' has to be a SQL condition or hr.Expect, not int"),
        ({"expect": {"a": " "}}, "expect: the condition of 'a' is empty"),
        ({"expect": {"a": "true", "A": "true"}}, "expect: 'A' stands twice"),
        ({"expect": {"": "true"}}, "expect: the name is empty"),
        ({"expect": {"select": "true"}}, "expect: the name 'select' is a word of SQL"),
        ({"expect": {"a" * 70: "true"}}, "expect: the name is 70 characters long - use at most 63"),
        ({"expect": {"a": hr.Expect("true", on_violation="wan")}}, "did you mean 'warn'?"),
        ({"schema": "id VARCHAR, ID INT"}, "schema: column 'ID' stands twice"),
        ({"schema": "id VARCHAR, _x INT"}, "schema: column '_x' begins with _"),
        ({"schema": f"id VARCHAR, {'x' * 70} INT"}, "is too long"),
        ({"evnt_time": "at"}, "unknown argument 'evnt_time' - did you mean 'event_time'?"),
        ({"zzz": "at"}, "unknown argument 'zzz' - it takes name, schema, event_time"),
    ],
)
def test_a_mistake_in_a_stream_says_what_and_what_to_write(changes, says):
    found = problems_of(**changes)
    assert any(says in text for text in found), found


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("Events", "there is already a stream of this name"),
        ("PRODUCTS", "there is already a reference of this name"),
        ("latest", "there is already a table of this name"),
        ("dead_letters", "the name of a system table - write for example 'my_dead_letters'"),
        ("Epochs", "the name of a system table"),
        ("late_events", "names that begin with 'late_' belong to system tables"),
        ("page__views", "two _ in a row tell the store's own relations apart - write 'page_views'"),
        ("my table", "write for example 'my_table'"),
        ("2nd", "write for example 'n2nd'"),
        ("grösse", "write for example 'gr_sse'"),
        (None, "the name has to be a string, not NoneType"),
    ],
)
def test_a_table_needs_a_name_of_its_own(name, says):
    pipeline = full()
    pipeline.table(name, "SELECT 1")
    assert says in str(pipeline.problems[-1])


def test_titles_alerts_and_functions_stand_once_each():
    pipeline = full()
    pipeline.panel("Latest", "SELECT 1")
    pipeline.alert("NONE", "SELECT true")
    pipeline.function("TO_CELSIUS", celsius, arguments=["DOUBLE"], returns="DOUBLE")
    assert ["already" in str(problem) for problem in pipeline.problems] == [True] * 3


def test_every_kind_of_panel_is_known_and_others_are_refused():
    pipeline = hr.Pipeline("shop")
    for kind in PANEL_KINDS:
        pipeline.panel(kind, "SELECT 1", kind=kind)
    assert pipeline.problems == ()
    pipeline.panel("x", "SELECT 1", kind="guage")
    assert str(pipeline.problems[0]).endswith("did you mean 'gauge'?")


class Callable:
    def __call__(self, x):
        return x


@pytest.mark.parametrize("function", [lambda x: x, Callable(), hr.Pipeline.table])
def test_a_function_that_no_other_process_can_find_is_refused(function):
    pipeline = hr.Pipeline("shop")
    pipeline.function("f", function, arguments=["DOUBLE"], returns="DOUBLE")
    assert "cannot be sent to another process by its name" in str(pipeline.problems[0])


def test_a_function_without_types_or_code_is_refused():
    pipeline = hr.Pipeline("shop")
    pipeline.function(celsius)
    pipeline.function("g", 5, arguments=[], returns="DOUBL")
    texts = [str(problem) for problem in pipeline.problems]
    assert 'arguments is missing - write for example arguments=["DOUBLE"]' in texts[0]
    assert 'returns is missing - write for example returns="DOUBLE"' in texts[1]
    assert "a function is needed, not int" in texts[2]
    assert "did you mean 'DOUBLE'" in texts[4]


def test_a_reference_needs_a_file_and_a_key():
    pipeline = hr.Pipeline("shop")
    pipeline.reference("a", key="x")
    pipeline.reference("b", "b.csv")
    pipeline.reference("c", "c.parquet", key="y", schema="x INT")
    texts = [str(problem) for problem in pipeline.problems]
    assert "the path is missing" in texts[0]
    assert "key is missing" in texts[1]
    assert "key: no column 'y' in the schema - it has x" in texts[2]


def test_keep_is_a_positive_length():
    pipeline = hr.Pipeline("shop")
    pipeline.table("a", "SELECT 1", keep="0 s")
    assert "keep: '0 s' is too short" in str(pipeline.problems[0])


def test_a_value_of_a_query_may_be_nothing_but_text():
    pipeline = hr.Pipeline("shop")
    pipeline.table("a", Decimal(1), key={"a": 1})
    texts = [str(problem) for problem in pipeline.problems]
    assert "the query has to be a string, not Decimal" in texts[0]
    assert "key has to be a column or a list of columns, not dict" in texts[1]
