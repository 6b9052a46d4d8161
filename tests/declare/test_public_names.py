import subprocess
import sys

import pytest

import headrace
from headrace import declare, errors


def test_every_public_name_can_be_had_and_is_listed():
    for name in headrace.__all__:
        assert getattr(headrace, name) is not None
        assert name in dir(headrace)
    assert set(errors.__all__) <= set(headrace.__all__)
    assert set(headrace.__all__) - {"__version__"} <= {*errors.__all__, *declare.__all__}


def test_a_name_that_does_not_exist_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Pipelin'"):
        _ = headrace.Pipelin


def test_declaring_imports_no_engine():
    code = (
        "import sys, headrace as hr; p = hr.Pipeline('a'); p.stream('s', 'x INT'); p.table('t', 'SELECT 1');"
        "heavy = {'duckdb', 'pyarrow', 'pydantic', 'rich', 'typer', 'numpy'} & set(sys.modules);"
        "sys.exit(', '.join(heavy) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_no_declaration_can_take_the_name_of_a_system_table():
    from headrace.sql.system import SYSTEM_RELATIONS

    assert set(SYSTEM_RELATIONS) <= set(declare.SYSTEM_RELATIONS)
