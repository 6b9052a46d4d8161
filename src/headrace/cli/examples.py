"""What `new`, `demo` and `generate` take from the blueprints, and the project that needs none."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.errors import ProfileError, RefusedError

if TYPE_CHECKING:
    from headrace.declare import Pipeline, Stream
    from headrace.produce.generator import BlueprintGenerator

__all__ = [
    "generator_for",
    "generator_of",
    "people_of",
    "require_stream",
    "write_blueprint",
    "write_minimal",
]

# Blueprints are looked up by name when somebody asks for one: they are examples that stand on everything
# else, so nothing in the package may be built on them.
_BLUEPRINTS = "headrace.blueprints"
_LOOKED_AT = 5_000
"""Of some fields of a blueprint, one record in fifty has a value."""
_WORKFLOW = ".github/workflows/ci.yml"


def write_blueprint(name: str, folder: Path) -> tuple[Path, ...]:
    """Write a project of a blueprint into `folder`; see `headrace.blueprints.write_project`."""
    written: tuple[Path, ...] = import_module(_BLUEPRINTS).write_project(name, folder)
    return written


def generator_of(
    name: str, seed: int, settings: Iterable[str] = (), incident: str | None = None
) -> BlueprintGenerator:
    """Return the generator of a blueprint; see `headrace.blueprints.make_generator`."""
    make = import_module(_BLUEPRINTS).make_generator
    made: BlueprintGenerator = make(name, seed=seed, settings=settings, incident=incident)
    return made


def people_of(name: str) -> Callable[[str, int, int], dict[str, Any]]:
    """Return what makes the people of a blueprint: takes seed, page and how many (`web.users`)."""
    make: Callable[[str, int, int], dict[str, Any]] = import_module(
        f"{_BLUEPRINTS}.{name}.people"
    ).page_of_people
    return make


def generator_for(pipeline: Pipeline) -> BlueprintGenerator | None:
    """Return the generator of the blueprint that the pipeline is; None: it is none, or has other streams."""
    if pipeline.name not in import_module(_BLUEPRINTS).BLUEPRINTS:
        return None
    generator = generator_of(pipeline.name, 0)
    return generator if generator.stream in [stream.name for stream in pipeline.streams] else None


def require_stream(pipeline: Pipeline, blueprint: str, *, forced: bool) -> None:
    """Raise ProfileError where what a blueprint's generator makes is not for a stream of the pipeline.

    That is where it has no such stream; and, unless it is `forced`, where the pipeline is another blueprint,
    or a column that must be there is in none of the first records.
    """
    generator = generator_of(blueprint, 0)
    stream = next((each for each in pipeline.streams if each.name == generator.stream), None)
    own = pipeline.name if generator_for(pipeline) is not None else ""
    fix = f"go to a project of that blueprint: headrace new --blueprint {blueprint} shop"
    if own and own != blueprint:
        fix = f"this project is of '{own}': headrace generate {own}; or {fix}"
    if stream is None:
        known = ", ".join(f"'{each.name}'" for each in pipeline.streams) or "none"
        raise ProfileError(
            f"the generator of '{blueprint}' is for a stream '{generator.stream}', this pipeline has {known}",
            fix=fix,
        )
    if forced:
        return
    fix += "; --force appends them all the same"
    if missing := _in_none(stream, generator):
        raise ProfileError(
            f"the generator of '{blueprint}' makes no record that stream '{stream.name}' can decode: "
            f"none has {', '.join(missing)}",
            fix=fix,
        )
    if own and own != blueprint:
        raise ProfileError(
            f"the generator of '{blueprint}' makes records of another pipeline than this, which is '{own}'",
            fix=fix,
        )


def _in_none(stream: Stream, generator: BlueprintGenerator) -> list[str]:
    """Return the columns that every record of the stream must have, and none of the first ones has."""
    found: set[str] = set()
    for value in generator.batch(datetime.now(UTC), _LOOKED_AT, rate=1.0).column("value").to_pylist():
        with suppress(ValueError):  # some are spoilt on purpose
            record = json.loads(value)
            found |= {name.lower() for name in record} if isinstance(record, dict) else set()
    needed = [column.name for column in stream.schema.columns if not column.nullable]
    return [name for name in needed if name.lower() not in found]


def write_minimal(folder: Path) -> tuple[Path, ...]:
    """Write a project with one stream and one table. Raises RefusedError when `folder` cannot be written."""
    name = re.sub(r"[^a-z0-9]+", "_", folder.resolve().name.lower()).strip("_") or "pipeline"
    if not name[0].isalpha():
        name = f"p_{name}"
    workflow = import_module(_BLUEPRINTS).project_files("commerce")[_WORKFLOW].decode()
    written = []
    for path, text in {**_MINIMAL, _WORKFLOW: workflow}.items():
        target = folder / path
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("x", encoding="utf-8") as file:
                file.write(text.replace("NAME", name))
        except OSError as error:
            raise RefusedError(
                f"{target} cannot be written: {error.strerror}", fix="choose a folder that you may write to"
            ) from error
        written.append(target)
    return tuple(written)


_MINIMAL = {
    "pipeline.py": '''"""Temperatures by sensor and minute."""

import headrace as hr

pipeline = hr.Pipeline("NAME")

pipeline.stream(
    "readings",
    schema="sensor VARCHAR NOT NULL, measured_at TIMESTAMP NOT NULL, celsius DOUBLE NOT NULL",
    event_time="measured_at",
    allowed_lateness="1 minute",
    expect={"plausible": "celsius BETWEEN -90 AND 60"},
)

pipeline.table(
    "by_minute",
    """
    SELECT window_start, sensor, count(*) AS readings, avg(celsius) AS average, max(celsius) AS highest
    FROM readings
    GROUP BY window(measured_at, '1 minute'), sensor
    """,
)
''',
    "readings.ndjson": """\
{"sensor": "roof", "measured_at": "2026-01-01T12:00:05Z", "celsius": 3.5}
{"sensor": "cellar", "measured_at": "2026-01-01T12:00:20Z", "celsius": 11.0}
{"sensor": "roof", "measured_at": "2026-01-01T12:00:45Z", "celsius": 4.5}
{"sensor": "roof", "measured_at": "2026-01-01T12:01:10Z", "celsius": 999}
{"sensor": "roof", "measured_at": "2026-01-01T12:01:30Z", "celsius": 5.0}
""",
    "headrace.toml": """\
# Where the pipeline runs. Without this file everything is embedded, with these very settings.

[profiles.local]
engine = "local"
streams.readings = { log = "embedded", partitions = 1 }
""",
    "tests/test_pipeline.py": '''"""What the pipeline answers, in virtual time: no server, no waiting."""

from pathlib import Path

from headrace.operate import load_pipeline
from headrace.testing import PipelineTest

PIPELINE = load_pipeline(Path(__file__).parent.parent / "pipeline.py")


def reading(measured_at, celsius):
    return {"sensor": "roof", "measured_at": measured_at, "celsius": celsius}


def test_readings_are_averaged_by_minute():
    with PipelineTest(PIPELINE, start="2026-01-01T12:00:00") as test:
        test.send("readings", reading("2026-01-01T12:00:05", 3.5), at="2026-01-01T12:00:06")
        test.send("readings", reading("2026-01-01T12:00:45", 4.5), at="2026-01-01T12:00:46")
        test.advance("5 minutes")
        [row] = test.table("by_minute")
        assert (row["sensor"], row["readings"], row["average"]) == ("roof", 2, 4.0)


def test_an_implausible_reading_is_set_aside():
    with PipelineTest(PIPELINE, start="2026-01-01T12:00:00") as test:
        test.send("readings", reading("2026-01-01T12:00:00", 999.0))
        test.advance("5 minutes")
        assert test.outcomes("readings")["rejected"] == 1
''',
    "pytest.ini": "[pytest]\n",
    ".gitignore": ".headrace/\n__pycache__/\n.venv/\n",
    "README.md": """\
# NAME

    headrace check                                                  everything that is wrong with pipeline.py
    headrace produce readings readings.ndjson --record-time event   put records into the log
    headrace run --until-caught-up                                  read them
    headrace tables by_minute                                       the answer
    headrace dead-letters list                                      what was set aside, and why
    pytest                                                          the pipeline's tests
""",
}
