"""Headrace beside a sender that waits for nobody: latency by rate, a burst, a kill.

Latency is counted from the moment at which a record was due, so what waited in the sender counts (coordinated
omission). Sender, broker and engine share the machine's cores, so the sustained rate here is lower than that
of catching up: it is what the engine commits while a sender offers more than it can take.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from hdrh.histogram import HdrHistogram

from bench.cases import Bar, Line
from bench.kafka.cases import Scale, load
from bench.kafka.following import Follower, Sent, following
from bench.kafka.oracle import COMMERCE, TYPE
from bench.kafka.running import Ground

_WARM_S = 1.0
_OFFERED_S = 3.0  # shorter than that, what is committed is what waited, when nothing is sent any more
_OFFERED = {TYPE: 250_000.0, COMMERCE: 60_000.0}
_NAMES = {TYPE: "one table", COMMERCE: "whole commerce"}


def percentiles(latency_s: np.ndarray) -> dict[str, float]:
    """Return p50, p99, p99.9 and the largest in milliseconds, by HdrHistogram with three digits."""
    histogram = HdrHistogram(1, 600_000_000, 3)
    values, counts = np.unique(np.maximum(latency_s * 1e6, 1).astype(np.int64), return_counts=True)
    for value, count in zip(values.tolist(), counts.tolist(), strict=True):
        histogram.record_value(value, count)
    asked = {"p50": 50.0, "p99": 99.0, "p99.9": 99.9, "max": 100.0}
    return {name: round(histogram.get_value_at_percentile(p) / 1000, 2) for name, p in asked.items()}


def sustained_rate(follower: Follower, case: str, scale: Scale, raw: list[dict[str, Any]]) -> float:
    """Offer more than the engine can take; return what it commits per second meanwhile."""
    offered = min(_OFFERED[case], scale.sent_max / _OFFERED_S)
    sent = follower.send([(offered, min(scale.follow_s, 10.0, scale.sent_max / offered))])
    times = np.array([moment for moment, _ in sent.commits])
    done = np.array([sum(positions) for _, positions in sent.commits])
    begin = sent.start + _WARM_S
    chosen = times >= begin
    if chosen.sum() < 2:
        chosen = times >= sent.start
    span = times[chosen][-1] - times[chosen][0]
    rate = float(done[chosen][-1] - done[chosen][0]) / span if span > 0 else float(len(sent.due))
    raw.append({"case": case, "what": "sustained", "offered": offered, "rate": rate, **sent.sender})
    return rate


def curve(ground: Ground, scale: Scale, case: str) -> Iterator[Line]:
    """Measure latency at shares of the sustained rate and, for one table, at 1,000 events/s."""
    raw = ground.raw
    with following(ground, case) as follower:
        follower.send([(1000.0, 3.0)])  # plans, files, connections
        sustained = sustained_rate(follower, case, scale, raw)
        yield Line(case, f"{_NAMES[case]}: sustained beside the sender, events/s", sustained)
        rates = {"1,000/s": 1000.0, "10 %": sustained / 10, "50 %": sustained / 2, "80 %": sustained * 0.8}
        bars = {"50 %": Bar(most=250 if case == COMMERCE else 50)}
        if case == TYPE:
            bars["1,000/s"] = Bar(most=25)
        for name, rate in rates.items():
            before = load()
            sent = follower.send([(rate, _WARM_S + min(scale.follow_s, scale.sent_max / rate))])
            found = percentiles(sent.latency_s(after=_WARM_S))
            raw.append({"case": case, "what": f"latency {name}", "rate": rate, **found, **sent.sender,
                        "load_before": before, "load_after": load()})  # fmt: skip
            text = f"p50 {found['p50']} ms, p99.9 {found['p99.9']} ms, most {found['max']} ms; " \
                   f"last record sent {sent.sender['late_s'] * 1000:.0f} ms late"  # fmt: skip
            what = f"{_NAMES[case]}: p99 at {name} ({rate:,.0f} events/s), ms"
            yield Line(case, what, found["p99"], bars.get(name), text)
        yield burst(follower, scale, sustained / 2, case, raw)
        peak = follower.peak_rss_mb()
        yield Line(case, f"{_NAMES[case]}: peak memory while following, MB", peak, Bar(most=450))


def burst(follower: Follower, scale: Scale, rate: float, case: str, raw: list[dict[str, Any]]) -> Line:
    """Send half the sustained rate, three times that, half again; tell when the rest was drained."""
    seconds = min(scale.burst_s, scale.burst_max / (4 * rate))
    calm = max(3.0, seconds / 3)
    sent = follower.send([(rate, calm), (3 * rate, seconds), (rate, calm)])
    drained = drained_s(sent, after=calm + seconds)
    worst = percentiles(sent.latency_s(after=calm))
    raw.append(
        {"case": case, "what": "burst", "rate": rate, "seconds": seconds, "drained_s": drained, **worst}
    )
    text = (
        f"{rate:,.0f}, then {3 * rate:,.0f} events/s for {seconds:.0f} s; most {worst['max']:,.0f} ms behind"
    )
    return Line(case, f"{_NAMES[case]}: drained after a burst of 3x, s", drained, None, text)


def drained_s(sent: Sent, after: float) -> float:
    """Return how long after a moment records were again visible within a second, and stayed so."""
    behind = sent.due[(sent.visible - sent.due > 1.0)]
    behind = behind[behind >= sent.start + after]
    if len(behind):
        return round(float(behind[-1] - sent.start - after) + 1.0, 2)
    last = sent.visible[sent.due < sent.start + after]
    return round(max(0.0, float(last.max()) - sent.start - after), 2) if len(last) else 0.0


def killed(ground: Ground, scale: Scale) -> Iterator[Line]:
    """Kill -9 the engine on whole commerce in mid-stream, start it again, and tell when it had caught up."""
    rate, moments = 2000.0, {}
    with following(ground, COMMERCE) as follower:
        follower.send([(1000.0, 3.0)])

        def kill_and_start() -> None:
            moments["killed"] = time.time()
            follower.kill()
            follower.start()

        sent = follower.send([(rate, max(12.0, scale.follow_s))], at={4.0: kill_and_start})
        first = next(moment for moment, _ in sent.commits if moment > moments["killed"])
        late = sent.due[(sent.visible - sent.due > 1.0) & (sent.due > sent.start + 1.0)]
        caught_up = float(late[-1]) + 1.0 if len(late) else first
        text = (
            f"at {rate:,.0f} events/s; visible within 1 s again {caught_up - moments['killed']:.1f} s after"
        )
        ground.raw.append({"case": "kill", "first_commit_s": first - moments["killed"],
                           "caught_up_s": caught_up - moments["killed"], "rate": rate})  # fmt: skip
        yield Line("kill", "kill -9 to the next commit, s", first - moments["killed"], None, text)


LATENCY_CASES: dict[str, Callable[[Ground, Scale], Iterator[Line]]] = {
    "latency": lambda ground, scale: curve(ground, scale, TYPE),
    "latency-commerce": lambda ground, scale: curve(ground, scale, COMMERCE),
    "kill": killed,
}
