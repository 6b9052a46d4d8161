"""The alerts that every pipeline has: each a question to its figures, and the same in PromQL for Prometheus.

A rule looks at the worst stream or replica and names it. Its PromQL gives a series for each of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from headrace.declare.durations import format_duration
from headrace.observe.figures import LOOKED_BACK, Figures

__all__ = ["Limits", "Rule", "Verdict", "default_rules"]

_BAD = ("malformed", "rejected", "future")
_JOB = '{job="headrace"}'
_FEW_RECORDS = 20
"""A share of fewer records than this in 5 minutes says nothing."""
_FULL_BYTES = 512 * 1024 * 1024
"""A disk with less than this is full, however slowly it fills: one epoch may need as much."""


@dataclass(frozen=True)
class Limits:
    """Thresholds of the default rules."""

    not_committing: timedelta = timedelta(seconds=60)
    delay: timedelta = timedelta(seconds=30)
    bad_share: float = 0.05
    late_share: float = 0.02
    lag_records: int = 10_000
    replica_behind: timedelta = timedelta(minutes=5)
    disk_full: timedelta = timedelta(hours=4)
    clock_skew: timedelta = timedelta(seconds=30)


@dataclass(frozen=True)
class Verdict:
    """What a rule found: whether it holds now, the value that it looked at, and whose it is.

    What is either so or not has no value: that it fires says all.
    """

    active: bool
    value: float | None = None
    subject: str = ""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One alert.

    hold    how long it has to be true before it fires
    check   gives the verdict of now, or None while its figures are missing; no check: the rule is the
            pipeline's query, see `Alerts`
    ending  nothing is asked: true since a run ended by an error, until one works, see `Alerts.ended`
    promql  the same for Prometheus, "" where it has no metric to look at
    help    what to do
    """

    name: str
    severity: str
    summary: str
    hold: timedelta = timedelta(0)
    origin: str = "default"
    help: str = ""
    promql: str = ""
    query: str = ""
    ending: bool = False
    check: Callable[[Figures, datetime], Verdict | None] | None = field(default=None, compare=False)


def _worst(found: Iterable[tuple[str, float]], limit: float) -> Verdict | None:
    subject, value = max(found, key=lambda each: each[1], default=("", None))
    if value is None:
        return None
    return Verdict(value > limit, value, subject)


def _any_is(state: float, found: Iterable[tuple[str, float]]) -> Verdict | None:
    """Return whether anybody's value is `state`, and whose; None when nothing is known of anybody."""
    known = list(found)
    if not known:
        return None
    subjects = [subject for subject, value in known if value == state]
    return Verdict(bool(subjects), None, subjects[0] if subjects else "")


def _seconds(length: timedelta) -> str:
    return f"{length.total_seconds():g}"


def _percent(share: float) -> str:
    return f"{100 * share:g} %"


def _promql_length(length: timedelta) -> str:
    return f"{max(1, round(length.total_seconds()))}s"


def default_rules(limits: Limits) -> tuple[Rule, ...]:
    """Return the rules of every pipeline with these thresholds."""
    return (*_runs(), *_work(limits), *_records(limits), *_surroundings(limits))


def _runs() -> tuple[Rule, ...]:
    def restarting(figures: Figures, now: datetime) -> Verdict:
        again = figures.increase("headrace_restarts_total", LOOKED_BACK) or 0.0
        return Verdict(again >= 2, again)

    return (
        Rule(
            name="failed",
            severity="critical",
            summary="The run ended by an error.",
            help="`headrace logs` tells what happened.",
            ending=True,
        ),
        Rule(
            name="restarting",
            severity="warning",
            summary="Within 15 minutes, two runs or more failed or were killed, and were started again.",
            help="`headrace logs` tells why the runs before ended.",
            promql="headrace_restarts_total - min_over_time(headrace_restarts_total[15m]) >= 2",
            check=restarting,
        ),
        Rule(
            name="down",
            severity="critical",
            summary="The pipeline does not run, or does not answer.",
            hold=timedelta(minutes=1),
            help="Start it: headrace run. `headrace logs` tells why it ended.",
            promql=f"up{_JOB} == 0",
        ),
    )


def _work(limits: Limits) -> tuple[Rule, ...]:
    def not_committing(figures: Figures, now: datetime) -> Verdict | None:
        waiting = [value for _, value in figures.each("headrace_lag_records")]
        moved = figures.difference("headrace_epochs_total", limits.not_committing)
        if not waiting or (any(waiting) and moved is None):
            return None
        return Verdict(any(waiting) and moved == 0, sum(waiting))

    def lag_rising(figures: Figures, now: datetime) -> Verdict | None:
        found = []
        for stream, unread in figures.each("headrace_lag_records"):
            more = figures.difference("headrace_lag_records", timedelta(minutes=5), stream)
            if more is not None:
                found.append((stream, unread if more > 0 else 0.0))
        return _worst(found, limits.lag_records)

    length = _promql_length(limits.not_committing)
    return (
        Rule(
            name="not_committing",
            severity="critical",
            summary=f"Records wait, and nothing was committed for {format_duration(limits.not_committing)}.",
            help="`headrace status` says what the run waits for, `headrace logs` what happened.",
            promql=f"sum(headrace_lag_records) > 0 and sum(increase(headrace_epochs_total[{length}])) == 0",
            check=not_committing,
        ),
        Rule(
            name="lag_rising",
            severity="warning",
            summary=f"More than {limits.lag_records:,} records wait, and they become more.",
            hold=timedelta(minutes=5),
            help="More arrives than is worked off: give the run more memory or threads, or fewer tables.",
            promql=f"headrace_lag_records > {limits.lag_records} and delta(headrace_lag_records[5m]) > 0",
            check=lag_rising,
        ),
        Rule(
            name="delay",
            severity="warning",
            summary=f"Records take longer than {format_duration(limits.delay)} until they can be seen.",
            hold=timedelta(minutes=2),
            help="`headrace status` shows the lag of each partition.",
            promql=f"headrace_processing_delay_seconds > {_seconds(limits.delay)}",
            check=lambda figures, now: _worst(
                figures.each("headrace_processing_delay_seconds"), limits.delay.total_seconds()
            ),
        ),
    )


def _records(limits: Limits) -> tuple[Rule, ...]:
    def share_of(outcomes: tuple[str, ...], limit: float) -> Callable[[Figures, datetime], Verdict | None]:
        def check(figures: Figures, now: datetime) -> Verdict | None:
            found = []
            for stream, _ in figures.each("headrace_records_read_total"):
                read = figures.increase("headrace_records_read_total", timedelta(minutes=5), stream) or 0.0
                some = sum(
                    figures.increase("headrace_records_total", timedelta(minutes=5), stream, outcome) or 0.0
                    for outcome in outcomes
                )
                found.append((stream, some / read if read >= _FEW_RECORDS else 0.0))
            return _worst(found, limit)

        return check

    def share_promql(outcomes: tuple[str, ...], limit: float) -> str:
        read = "sum by (stream) (increase(headrace_records_read_total[5m]))"
        some = f'sum by (stream) (increase(headrace_records_total{{outcome=~"{"|".join(outcomes)}"}}[5m]))'
        return f"{some} / {read} > {limit:g} and {read} >= {_FEW_RECORDS}"

    return (
        Rule(
            name="bad_share",
            severity="warning",
            summary=f"More than {_percent(limits.bad_share)} of the records of 5 minutes were set aside.",
            help="`headrace dead-letters list` shows them with the reasons.",
            promql=share_promql(_BAD, limits.bad_share),
            check=share_of(_BAD, limits.bad_share),
        ),
        Rule(
            name="late_share",
            severity="warning",
            summary=f"More than {_percent(limits.late_share)} of the records of 5 minutes came too late.",
            help="The relation late_STREAM holds them; a longer allowed_lateness takes them.",
            promql=share_promql(("late",), limits.late_share),
            check=share_of(("late",), limits.late_share),
        ),
    )


def _surroundings(limits: Limits) -> tuple[Rule, ...]:
    def disk_full(figures: Figures, now: datetime) -> Verdict | None:
        over = timedelta(minutes=10)
        for _, free in figures.each("headrace_disk_free_bytes"):
            if free < _FULL_BYTES:
                return Verdict(True)
            less = figures.difference("headrace_disk_free_bytes", over)
            if less is None:
                return None
            if less < 0:
                left = free / -less * over.total_seconds()
                return Verdict(left < limits.disk_full.total_seconds(), left)
            return Verdict(False)
        return None

    return (
        Rule(
            name="replica_behind",
            severity="warning",
            summary=f"A replica is more than {format_duration(limits.replica_behind)} behind.",
            help="`headrace replicas status` says why.",
            promql=f"headrace_replica_lag_seconds > {_seconds(limits.replica_behind)}",
            check=lambda figures, now: _worst(
                figures.each("headrace_replica_lag_seconds"), limits.replica_behind.total_seconds()
            ),
        ),
        Rule(
            name="replica_refused",
            severity="critical",
            summary="A replica's target refused: the replica stands still until somebody acts.",
            help="`headrace replicas status` says why and what to do.",
            promql='headrace_replica_state{state="refused"} == 1',
            check=lambda figures, now: _any_is(1, figures.each("headrace_replica_state", "refused")),
        ),
        Rule(
            name="log_down",
            severity="critical",
            summary="The log of a stream does not answer.",
            hold=timedelta(minutes=1),
            help="Look after its brokers; the run goes on by itself when they answer.",
            promql="headrace_log_up == 0",
            check=lambda figures, now: _any_is(0, figures.each("headrace_log_up")),
        ),
        Rule(
            name="disk_full",
            severity="critical",
            summary=f"The disk is full, or will be within {format_duration(limits.disk_full)} at this rate.",
            hold=timedelta(minutes=10),
            help="Make room, shorten `keep` of tables or the retention of logs.",
            promql=f"predict_linear(headrace_disk_free_bytes[30m], {_seconds(limits.disk_full)}) < 0 "
            f"or headrace_disk_free_bytes < {_FULL_BYTES}",
            check=disk_full,
        ),
        Rule(
            name="clock_skew",
            severity="warning",
            summary=f"The log's clock is more than {format_duration(limits.clock_skew)} ahead of this "
            "machine's.",
            hold=timedelta(minutes=1),
            help="Set the clocks of brokers and of this machine by NTP.",
            promql=f"headrace_clock_skew_seconds > {_seconds(limits.clock_skew)}",
            check=lambda figures, now: _worst(
                figures.each("headrace_clock_skew_seconds"), limits.clock_skew.total_seconds()
            ),
        ),
    )
