"""Writes plain values as YAML 1.2: mappings and lists in blocks, texts in quotes where they need them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

__all__ = ["to_yaml"]

_PLAIN = re.compile(r"[A-Za-z_./][A-Za-z0-9_./:@-]*[A-Za-z0-9_./@-]|[A-Za-z_./]")
_WORDS = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})


def to_yaml(value: Mapping[str, Any]) -> str:
    """Return a document. Texts that another reader could take for something else are quoted as in JSON."""
    return "".join(f"{line.rstrip()}\n" for line in _lines(value))


def _lines(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for name, held in value.items():
            yield from _entry(f"{_scalar(name)}:", held)
    else:
        for held in value:
            if isinstance(held, Mapping) and held:
                first, *rest = _lines(held)
                yield f"- {first}"
                yield from (f"  {line}" for line in rest)
            else:
                yield from _entry("-", held)


def _entry(lead: str, value: Any) -> Iterator[str]:
    if isinstance(value, str) and "\n" in value:
        yield f"{lead} |{'' if value.endswith(chr(10)) else '-'}"
        yield from (f"  {line}".rstrip() for line in value.rstrip("\n").split("\n"))
    elif isinstance(value, Mapping | list | tuple) and value:
        if isinstance(value, Sequence) and all(isinstance(held, str | int) for held in value):
            yield f"{lead} [{', '.join(json.dumps(held, ensure_ascii=False) for held in value)}]"
            return
        yield lead
        yield from (f"  {line}" for line in _lines(value))
    else:
        yield f"{lead} {_scalar(value)}"


def _scalar(value: Any) -> str:
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        return value
    return json.dumps(value, ensure_ascii=False)
