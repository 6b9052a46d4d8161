"""The cases: both sides in turns over the same topic, and the bars that their ratio is held against."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from bench.cases import Bar, Line
from bench.kafka.cases import speed_line, stages
from bench.kafka.oracle import COMMERCE, FILTER, INTAKE, TYPE, USER
from bench.kafka.peers import CONTESTANTS, Contestant, PeerMissing
from bench.kafka.running import Failed, Ground, run

MICRO, ROWS = "micro", "rows"
MICRO_ROWS = 1_000
_FIRST_BATCHES = 5
"""They are longer than the others on both sides, and are left out."""

HEADRACE = Contestant("headrace_on_spark", "Headrace on Spark")
BY_HAND = replace(CONTESTANTS["spark"], title="PySpark by hand")
BY_EXECUTORS = Contestant("headrace_rows_by_executors", "Headrace on Spark, rows by executors")
BY_DRIVER = Contestant("headrace_rows_by_driver", "Headrace on Spark, rows by way of the driver")

Side = tuple[Contestant, str]
"""Who, and what is computed."""
Runs = dict[tuple[str, str], list[dict[str, Any]]]
"""Results by the name of who, and what was computed."""


@dataclass(frozen=True)
class Scale:
    """How much is measured.

    warm           events of the warm-up
    batch_rows     the most of one micro-batch, but in the case of micro-batches
    micro_batches  so many of 1,000 records
    run_s_max      how long one run of one side may take, with its warm-up
    """

    events: int
    warm: int
    batch_rows: int
    micro_batches: int
    repetitions: int
    run_s_max: float


FULL = Scale(2_000_000, 200_000, 400_000, 60, 3, 1800.0)
QUICK = Scale(200_000, 20_000, 100_000, 25, 1, 600.0)


@dataclass(frozen=True)
class Race:
    """What is held against what: `ours` is the same side in all races of a case."""

    title: str
    ours: Side
    theirs: Side
    bar: Bar | None
    between: str = "Headrace to by hand"


def _by_hand(title: str, ours: str, theirs: str, bar: Bar | None) -> Race:
    return Race(title, (HEADRACE, ours), (BY_HAND, theirs), bar)


RACES: dict[str, tuple[Race, ...]] = {
    TYPE: (_by_hand("one table by event type", TYPE, TYPE, Bar(least=1.0)),),
    USER: (_by_hand("one table by user", USER, USER, Bar(least=1.0)),),
    COMMERCE: (_by_hand("whole commerce", COMMERCE, COMMERCE, Bar(least=1.0)),),
    INTAKE: (
        _by_hand("commerce's intake to a filter that keeps copies", INTAKE, FILTER, Bar(least=1.2)),
        _by_hand("commerce's intake to a filter without copies", INTAKE, INTAKE, None),
    ),
    MICRO: (_by_hand("micro-batches of 1,000 records", TYPE, TYPE, Bar(most=1.15)),),
    ROWS: (
        Race(
            "rows into a Delta folder",
            (BY_EXECUTORS, INTAKE),
            (BY_DRIVER, INTAKE),
            None,
            "by executors to by way of the driver",
        ),
    ),
}


def measured(ground: Ground, name: str, repetitions: int, failures: dict[str, str]) -> Iterator[Line]:
    """Run both sides of a case in turns; tell their figures, the ratio, and where Headrace's time goes."""
    races = RACES[name]
    sides = [races[0].ours, *(race.theirs for race in races)]
    runs: Runs = {}
    for repetition in range(repetitions):
        for side in sides:
            if f"{name}: {told(side)}" not in failures:
                _run_once(ground, name, side, repetition, runs, failures)
    for side in sides:
        if found := runs.get((side[0].name, side[1])):
            yield speed_line(name, replace(side[0], title=told(side)), found)
    ours = _of(runs, races[0].ours)
    for race in races:
        theirs = _of(runs, race.theirs)
        if ours and theirs:
            yield _ratio(name, race, ours, theirs)
            if name == ROWS:
                yield _driver_ratio(race, ours, theirs)
    if ours:
        peak = max(result["peak_rss_mb"] for result in ours)
        yield Line(name, "Headrace's peak memory, Java and Python, MB", peak)
        yield Line(name, "  where its time goes, as its driver sees it", 0.0, None, stages(ours[-1]))


def _of(runs: Runs, side: Side) -> list[dict[str, Any]]:
    return runs.get((side[0].name, side[1]), [])


def told(side: Side) -> str:
    """Return how a side is called."""
    contestant, case = side
    return f"{contestant.title}, {'copies kept' if case == FILTER else case}"


def _run_once(
    ground: Ground, name: str, side: Side, repetition: int, runs: Runs, failures: dict[str, str]
) -> None:
    contestant, case = side
    key = f"{name}: {told(side)}"
    try:
        result = run(ground, contestant, case)
    except (Failed, PeerMissing) as failure:
        failures[key] = str(failure)
        print(f"   {key}: FAILED {failure}", flush=True)
        return
    result |= {"measured": name, "repetition": repetition}
    if not _is_equal(side, result["differences"]):
        failures[key] = f"differs: {result['differences']}"
    speed = f"{result['events_per_s']:,.0f} events/s, load {result['load_after']:.1f}"
    print(f"   {name} {repetition + 1}: {told(side)}: {speed}", flush=True)
    runs.setdefault((contestant.name, case), []).append(result)


def _is_equal(side: Side, differences: dict[str, str]) -> bool:
    """Say whether an answer is right; by hand, the session of the last record is still to come.

    Spark tells of a session when it is closed, and no later record closes that one.
    """
    contestant, case = side
    if contestant == BY_HAND and case == COMMERCE and [*differences] == ["sessions"]:
        return differences["sessions"].startswith("1 of ") and " 0 are others" in differences["sessions"]
    return not differences


def _ratio(name: str, race: Race, ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> Line:
    """Return the ratio of the medians: of speeds, or of what a micro-batch takes."""
    if name == MICRO:
        mine, others = ([batch_ms(result) for result in results] for results in (ours, theirs))
        what = f"{race.title}: time, {race.between}"
        figures = f"{statistics.median(mine):,.0f} ms to {statistics.median(others):,.0f} ms, medians"
    else:
        mine, others = ([result["events_per_s"] for result in results] for results in (ours, theirs))
        what, figures = f"{race.title}: speed, {race.between}", f"median of {len(mine)}"
    each = [one / other for one, other in zip(mine, others, strict=False)]
    text = f"{figures}; {min(each):.2f} to {max(each):.2f}"
    return Line(name, what, statistics.median(mine) / statistics.median(others), race.bar, text)


def _driver_ratio(race: Race, ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> Line:
    """Return the ratio of what the driver's own process works: it is what more executors do not share."""
    mine, others = (
        statistics.median(result["driver_cpu_s"] / result["events"] * 1e6 for result in results)
        for results in (ours, theirs)
    )
    text = f"{mine:.1f} to {others:.1f} CPU s per million events, of the process that holds the store"
    return Line(ROWS, f"{race.title}: the driver's work, {race.between}", mine / others, None, text)


def batch_ms(result: dict[str, Any]) -> float:
    """Return the median of the time from the end of one micro-batch to that of the next, in milliseconds."""
    ends = result["batch_ends"]
    # The last micro-batch holds one record.
    steps = [1000 * (after - before) for before, after in pairwise(ends)][_FIRST_BATCHES:-1]
    return statistics.median(steps)
