"""The cases: who is run how often, in turns, and the bars that the numbers are held against."""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bench.cases import Bar, Line
from bench.kafka.oracle import COMMERCE, TYPE, USER
from bench.kafka.peers import CONTESTANTS, Contestant, PeerMissing
from bench.kafka.running import Failed, Ground, run

RSS_MB = Bar(most=450)


@dataclass(frozen=True)
class Scale:
    """How much is measured.

    small        events that the slow ones read
    warm, brief  events of the warm-up, and that of the slow ones
    follow_s     how long each rate of the latency curve lasts
    burst_s      how long the burst lasts
    sent_max     records that one sender has ready, which shortens the rates of the curve
    burst_max    records that it has ready for the burst, which shortens that; each takes 600 bytes of memory
    """

    events: int
    small: int
    warm: int
    brief: int
    repetitions: int
    follow_s: float
    burst_s: float
    sent_max: int
    burst_max: int
    batch_rows: int


FULL = Scale(2_000_000, 100_000, 200_000, 10_000, 3, 20.0, 30.0, 1_500_000, 12_000_000, 400_000)
QUICK = Scale(200_000, 40_000, 20_000, 5_000, 1, 5.0, 5.0, 400_000, 400_000, 100_000)
RATIO_BARS = {
    TYPE: {"consume": Bar(least=0.5), "spark": Bar(least=8), "flink": Bar(least=8)},
    USER: {"consume": Bar(least=0.5), "spark": Bar(least=6), "flink": Bar(least=6)},
    COMMERCE: {"spark": Bar(least=8)},
}
TITLES = {TYPE: "one table by event type", USER: "one table by user", COMMERCE: "whole commerce"}


def throughput(
    ground: Ground, case: str, repetitions: int, chosen: list[str], failures: dict[str, str]
) -> Iterator[Line]:
    """Run everybody who computes the case in turns; tell speed, costs, differences, and Headrace's ratios."""
    runs: dict[str, list[dict[str, Any]]] = {}
    everybody = [each for each in CONTESTANTS.values() if case in each.cases or each.name == "consume"]
    for repetition in range(repetitions):
        for contestant in everybody:
            failed = f"{contestant.name} {case}"
            if contestant.name not in chosen or failed in failures:
                continue
            try:
                result = run(ground, contestant, "consume" if contestant.name == "consume" else case)
            except (Failed, PeerMissing) as failure:
                failures[failed] = str(failure)
                print(f"{failed}: FAILED {failure}", flush=True)
                continue
            result["repetition"] = repetition
            told = f"{result['events_per_s']:,.0f} events/s, load {result['load_after']:.1f}"
            print(f"   {case} {repetition + 1}: {contestant.title}: {told}", flush=True)
            runs.setdefault(contestant.name, []).append(result)
    for name, results in runs.items():
        yield speed_line(case, CONTESTANTS[name], results)
    if "headrace" not in runs:
        return
    ours = median(runs["headrace"], "events_per_s")
    for name, results in runs.items():
        if name != "headrace":
            each = [
                a["events_per_s"] / b["events_per_s"] for a, b in zip(runs["headrace"], results, strict=False)
            ]
            bar = RATIO_BARS[case].get(name)
            text = f"median of {len(each)}, {min(each):.2f} to {max(each):.2f}"
            what = f"{TITLES[case]}: Headrace to {CONTESTANTS[name].title}"
            yield Line(case, what, ours / median(results, "events_per_s"), bar, text)
    peak = max(result["peak_rss_mb"] for result in runs["headrace"])
    yield Line(case, f"{TITLES[case]}: Headrace's peak memory, MB", peak, RSS_MB)
    yield Line(case, "  where Headrace's time goes", 0.0, None, stages(runs["headrace"][-1]))


def speed_line(case: str, contestant: Contestant, results: list[dict[str, Any]]) -> Line:
    """Return the line of a contestant: events/s with range, processor time, memory, and what differs."""
    rates = [result["events_per_s"] for result in results]
    cpu, broker = median(results, "cpu_s_per_million"), median(results, "broker_cpu_s_per_million")
    peak = max(result["peak_rss_mb"] for result in results)
    differ = results[-1].get("differences")
    equal = "" if differ is None else (f"; DIFFERS: {differ}" if differ else "; equal")
    text = (
        f"{min(rates):,.0f} to {max(rates):,.0f}; {cpu:.1f} CPU s/M (broker {broker:.1f}); {peak:,.0f} MB"
        f"; {results[0]['events']:,} events{equal}"
    )
    return Line(case, f"{contestant.title}, events/s", statistics.median(rates), None, text)


def median(results: list[dict[str, Any]], key: str) -> float:
    """Return the median of a figure over repetitions."""
    return statistics.median(result[key] for result in results)


def stages(result: dict[str, Any]) -> str:
    """Tell the shares of the engine's stages; reading and the row stage overlap with the others."""
    seconds: dict[str, float] = result["stages"]
    ordered = sorted(seconds.items(), key=lambda stage: -stage[1])
    told = ", ".join(f"{name} {each / result['seconds']:.0%}" for name, each in ordered[:7])
    return f"{told} of the wall time; {result['epochs']} epochs"


def load() -> float:
    """Return the machine's load of the last minute."""
    return round(os.getloadavg()[0], 2)
