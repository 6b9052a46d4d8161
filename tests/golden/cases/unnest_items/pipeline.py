"""UNNEST of a list of structs in FROM: a record gives several rows, or none and is filtered."""

import headrace as hr

pipeline = hr.Pipeline("unnest_items")

pipeline.stream(
    "events",
    schema="seen TIMESTAMP NOT NULL, order_id VARCHAR, items STRUCT(product VARCHAR, "
    "quantity INT, price DECIMAL(8,2))[]",
    event_time="seen",
)
pipeline.table(
    "sales",
    """
    SELECT window_start, item.product AS product, sum(item.quantity) AS bought, sum(item.quantity *
           item.price) AS revenue,
           count(*) AS lines, count(DISTINCT order_id) AS orders
    FROM events, UNNEST(items) AS u(item) GROUP BY window(seen, '1 hour'), item.product
    """,
)
pipeline.table(
    "lines",
    """
    SELECT order_id, item.product AS product
    FROM events, UNNEST(items) AS u(item) WHERE item.quantity > 1
    """,
)
