"""Operations: logs, clicks and transactions of a company, watched while they happen.

Read this file from top to bottom; it is the whole pipeline. Nothing in it says where it runs: that stands in
`headrace.toml`. After a change, `headrace check` says everything that is wrong with it, with file and line.
"""

import headrace as hr

pipeline = hr.Pipeline("operations")

# --------------------------------------------------------------------------------------------------
# The stream: three kinds of record in one envelope. `event_id`, `kind` and `timestamp` are in all of them;
# what else a record has depends on its kind.
# --------------------------------------------------------------------------------------------------

pipeline.stream(
    "events",
    schema="""
        event_id        VARCHAR NOT NULL,
        kind            VARCHAR NOT NULL,
        timestamp       TIMESTAMP NOT NULL,     -- an instant; a text without a zone is read as UTC

        service         VARCHAR,                -- log, with the next four
        level           VARCHAR,
        message         VARCHAR,
        duration_ms     INTEGER,
        host            VARCHAR,

        user_id         VARCHAR,                -- click, with the next three
        page            VARCHAR,
        referrer        VARCHAR,
        ms_on_page      INTEGER,

        transaction_id  VARCHAR,                -- transaction, with the rest
        account         VARCHAR,
        amount          DECIMAL(12,2),          -- money is DECIMAL, so sums are exact
        currency        VARCHAR,
        status          VARCHAR,
        latency_ms      INTEGER
    """,
    event_time="timestamp",
    # Operators look at the last minutes: a record that is more than a minute old when it comes is `late`. It
    # is kept in the table `late_events`, and counts in no window.
    allowed_lateness="1 minute",
    # A second record with the same id and the same time is a `duplicate`: it is counted once.
    unique="event_id",
    # What an accepted record meets. One that does not is `rejected`: it becomes a dead letter, with the name
    # of every rule that it broke. A condition that is NULL is not true: a missing column breaks its rule.
    expect={
        "known_kind": "kind IN ('log', 'click', 'transaction')",
        "log_complete": """
            kind <> 'log' OR (service IS NOT NULL AND level IN ('DEBUG', 'INFO', 'WARN', 'ERROR'))
        """,
        "click_complete": "kind <> 'click' OR (user_id IS NOT NULL AND page IS NOT NULL)",
        "transaction_complete": """
            kind <> 'transaction' OR (transaction_id IS NOT NULL AND account IS NOT NULL
                AND currency IS NOT NULL AND status IN ('ok', 'failed', 'pending'))
        """,
        "amount_present": "kind <> 'transaction' OR amount >= 0",
        # Clocks that are set back give negative durations: counted, and let through.
        "durations_not_negative": hr.Expect(
            "least(coalesce(duration_ms, 0), coalesce(ms_on_page, 0), coalesce(latency_ms, 0)) >= 0",
            on_violation="warn",
        ),
    },
)

# --------------------------------------------------------------------------------------------------
# Tables: queries that are kept up to date. A window begins at a multiple of its size since 1970-01-01 UTC;
# its bounds are the columns window_start and window_end.
# --------------------------------------------------------------------------------------------------

# One row for each service and minute. `quantile_cont` is exact: it remembers every value of a window.
pipeline.table(
    "service_health",
    """
    SELECT window_start, window_end, service,
           count(*)                                                      AS lines,
           count(*) FILTER (WHERE level = 'ERROR')                       AS errors,
           round(count(*) FILTER (WHERE level = 'ERROR') / count(*), 4)  AS error_share,
           round(quantile_cont(duration_ms, 0.50), 1)                    AS p50_ms,
           round(quantile_cont(duration_ms, 0.95), 1)                    AS p95_ms,
           round(quantile_cont(duration_ms, 0.99), 1)                    AS p99_ms,
           max(timestamp)                                                AS last_event_at
    FROM events
    WHERE kind = 'log'
    GROUP BY window(timestamp, '1 minute'), service
    """,
    keep="7 days",
)

# Sliding: windows of 5 minutes, one beginning every minute, so every click is in five of them.
pipeline.table(
    "click_traffic",
    """
    SELECT window_start, window_end, page,
           count(*)                         AS clicks,
           count(DISTINCT user_id)          AS users,
           round(avg(ms_on_page) / 1000, 2) AS average_s_on_page
    FROM events
    WHERE kind = 'click'
    GROUP BY window(timestamp, '5 minutes', '1 minute'), page
    """,
    keep="7 days",
)

pipeline.table(
    "transaction_totals",
    """
    SELECT window_start, window_end, currency, status,
           count(*)                                   AS transactions,
           sum(amount)                                AS amount,
           round(avg(latency_ms), 1)                  AS mean_latency_ms,
           round(quantile_cont(latency_ms, 0.95), 1)  AS p95_latency_ms
    FROM events
    WHERE kind = 'transaction'
    GROUP BY window(timestamp, '1 minute'), currency, status
    """,
    keep="7 days",
)

# An account has one currency, so its amounts may be added up. There is a row for every account and window:
# `keep` is short.
pipeline.table(
    "account_risk",
    """
    SELECT window_start, window_end, account,
           count(*)                                    AS transactions,
           count(*) FILTER (WHERE status = 'failed')   AS failed,
           sum(amount)                                 AS amount
    FROM events
    WHERE kind = 'transaction'
    GROUP BY window(timestamp, '10 minutes', '1 minute'), account
    """,
    keep="6 hours",
)

# A query over tables is a view: it is computed when it is read, so any SQL may stand in it. `key` says which
# columns tell its rows apart; a replica needs that to send only what has changed.
pipeline.table(
    "risky_accounts",
    """
    SELECT window_start, window_end, account, transactions, failed, amount,
           CASE WHEN failed >= 5 THEN 'failed transactions' ELSE 'large amount' END AS reason
    FROM account_risk
    WHERE failed >= 5 OR amount >= 2000
    """,
    key=["window_start", "account"],
)

# Headrace counts itself what becomes of records; here it is by the minute in which the log took them. A
# minute in which all could be read has one row, with the reason 'none'.
pipeline.table(
    "malformed_by_minute",
    """
    SELECT minute, reason, malformed, records, round(malformed / records, 4) AS share
    FROM (
        SELECT o.minute, coalesce(m.reason, 'none') AS reason,
               coalesce(m.malformed, 0)::BIGINT AS malformed, o.records
        FROM (
            SELECT minute, sum(records)::BIGINT AS records
            FROM outcomes_by_minute WHERE stream = 'events' GROUP BY minute
        ) o
        LEFT JOIN (
            SELECT minute, reason, sum(records)::BIGINT AS malformed
            FROM reasons_by_minute WHERE stream = 'events' AND outcome = 'malformed' GROUP BY minute, reason
        ) m ON m.minute = o.minute
    )
    """,
    key=["minute", "reason"],
)

# --------------------------------------------------------------------------------------------------
# Panels: charts over tables. The first column is the place (a time or a name), the others are values.
# --------------------------------------------------------------------------------------------------

pipeline.panel(
    "Throughput",
    """
    SELECT minute, sum(records) / 60 AS records_per_second
    FROM outcomes_by_minute WHERE minute > now() - INTERVAL 2 HOURS
    GROUP BY 1 ORDER BY 1
    """,
    kind="area",
    unit="records/s",
)

# How old the newest log line was when it could be seen in the tables. Epochs without records say nothing.
DELAY = """
    greatest(0, date_diff('millisecond',
        (SELECT max(last_event_at) FROM service_health),
        (SELECT max(committed_at) FROM epochs WHERE records > 0)) / 1000)
"""

pipeline.panel("Delay until the tables", f"SELECT {DELAY} AS delay", kind="gauge", unit="s")

pipeline.panel(
    "Latency",
    """
    SELECT minute, 'p' || CAST(100 * CAST(labels->>'$.quantile' AS DOUBLE) AS INT) AS quantile,
           value AS seconds
    FROM metrics_by_minute
    WHERE name = 'headrace_latency_seconds' AND (labels->>'$.since') = 'event'
      AND (labels->>'$.quantile') IS NOT NULL AND minute > now() - INTERVAL 2 HOURS
    ORDER BY 1, 2
    """,
    kind="line",
    unit="s",
)

pipeline.panel(
    "Slowest calls by service",
    """
    SELECT window_start, service, p95_ms
    FROM service_health WHERE window_start > now() - INTERVAL 2 HOURS
    ORDER BY 1, 2
    """,
    kind="line",
    unit="ms",
)

pipeline.panel(
    "Error share by service",
    """
    SELECT window_start, service, 100 * error_share AS error_share
    FROM service_health WHERE window_start > now() - INTERVAL 2 HOURS
    ORDER BY 1, 2
    """,
    kind="line",
    unit="%",
)

pipeline.panel(
    "Log lines by service",
    """
    SELECT service, sum(lines) AS lines, sum(errors) AS errors
    FROM service_health WHERE window_start > now() - INTERVAL 1 HOUR
    GROUP BY 1 ORDER BY 2 DESC
    """,
    kind="horizontal_bar",
    unit="lines",
)

pipeline.panel(
    "Clicks by page",
    """
    SELECT page, clicks, users, average_s_on_page
    FROM click_traffic
    WHERE window_end = (SELECT max(window_end) FROM click_traffic WHERE window_end <= now())
    ORDER BY 2 DESC
    """,
    kind="table",
)

pipeline.panel(
    "Transactions by status",
    """
    SELECT window_start, status, sum(transactions) AS transactions
    FROM transaction_totals WHERE window_start > now() - INTERVAL 2 HOURS
    GROUP BY 1, 2 ORDER BY 1, 2
    """,
    kind="bar",
    unit="transactions",
)

pipeline.panel(
    "Amount by currency",
    """
    SELECT currency, sum(amount) AS amount
    FROM transaction_totals WHERE status = 'ok' AND window_start > now() - INTERVAL 1 HOUR
    GROUP BY 1 ORDER BY 2 DESC
    """,
    kind="pie",
)

pipeline.panel(
    "Slowest transactions",
    """
    SELECT window_start, max(p95_latency_ms) AS p95
    FROM transaction_totals WHERE window_start > now() - INTERVAL 2 HOURS
    GROUP BY 1 ORDER BY 1
    """,
    kind="line",
    unit="ms",
)

pipeline.panel(
    "Accounts to look at",
    """
    SELECT account, max(failed) AS failed, max(amount) AS amount, max(window_end) AS until
    FROM risky_accounts WHERE window_end > now() - INTERVAL 10 MINUTES
    GROUP BY 1 ORDER BY 2 DESC, 3 DESC LIMIT 20
    """,
    kind="table",
)

pipeline.panel(
    "Malformed records",
    """
    SELECT minute, reason, malformed
    FROM malformed_by_minute WHERE minute > now() - INTERVAL 2 HOURS AND malformed > 0
    ORDER BY 1, 2
    """,
    kind="bar",
    unit="records",
)

pipeline.panel(
    "Outcomes",
    """
    SELECT minute, outcome, sum(records) AS records
    FROM outcomes_by_minute WHERE minute > now() - INTERVAL 2 HOURS
    GROUP BY 1, 2 ORDER BY 1, 2
    """,
    kind="bar",
    unit="records",
)

# --------------------------------------------------------------------------------------------------
# Alerts: queries that give true when somebody should look. They look back two minutes, so that one is whole.
# --------------------------------------------------------------------------------------------------

pipeline.alert(
    "slow_service",
    """
    SELECT coalesce(max(p95_ms), 0) > 5000
    FROM service_health WHERE window_end > now() - INTERVAL 2 MINUTES
    """,
    hold="1 minute",
    summary="A service takes more than 5 seconds for one call in twenty: see 'Slowest calls by service'.",
)

pipeline.alert(
    "slow_transactions",
    """
    SELECT coalesce(max(p95_latency_ms), 0) > 5000
    FROM transaction_totals WHERE window_end > now() - INTERVAL 2 MINUTES
    """,
    hold="1 minute",
    summary="One transaction in twenty takes more than 5 seconds.",
)

pipeline.alert(
    "slow_pipeline",
    """
    SELECT coalesce(max(value), 0) > 5
    FROM metrics
    WHERE name = 'headrace_latency_seconds' AND time > now() - INTERVAL 10 SECONDS
      AND (labels->>'$.since') = 'event' AND (labels->>'$.quantile') = '0.95'
    """,
    hold="1 minute",
    summary="One record in twenty takes more than 5 seconds to the tables: see `headrace status`.",
)

pipeline.alert(
    "no_commit",
    "SELECT coalesce(max(committed_at) < now() - INTERVAL 10 SECONDS, true) FROM epochs",
    severity="critical",
    hold="1 minute",  # a run that has begun is given this time for its first commit
    summary="Nothing was committed for 60 seconds: the run has failed, or no record comes.",
)

pipeline.alert(
    "malformed_records",
    """
    SELECT coalesce(max(share), 0) > 0.02
    FROM (
        SELECT minute, sum(malformed) / max(records) AS share
        FROM malformed_by_minute
        WHERE minute > now() - INTERVAL 3 MINUTES AND minute <= now() - INTERVAL 1 MINUTE
        GROUP BY minute
    )
    """,
    summary="More than 2 % of a minute's records could not be read: see `headrace dead-letters list`.",
)

pipeline.alert(
    "failing_service",
    """
    SELECT coalesce(max(share), 0) > 0.05
    FROM (
        SELECT service, sum(errors) / sum(lines) AS share
        FROM service_health WHERE window_start > now() - INTERVAL 5 MINUTES
        GROUP BY service HAVING sum(lines) >= 100
    )
    """,
    severity="critical",
    summary="More than 5 % of a service's log lines of the last 5 minutes, 100 at least, are errors.",
)

pipeline.alert(
    "failing_account",
    "SELECT coalesce(max(failed), 0) >= 5 FROM account_risk WHERE window_end > now() - INTERVAL 1 MINUTE",
    summary="An account had 5 failed transactions in 10 minutes: see the table risky_accounts.",
)
