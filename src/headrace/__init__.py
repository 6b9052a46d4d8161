"""Real-time data pipelines, declared once in Python and SQL.

    import headrace as hr

    pipeline = hr.Pipeline("shop")
    pipeline.stream("events", schema="id VARCHAR NOT NULL, at TIMESTAMP NOT NULL", event_time="at")
    pipeline.table("counts", "SELECT window_start, count(*) AS n FROM events GROUP BY window(at, '1 minute')")

Public names are imported when they are first used, so that `import headrace` costs next to nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as in typing, which alone takes longer to import than all of this
if TYPE_CHECKING:
    from headrace.declare import (
        Alert,
        Expect,
        Function,
        Panel,
        Pipeline,
        Reference,
        Schema,
        Stream,
        Table,
        format_duration,
        parse_duration,
        parse_schema,
    )
    from headrace.errors import (
        DeclarationError,
        HeadraceError,
        IntegrityError,
        InternalError,
        Problem,
        ProfileError,
        RecordError,
        RefusedError,
        TransientError,
    )

    __version__: str

__all__ = [
    "Alert",
    "DeclarationError",
    "Expect",
    "Function",
    "HeadraceError",
    "IntegrityError",
    "InternalError",
    "Panel",
    "Pipeline",
    "Problem",
    "ProfileError",
    "RecordError",
    "Reference",
    "RefusedError",
    "Schema",
    "Stream",
    "Table",
    "TransientError",
    "__version__",
    "format_duration",
    "parse_duration",
    "parse_schema",
]


def __getattr__(name: str) -> object:
    if name == "__version__":
        # pyproject.toml is the one place where the version stands; reading it back takes 20 ms.
        from importlib.metadata import version

        value: object = version("headrace")
    elif name in __all__:
        from importlib import import_module

        errors = import_module("headrace.errors")
        value = getattr(errors if name in errors.__all__ else import_module("headrace.declare"), name)
    else:
        raise AttributeError(f"module 'headrace' has no attribute '{name}'")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
