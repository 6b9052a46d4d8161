from oracle_words import (
    Grouped,
    Stream,
    Window,
    aggregate,
    column,
    columns,
    instant,
    integer,
    minutes,
    same,
    text,
)


def quantile(kind, share):
    return aggregate(f"quantile_{kind}", column("ms"), share=share)


STREAMS = [
    Stream(
        "events",
        columns(seen_required=instant, service=text, ms=integer),
        event_time="seen",
        allowed_lateness=minutes(10),
    )
]
TABLES = {
    "latency": Grouped(
        "events",
        same("window_start", "service", "p50", "p95", "d50", "d99", "middle"),
        {
            "p50": quantile("cont", "0.5"),
            "p95": quantile("cont", "0.95"),
            "d50": quantile("disc", "0.5"),
            "d99": quantile("disc", "0.99"),
            "middle": quantile("cont", "0.5"),
        },
        keys=same("service"),
        window=Window(minutes(1)),
    )
}
