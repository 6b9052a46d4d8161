import pytest

from headrace.declare import Column, ListType, MapType, ScalarType, StructType, parse_schema, parse_type
from headrace.declare.schema_text import read_schema

INSTANT = "TIMESTAMP WITH TIME ZONE"


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("int", "INTEGER"),
        ("INT4", "INTEGER"),
        ("int8", "BIGINT"),
        ("long", "BIGINT"),
        ("HUGEINT", "HUGEINT"),
        ("UINTEGER", "UINTEGER"),
        ("uint64", "UBIGINT"),
        ("real", "FLOAT"),
        ("double precision", "DOUBLE"),
        ("float8", "DOUBLE"),
        ("text", "VARCHAR"),
        ("String", "VARCHAR"),
        ("bool", "BOOLEAN"),
        ("timestamp", INSTANT),
        ("TIMESTAMPTZ", INSTANT),
        ("TIMESTAMP WITH TIME ZONE", INSTANT),
        ("TIMESTAMP WITHOUT TIME ZONE", INSTANT),
        ("TIMESTAMP_NS", INSTANT),
        ("TIMESTAMP_S", INSTANT),
        ("date", "DATE"),
        ("time", "TIME"),
        ("TIME WITHOUT TIME ZONE", "TIME"),
        ("uuid", "UUID"),
        ("bytea", "BLOB"),
        ("json", "JSON"),
        ("DECIMAL", "DECIMAL(18,3)"),
        ("numeric(12, 2)", "DECIMAL(12,2)"),
        ("DECIMAL(5)", "DECIMAL(5,0)"),
        ("VARCHAR[]", "VARCHAR[]"),
        ("int[][]", "INTEGER[][]"),
        ("MAP(VARCHAR, INT[])", "MAP(VARCHAR, INTEGER[])"),
        ('STRUCT(a INT, "b c" STRUCT(d DATE)[])[]', 'STRUCT("a" INTEGER, "b c" STRUCT("d" DATE)[])[]'),
    ],
)
def test_a_type_is_kept_under_its_canonical_name(written, canonical):
    assert parse_type(written).sql == canonical


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("VARCHR", "unknown type 'VARCHR'; did you mean 'VARCHAR'"),
        ("timestmp", "did you mean 'TIMESTAMP'"),
        ("zzz", "unknown type 'zzz'"),
        ("INTERVAL", "no fixed length"),
        ("ENUM", "write VARCHAR and an expectation"),
        ("TIME WITH TIME ZONE", "TIMETZ cannot be used"),
        ("INT[3]", "write INTEGER\\[\\]"),
        ("INT[", "expected '\\]'"),
        ("VARCHAR(20)", "expectation on its length"),
        ("INT(4)", "write INT"),
        ("DECIMAL(39,2)", "1 to 38 digits"),
        ("DECIMAL(4,5)", "1 to 38 digits"),
        ("DECIMAL(x)", "expected a number of digits"),
        ("DECIMAL(4,2", "expected '\\)'"),
        ("STRUCT", "expected '\\(' after STRUCT"),
        ("STRUCT()", "expected a field name"),
        ("STRUCT(a INT, A INT)", "field 'A' stands twice"),
        ("STRUCT(a INT NOT NULL)", "write an expectation instead"),
        ("MAP(INT[], INT)", "plain type"),
        ("MAP(VARCHAR)", "expected ','"),
        ("INT INT", "unexpected 'INT' after the type"),
        ("LIST", "write the item's type and \\[\\]"),
        ("", "the end of the text"),
        ("INT" + "[]" * 3 + "x", "unexpected 'x'"),
        ("STRUCT(a " * 40, "more than 32 types"),
    ],
)
def test_a_type_that_cannot_be_used_says_why_and_what_to_write(written, says):
    with pytest.raises(ValueError, match=says):
        parse_type(written)


def test_columns_keep_order_names_and_nullability():
    schema = parse_schema(
        """
        id VARCHAR NOT NULL,   -- who
        "order" INT NULL,
        größe DOUBLE,
        items STRUCT(sku VARCHAR, n INT)[] NOT NULL,
        tags MAP(VARCHAR, VARCHAR)
        """
    )
    text, number = ScalarType("VARCHAR"), ScalarType("INTEGER")
    assert schema.columns == (
        Column("id", text, nullable=False),
        Column("order", number),
        Column("größe", ScalarType("DOUBLE")),
        Column("items", ListType(StructType((("sku", text), ("n", number)))), nullable=False),
        Column("tags", MapType(text, text)),
    )
    assert schema.find("ORDER") == Column("order", number)
    assert schema.find("nothing") is None


def test_every_mistake_of_a_schema_is_reported_at_once_with_its_position():
    schema, mistakes = read_schema("a VARCHR,\n b INT NOT NUL,\n good DATE,\n c INT DEFAULT 3,\n d,\n 5 INT")
    assert [column.name for column in schema.columns] == ["good"]
    assert mistakes == (
        "column 'a': unknown type 'VARCHR'; did you mean 'VARCHAR'? (at line 1, character 3)",
        "column 'b': NOT without NULL; write NOT NULL (at line 2, character 8)",
        "column 'c': DEFAULT cannot be used in a schema; a missing field is NULL; "
        "write derive={'NAME': \"coalesce(c, ...)\"} (at line 4, character 8)",
        "column 'd': expected a type, found ',' (at line 5, character 3)",
        "expected a column name, found '5' (at line 6, character 2)",
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "the schema is empty"),
        ("  -- only a comment", "the schema is empty"),
        ("a INT,", "a comma with no column after it"),
        ("a INT b INT", "a comma is missing before 'b'"),
        ("a INT PRIMARY KEY", 'write unique="a"'),
        ("a INT UNIQUE", "argument of the stream"),
        ("a INT CHECK (a > 0)", "write expect="),
        ("a INT !", "unexpected '!'"),
        ('"a INT', "a quoted name that does not end"),
        ('"" INT', "cannot be a name"),
        ('"a""b" INT', "cannot be a name"),
        (", ".join(f"c{n} INT" for n in range(2001)), "a schema may have 2000"),
    ],
)
def test_a_schema_that_cannot_be_used_says_why(text, says):
    with pytest.raises(ValueError, match=says):
        parse_schema(text)
