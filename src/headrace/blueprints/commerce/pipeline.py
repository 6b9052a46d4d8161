"""An online shop: what its visitors do, counted while they do it.

Read this file from top to bottom; it is the whole pipeline. Nothing in it says where it runs: that stands in
`headrace.toml`. After a change, `headrace check` says everything that is wrong with it, with file and line.
"""

import headrace as hr

pipeline = hr.Pipeline("commerce")

# --------------------------------------------------------------------------------------------------
# The stream: what a record is, when it happened, and what it has to meet before it counts.
# --------------------------------------------------------------------------------------------------

KNOWN_TYPES = "'user_login', 'page_view', 'item_click', 'cart_add', 'purchase', 'search'"

pipeline.stream(
    "events",
    # Every column that is declared is decoded and checked in every record; fields that are not declared are
    # ignored. A column without NOT NULL may be missing: a search has no price.
    schema="""
        event_id        VARCHAR NOT NULL,
        event_type      VARCHAR NOT NULL,
        user_id         VARCHAR NOT NULL,
        timestamp       TIMESTAMP NOT NULL,     -- an instant; a text without a zone is read as UTC
        device          VARCHAR,
        location        VARCHAR,                -- a country code
        session_id      VARCHAR,

        page            VARCHAR,                -- page_view
        product_id      VARCHAR,                -- page_view of a product, item_click, cart_add
        category        VARCHAR,                -- item_click, cart_add
        price           DECIMAL(12,2),          -- item_click, cart_add; money is DECIMAL, so sums are exact
        quantity        INTEGER,                -- cart_add

        order_id        VARCHAR,                -- purchase, with the next three
        items           STRUCT(product_id VARCHAR, quantity INTEGER, price DECIMAL(12,2))[],
        total_amount    DECIMAL(12,2),
        payment_method  VARCHAR,

        query           VARCHAR,                -- search
        results         INTEGER,
        method          VARCHAR,                -- user_login
        success         BOOLEAN,
        rating          INTEGER                 -- product_review, which README.md teaches this pipeline
    """,
    event_time="timestamp",
    # A record that reaches the log more than 5 minutes after it happened is `late`: it is kept in the table
    # `late_events`, and counts in no window.
    allowed_lateness="5 minutes",
    # A second record with the same id and the same time is a `duplicate`: it is counted once.
    unique="event_id",
    # Records of one user stay in one partition, in their order.
    key="user_id",
    # What became of records is counted by their type as well: the metric `headrace_records_by_label_total`.
    # The counter `events_processed_total`, which dashboards know, carries it as `event_type`.
    label="event_type",
    # Columns that are computed from the record. Queries and expectations use them like the others.
    derive={
        "items_total": "list_sum(list_transform(items, lambda item: item.price * item.quantity))",
    },
    # What an accepted record meets. One that does not is `rejected`: it becomes a dead letter, with the name
    # of every rule that it broke. A rule that only warns counts, and lets the record through. A condition
    # that is NULL is not true, so a rule says what is to be when a column is missing.
    expect={
        "known_type": f"event_type IN ({KNOWN_TYPES})",
        "known_device": "device IN ('mobile', 'desktop', 'tablet')",
        "rating_in_range": "rating IS NULL OR rating BETWEEN 1 AND 5",
        "purchase_total": hr.Expect(
            "event_type <> 'purchase' OR (total_amount > 0 AND total_amount = items_total)",
            on_violation="warn",
        ),
    },
)

# --------------------------------------------------------------------------------------------------
# Tables: queries that are kept up to date. A window begins at a multiple of its size since 1970-01-01 UTC;
# its bounds are the columns window_start and window_end.
# --------------------------------------------------------------------------------------------------

# Tumbling: every event is in exactly one window of a minute.
pipeline.table(
    "event_counts",
    """
    SELECT window_start, window_end, event_type,
           count(*)                AS events,
           count(DISTINCT user_id) AS users
    FROM events
    GROUP BY window(timestamp, '1 minute'), event_type
    """,
)

# Sliding: windows of 5 minutes, one beginning every minute, so every event is in five of them.
# There is a row for every user and window: `keep` removes those that closed more than a day ago.
pipeline.table(
    "user_activity",
    """
    SELECT window_start, window_end, user_id,
           count(*)                                            AS events,
           count(*) FILTER (WHERE event_type = 'page_view')    AS pages,
           count(*) FILTER (WHERE event_type = 'item_click')   AS clicks,
           count(*) FILTER (WHERE event_type = 'purchase')     AS purchases,
           max_by(event_type, timestamp)                       AS last_event,
           max(timestamp)                                      AS last_event_at
    FROM events
    GROUP BY window(timestamp, '5 minutes', '1 minute'), user_id
    """,
    keep="1 day",
)

# WHERE decides which records a table sees; without a key there is one row for each window.
pipeline.table(
    "purchase_analytics",
    """
    SELECT window_start, window_end,
           count(*)                AS orders,
           sum(total_amount)       AS revenue,
           avg(total_amount)       AS average_order,
           max(total_amount)       AS largest_order,
           count(DISTINCT user_id) AS buyers
    FROM events
    WHERE event_type = 'purchase'
    GROUP BY window(timestamp, '10 minutes')
    """,
)

# A session of a user ends when nothing has come from that user for 30 minutes. An event that arrives late,
# but not too late, can join two sessions into one.
pipeline.table(
    "sessions",
    """
    SELECT user_id,
           window_start                                             AS session_start,
           max(timestamp)                                           AS session_end,
           date_diff('second', min(timestamp), max(timestamp))      AS length_s,
           count(*)                                                 AS events,
           bool_or(event_type = 'purchase')                         AS converted
    FROM events
    GROUP BY session_window(timestamp, '30 minutes'), user_id
    """,
    keep="7 days",
)

pipeline.table(
    "device_stats",
    """
    SELECT window_start, window_end, device,
           count(*)                                                                    AS events,
           count(DISTINCT user_id)                                                     AS users,
           coalesce(sum(total_amount) FILTER (WHERE event_type = 'purchase'), 0)       AS revenue
    FROM events
    GROUP BY window(timestamp, '5 minutes'), device
    """,
)

pipeline.table(
    "location_stats",
    """
    SELECT window_start, window_end, location,
           count(*)                                                                    AS events,
           count(DISTINCT user_id)                                                     AS users,
           coalesce(sum(total_amount) FILTER (WHERE event_type = 'purchase'), 0)       AS revenue
    FROM events
    GROUP BY window(timestamp, '5 minutes'), location
    """,
)

pipeline.table(
    "product_popularity",
    """
    SELECT window_start, window_end, product_id,
           count(*) FILTER (WHERE event_type = 'page_view')    AS views,
           count(*) FILTER (WHERE event_type = 'item_click')   AS clicks,
           count(*) FILTER (WHERE event_type = 'cart_add')     AS carts
    FROM events
    WHERE event_type IN ('page_view', 'item_click', 'cart_add') AND product_id IS NOT NULL
    GROUP BY window(timestamp, '1 hour'), product_id
    """,
)

# A purchase holds a list of items: UNNEST makes one row of each, and the table adds them up by product.
pipeline.table(
    "product_sales",
    """
    SELECT window_start, window_end, item.product_id AS product_id,
           sum(item.quantity)              AS bought,
           sum(item.quantity * item.price) AS revenue
    FROM events, UNNEST(items) AS basket(item)
    WHERE event_type = 'purchase'
    GROUP BY window(timestamp, '1 hour'), item.product_id
    """,
)

# A query over tables is a view: it is computed when it is read, so any SQL may stand in it.
pipeline.table(
    "funnel",
    """
    SELECT *,
           round(views / nullif(logins, 0), 4)    AS views_per_login,
           round(clicks / nullif(views, 0), 4)    AS click_rate,
           round(carts / nullif(clicks, 0), 4)    AS cart_rate,
           round(purchases / nullif(carts, 0), 4) AS purchase_rate
    FROM (
        SELECT date_trunc('hour', window_start) AS hour,
               coalesce(sum(events) FILTER (WHERE event_type = 'user_login'), 0)::BIGINT AS logins,
               coalesce(sum(events) FILTER (WHERE event_type = 'page_view'), 0)::BIGINT  AS views,
               coalesce(sum(events) FILTER (WHERE event_type = 'item_click'), 0)::BIGINT AS clicks,
               coalesce(sum(events) FILTER (WHERE event_type = 'cart_add'), 0)::BIGINT   AS carts,
               coalesce(sum(events) FILTER (WHERE event_type = 'purchase'), 0)::BIGINT   AS purchases
        FROM event_counts
        GROUP BY 1
    )
    """,
)

# No aggregate, no window: the accepted records themselves, one row each.
pipeline.table("events_clean", "SELECT * FROM events", keep="7 days")

# --------------------------------------------------------------------------------------------------
# Panels: charts over tables. The first column is the place (a time or a name), the others are values. Beside
# the tables above they may read what Headrace itself keeps: outcomes_by_minute, rule_checks, epochs.
# --------------------------------------------------------------------------------------------------

pipeline.panel(
    "Events per second",
    """
    SELECT window_start, sum(events) / 60 AS events_per_second
    FROM event_counts WHERE window_start > now() - INTERVAL 2 HOURS
    GROUP BY 1 ORDER BY 1
    """,
    kind="line",
    unit="events/s",
)

pipeline.panel(
    "Processing rate",
    """
    SELECT date_trunc('minute', committed_at) AS minute, sum(records) / 60 AS records_per_second
    FROM epochs WHERE committed_at > now() - INTERVAL 2 HOURS
    GROUP BY 1 ORDER BY 1
    """,
    kind="area",
    unit="records/s",
)

# How old the newest event was when it could be seen in the tables. Epochs without records say nothing.
DELAY = """
    greatest(0, date_diff('millisecond',
        (SELECT max(timestamp) FROM events_clean),
        (SELECT max(committed_at) FROM epochs WHERE records > 0)) / 1000)
"""

pipeline.panel("Processing delay", f"SELECT {DELAY} AS delay", kind="gauge", unit="s")

pipeline.panel(
    "Events by type",
    """
    SELECT event_type, sum(events) AS events
    FROM event_counts WHERE window_start > now() - INTERVAL 1 HOUR
    GROUP BY 1 ORDER BY 2 DESC
    """,
    kind="pie",
    unit="events",
)

pipeline.panel(
    "Events by type over time",
    """
    SELECT time_bucket(INTERVAL 5 MINUTES, window_start) AS five_minutes, event_type, sum(events) AS events
    FROM event_counts WHERE window_start > now() - INTERVAL 2 HOURS
    GROUP BY 1, 2 ORDER BY 1, 2
    """,
    kind="bar",
    unit="events",
)

pipeline.panel(
    "Batch size",
    """
    SELECT date_trunc('minute', committed_at) AS minute,
           quantile_cont(records, 0.50) AS p50,
           quantile_cont(records, 0.95) AS p95,
           quantile_cont(records, 0.99) AS p99
    FROM epochs WHERE records > 0 AND committed_at > now() - INTERVAL 2 HOURS
    GROUP BY 1 ORDER BY 1
    """,
    kind="line",
    unit="records",
)

# The page shows the words with which a query begins.
pipeline.panel(
    "Success rate",
    """
    -- accepted / read, over the last hour; a copy of an accepted record is no failure
    SELECT round(100 * sum(records) FILTER (WHERE outcome IN ('accepted', 'duplicate')) / sum(records), 2)
           AS success_rate
    FROM outcomes_by_minute WHERE minute > now() - INTERVAL 1 HOUR
    """,
    kind="gauge",
    unit="%",
)

pipeline.panel(
    "Outcomes over time",
    """
    SELECT minute, outcome, sum(records) AS records
    FROM outcomes_by_minute WHERE minute > now() - INTERVAL 2 HOURS
    GROUP BY 1, 2 ORDER BY 1, 2
    """,
    kind="bar",
    unit="records",
)

pipeline.panel(
    "Revenue per 10 minutes",
    """
    SELECT window_start, revenue
    FROM purchase_analytics WHERE window_start > now() - INTERVAL 1 DAY
    ORDER BY 1
    """,
    kind="line",
    unit="€",
)

pipeline.panel(
    "Average purchase",
    """
    SELECT round(sum(revenue) / sum(orders), 2) AS average_purchase
    FROM purchase_analytics WHERE window_start > now() - INTERVAL 1 HOUR
    """,
    kind="number",
    unit="€",
)

pipeline.panel(
    "Active users",
    """
    SELECT window_end, count(*) AS users
    FROM user_activity WHERE window_end > now() - INTERVAL 2 HOURS AND window_end <= now()
    GROUP BY 1 ORDER BY 1
    """,
    kind="line",
    unit="users in 5 minutes",
)

pipeline.panel(
    "Top products",
    """
    SELECT product_id, sum(revenue) AS revenue
    FROM product_sales WHERE window_start > now() - INTERVAL 1 DAY
    GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 10
    """,
    kind="horizontal_bar",
    unit="€",
)

pipeline.panel(
    "Conversion funnel",
    """
    SELECT step, sum(events) AS events
    FROM (UNPIVOT (SELECT hour, logins, views, clicks, carts, purchases FROM funnel)
          ON logins, views, clicks, carts, purchases INTO NAME step VALUE events)
    WHERE hour > now() - INTERVAL 3 HOURS
    GROUP BY 1
    ORDER BY list_position(['logins', 'views', 'clicks', 'carts', 'purchases'], step)
    """,
    kind="funnel",
    unit="events",
)

pipeline.panel(
    "Devices",
    """
    SELECT device, sum(events) AS events
    FROM device_stats WHERE window_start > now() - INTERVAL 1 HOUR
    GROUP BY 1 ORDER BY 2 DESC
    """,
    kind="pie",
    unit="events",
)

pipeline.panel(
    "Countries",
    """
    SELECT location, sum(events) AS events, sum(revenue) AS revenue
    FROM location_stats WHERE window_start > now() - INTERVAL 1 HOUR
    GROUP BY 1 ORDER BY 2 DESC
    """,
    kind="map",
    unit="events",
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
    "delay",
    f"SELECT {DELAY} > 30",
    hold="2 minutes",
    summary="Events take longer than 30 seconds until they can be seen in the tables.",
)

pipeline.alert(
    "bad_records",
    """
    SELECT sum(records) FILTER (WHERE outcome IN ('malformed', 'rejected', 'future')) > 0.05 * sum(records)
    FROM outcomes_by_minute WHERE minute > now() - INTERVAL 5 MINUTES
    """,
    summary="More than 5 % of the records were set aside: see `headrace dead-letters list`.",
)

pipeline.alert(
    "late_records",
    """
    SELECT sum(records) FILTER (WHERE outcome = 'late') > 0.02 * sum(records)
    FROM outcomes_by_minute WHERE minute > now() - INTERVAL 5 MINUTES
    """,
    summary="More than 2 % of the records came too late: see the table late_events.",
)
