"""Customers of a shop: what they do, how good the data about it is, and how well the pipeline does.

Read this file from top to bottom; it is the whole pipeline. Nothing in it says where it runs: that stands in
`headrace.toml`. After a change, `headrace check` says everything that is wrong with it, with file and line.
"""

import headrace as hr

pipeline = hr.Pipeline("customers")

# --------------------------------------------------------------------------------------------------
# The stream: what a record is, when it happened, and the rules of data quality.
# --------------------------------------------------------------------------------------------------

pipeline.stream(
    "events",
    # Only the time must be there. Everything else may be missing, so that a rule can say what is wrong with
    # the record: a missing NOT NULL column would make it `malformed`, without the name of a rule.
    schema="""
        timestamp         TIMESTAMP NOT NULL,
        customer_id       VARCHAR,
        event_type        VARCHAR,
        product_category  VARCHAR,
        product_id        VARCHAR,
        amount            DECIMAL(12,2),        -- money is DECIMAL, so sums are exact
        quantity          INTEGER,
        location          VARCHAR               -- a city
    """,
    event_time="timestamp",
    # A record that reaches the log more than 5 minutes after it happened is `late`: it is kept in the table
    # `late_events`, and counts in no table.
    allowed_lateness="5 minutes",
    # There is no id in the records: the same customer does the same with the same product only once in a
    # moment. A second such record is a `duplicate`.
    unique=["customer_id", "timestamp", "event_type", "product_id"],
    # Records of one customer stay in one partition, in their order.
    key="customer_id",
    # The rules of data quality. A record that breaks one is `rejected`: it becomes a dead letter with the
    # names of all rules that it broke. A rule that warns counts, and lets the record through. A condition
    # that is NULL is not true. That a record must not be of the future is no rule here: it is always checked.
    expect={
        "customer_id_not_empty": "customer_id <> ''",
        "product_id_not_empty": "product_id <> ''",
        "category_not_empty": "product_category <> ''",
        "known_type": """
            event_type IN ('view', 'add_to_cart', 'remove_from_cart', 'purchase', 'return', 'support_contact')
        """,
        "amount_present": "amount IS NOT NULL OR coalesce(event_type, '') NOT IN ('purchase', 'return')",
        "amount_not_negative": "amount IS NULL OR amount >= 0",
        "quantity_in_range": "quantity BETWEEN 1 AND 100",
        "known_category": hr.Expect(
            "product_category IN ('Electronics', 'Clothing', 'Home', 'Books', 'Sports', 'Beauty', 'Toys')",
            on_violation="warn",
        ),
    },
)

# --------------------------------------------------------------------------------------------------
# Tables: queries that are kept up to date. In Elasticsearch each is an index: `category-metrics`, …
# --------------------------------------------------------------------------------------------------

# Tumbling: every event is in exactly one window of a minute.
pipeline.table(
    "category_metrics",
    """
    SELECT window_start, window_end, product_category,
           count(*)                                                             AS events,
           count(*) FILTER (WHERE event_type = 'purchase')                      AS purchases,
           coalesce(sum(quantity) FILTER (WHERE event_type = 'purchase'), 0)    AS units,
           coalesce(sum(amount) FILTER (WHERE event_type = 'purchase'), 0)      AS revenue,
           avg(amount) FILTER (WHERE event_type = 'purchase')                   AS average_amount,
           count(DISTINCT customer_id)                                          AS customers
    FROM events
    GROUP BY window(timestamp, '1 minute'), product_category
    """,
    keep="30 days",
)

# Keyed: one row for each customer, for ever. `mode` is the most frequent value, `max_by` that of the latest.
pipeline.table(
    "customer_activity",
    """
    SELECT customer_id,
           min(timestamp)                                                       AS first_seen,
           max(timestamp)                                                       AS last_seen,
           count(*)                                                             AS events,
           count(*) FILTER (WHERE event_type = 'purchase')                      AS purchases,
           coalesce(sum(amount) FILTER (WHERE event_type = 'purchase'), 0)      AS spent,
           count(*) FILTER (WHERE event_type = 'return')                        AS returns,
           mode(product_category)                                               AS favourite_category,
           max_by(product_category, timestamp)                                  AS last_category,
           mode(location)                                                       AS favourite_city,
           max_by(location, timestamp)                                          AS last_city
    FROM events
    GROUP BY customer_id
    """,
)

pipeline.table(
    "city_sales",
    """
    SELECT window_start, window_end, location AS city,
           count(*)     AS orders,
           sum(amount)  AS revenue
    FROM events
    WHERE event_type = 'purchase'
    GROUP BY window(timestamp, '5 minutes'), location
    """,
    keep="30 days",
)

# A query over what Headrace itself keeps is a view, and is copied to Elasticsearch like a table: how often
# each rule was checked, and how often it was broken, by minute. The index is `pipeline-quality`.
pipeline.table(
    "quality",
    """
    SELECT minute, replace(rule, 'expect:', '') AS rule, checked, warned, rejected
    FROM rule_checks
    UNION ALL
    SELECT minute, 'time_not_in_the_future' AS rule,
           sum(records)::BIGINT                                                 AS checked,
           0::BIGINT                                                            AS warned,
           coalesce(sum(records) FILTER (WHERE outcome = 'future'), 0)::BIGINT  AS rejected
    FROM outcomes_by_minute
    WHERE outcome IN ('accepted', 'duplicate', 'late', 'future')
    GROUP BY minute
    """,
    key=["minute", "rule"],
)

# How the pipeline does, every 10 seconds of the last hour. A counter only grows: its rate is the difference
# of two samples. The index is `pipeline-metrics`.
pipeline.table(
    "pipeline_metrics",
    """
    WITH points AS (
        SELECT time_bucket(INTERVAL 10 SECONDS, time) AS sampled_at, name, labels,
               max_by(value, time) AS value, max(time) AS taken
        FROM metrics
        WHERE time > (SELECT max(time) FROM metrics) - INTERVAL 1 HOUR
        GROUP BY ALL
    ), grown AS (
        SELECT sampled_at, name, labels,
               greatest(0, value - lag(value) OVER before)
                   / nullif(epoch(taken) - epoch(lag(taken) OVER before), 0) AS rate
        FROM points WHERE name IN ('headrace_records_read_total', 'headrace_records_total')
        WINDOW before AS (PARTITION BY name, labels ORDER BY sampled_at)
    )
    SELECT sampled_at, 'records_per_second' AS measure, 'all' AS part, sum(rate) AS value
    FROM grown WHERE name = 'headrace_records_read_total' AND rate IS NOT NULL GROUP BY sampled_at
    UNION ALL
    SELECT sampled_at, 'error_share', 'all',
           sum(rate) FILTER (WHERE (labels->>'$.outcome') IN ('malformed', 'rejected', 'future')) / sum(rate)
    FROM grown WHERE name = 'headrace_records_total' AND rate IS NOT NULL
    GROUP BY sampled_at HAVING sum(rate) > 0
    UNION ALL
    SELECT sampled_at, 'latency_seconds', 'p' || round(100 * (labels->>'$.quantile')::DOUBLE)::INTEGER,
           max(value)
    FROM points
    WHERE name = 'headrace_latency_seconds' AND (labels->>'$.since') = 'event'
    GROUP BY ALL
    UNION ALL
    SELECT sampled_at, 'stage_seconds', labels->>'$.stage', max(value)
    FROM points
    WHERE name = 'headrace_epoch_seconds' AND (labels->>'$.quantile') = '0.95'
    GROUP BY ALL
    UNION ALL
    SELECT sampled_at, substr(name, length('headrace_') + 1), coalesce(labels->>'$.stream', 'all'), max(value)
    FROM points
    WHERE name IN ('headrace_lag_records', 'headrace_process_cpu_ratio', 'headrace_disk_free_bytes',
                   'headrace_process_resident_memory_bytes')
    GROUP BY ALL
    """,
    key=["sampled_at", "measure", "part"],
)

# --------------------------------------------------------------------------------------------------
# Panels: charts over tables. The first column is the place (a time or a name), the others are values.
# --------------------------------------------------------------------------------------------------


def measured(measure: str, *, hours: int = 1) -> str:
    """Return the query of a panel over one measure of the pipeline, a line for each part."""
    return f"""
        SELECT sampled_at, part, value FROM pipeline_metrics
        WHERE measure = '{measure}' AND sampled_at > now() - INTERVAL {hours} HOURS ORDER BY sampled_at, part
    """


pipeline.panel("Messages per second", measured("records_per_second"), kind="line", unit="records/s")
pipeline.panel("Latency, event to table", measured("latency_seconds"), kind="line", unit="s")
pipeline.panel("Error rate", measured("error_share"), kind="line")
pipeline.panel("CPU", measured("process_cpu_ratio"), kind="line", unit="cores")
pipeline.panel("Memory", measured("process_resident_memory_bytes"), kind="line", unit="bytes")
pipeline.panel("Free disk", measured("disk_free_bytes"), kind="line", unit="bytes")
pipeline.panel("Time of each stage", measured("stage_seconds"), kind="line", unit="s")
pipeline.panel("Records waiting", measured("lag_records"), kind="area", unit="records")

# Of the records of the last hour, how many have passed every rule. A duplicate has passed them once.
SCORE = """
    SELECT round(100 * coalesce(sum(records) FILTER (WHERE outcome IN ('accepted', 'duplicate', 'late')), 0)
                 / sum(records), 2) AS score
    FROM outcomes_by_minute WHERE minute > now() - INTERVAL 1 HOUR
"""
pipeline.panel("Quality score", SCORE, kind="gauge", unit="%")

pipeline.panel(
    "Rule checks over time",
    """
    SELECT minute, rule, sum(warned + rejected) AS broken
    FROM quality WHERE minute > now() - INTERVAL 2 HOURS
    GROUP BY 1, 2 ORDER BY 1, 2
    """,
    kind="bar",
    unit="records",
)

pipeline.panel(
    "Rejected records",
    """
    SELECT record_time, outcome, list_distinct(list_transform(reasons, lambda one: one.rule)) AS rules,
           left(decode(coalesce(value, ''::BLOB)), 200) AS record
    FROM dead_letters WHERE outcome = 'rejected'
    ORDER BY record_time DESC LIMIT 20
    """,
    kind="table",
)

pipeline.panel(
    "Revenue by category",
    """
    SELECT window_start, product_category, revenue
    FROM category_metrics WHERE window_start > now() - INTERVAL 2 HOURS
    ORDER BY 1, 2
    """,
    kind="area",
    unit="€",
)

pipeline.panel(
    "Events by category",
    """
    SELECT product_category, sum(events) AS events
    FROM category_metrics WHERE window_start > now() - INTERVAL 1 HOUR
    GROUP BY 1 ORDER BY 2 DESC
    """,
    kind="bar",
    unit="events",
)

pipeline.panel(
    "Top customers",
    """
    SELECT customer_id, spent, purchases, favourite_category, favourite_city, last_seen
    FROM customer_activity ORDER BY spent DESC, customer_id LIMIT 10
    """,
    kind="table",
)

pipeline.panel(
    "Sales by city",
    """
    SELECT city, sum(revenue) AS revenue
    FROM city_sales WHERE window_start > now() - INTERVAL 1 DAY
    GROUP BY 1 ORDER BY 2 DESC
    """,
    kind="horizontal_bar",
    unit="€",
)

# --------------------------------------------------------------------------------------------------
# Alerts: queries that give true when somebody should look.
# --------------------------------------------------------------------------------------------------

# `minute` is the beginning of a minute: its last event may be 59 seconds younger, so it is true after one to
# two minutes, and fires after two to three. A run that has begun is given `hold` for its first records.
pipeline.alert(
    "no_events",
    "SELECT coalesce(max(minute) < now() - INTERVAL 2 MINUTES, true) FROM outcomes_by_minute",
    severity="critical",
    hold="1 minute",
    summary="No record of the last 2 minutes was read: nothing comes in, or reading is behind.",
)

pipeline.alert(
    "low_quality",
    """
    SELECT sum(records) FILTER (WHERE outcome IN ('malformed', 'rejected', 'future')) > 0.05 * sum(records)
    FROM outcomes_by_minute WHERE minute > now() - INTERVAL 5 MINUTES
    """,
    summary="More than 5 % of the records were set aside: the table quality says by which rule.",
)

pipeline.alert(
    "late_records",
    """
    SELECT sum(records) FILTER (WHERE outcome = 'late') > 0.02 * sum(records)
    FROM outcomes_by_minute WHERE minute > now() - INTERVAL 5 MINUTES
    """,
    summary="More than 2 % of the records came too late: see the table late_events.",
)

pipeline.alert(
    "slow",
    """
    SELECT avg(value) > 30 FROM metrics
    WHERE name = 'headrace_processing_delay_seconds' AND time > now() - INTERVAL 1 MINUTE
    """,
    hold="2 minutes",
    summary="Records take longer than 30 seconds until they can be seen in the tables.",
)
