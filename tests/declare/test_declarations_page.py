"""docs/declarations.md names everything that can be declared."""

import inspect
from pathlib import Path

import pytest

import headrace as hr
from headrace.declare import PANEL_KINDS, SEVERITIES, parse_type
from headrace.declare.schema_text import _NAMES_OF_TYPE, _REFUSED_TYPES

PAGE = (Path(__file__).parents[2] / "docs" / "declarations.md").read_text()


@pytest.mark.parametrize("method", ["stream", "table", "panel", "alert", "function", "reference"])
def test_every_argument_is_documented(method):
    parameters = inspect.signature(getattr(hr.Pipeline, method)).parameters.values()
    words = [
        p.name for p in parameters if p.kind != p.VAR_KEYWORD and p.name not in ("self", "name", "title")
    ]
    assert [word for word in words if f"`{word}`" not in PAGE and f"{word}, ..." not in PAGE] == []


@pytest.mark.parametrize("word", [*PANEL_KINDS, *SEVERITIES])
def test_every_choice_is_documented(word):
    assert f"`{word}`" in PAGE


def test_every_type_is_documented():
    names = {name.removesuffix(" WITH TIME ZONE") for name in _NAMES_OF_TYPE}
    assert [name for name in sorted(names) if f"`{name}`" not in PAGE] == []


@pytest.mark.parametrize("name", sorted(_REFUSED_TYPES))
def test_a_refused_type_says_what_to_write(name):
    with pytest.raises(ValueError, match=r"cannot be used; .*(write|form)"):
        parse_type(name)


def test_a_default_stands_on_the_page_as_it_is():
    for method in ("stream", "table", "panel", "alert"):
        for parameter in inspect.signature(getattr(hr.Pipeline, method)).parameters.values():
            if isinstance(parameter.default, str) and parameter.default:
                assert f'| `{parameter.name}` | `"{parameter.default}"` |' in PAGE
