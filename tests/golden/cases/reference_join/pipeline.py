"""A join with a reference table by its key: LEFT keeps what has no match, INNER does not."""

import headrace as hr

pipeline = hr.Pipeline("reference_join")

pipeline.stream("events", schema="seen TIMESTAMP NOT NULL, product VARCHAR, quantity INT", event_time="seen")
pipeline.reference(
    "products",
    "products.csv",
    key="product",
    schema="product VARCHAR NOT NULL, category VARCHAR, price DECIMAL(8,2)",
)
pipeline.table(
    "by_category",
    """
    SELECT p.category AS category, count(*) AS events, sum(e.quantity * p.price) AS revenue
    FROM events e LEFT JOIN products p ON e.product = p.product GROUP BY p.category
    """,
)
pipeline.table(
    "known",
    """
    SELECT e.seen AS seen, p.product AS product, p.category AS category
    FROM events e JOIN products p ON e.product = p.product
    """,
)
