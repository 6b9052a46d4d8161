"""New users, polled from an HTTP API and kept where other programs look for them.

Read this file from top to bottom; it is the whole pipeline. Nothing in it says where it runs, nor
how users come in: that stands in `headrace.toml`. `users.py` makes a record of what the API gives.
"""

import headrace as hr

pipeline = hr.Pipeline("signups")

# --------------------------------------------------------------------------------------------------
# The stream: a user as flattened by users.py, and when it was polled.
# --------------------------------------------------------------------------------------------------

pipeline.stream(
    "users_created",
    schema="""
        id               VARCHAR NOT NULL,
        polled_at        TIMESTAMP NOT NULL,    -- an instant: when the poller had the answer
        first_name       VARCHAR,
        last_name        VARCHAR,
        gender           VARCHAR,
        address          VARCHAR,               -- number street, city, state, country
        post_code        VARCHAR,
        email            VARCHAR,
        username         VARCHAR,
        registered_date  VARCHAR,               -- as the API writes it: 2019-07-03T12:33:11.123Z
        phone            VARCHAR,
        picture          VARCHAR
    """,
    event_time="polled_at",
    # A page that is polled again after a crash brings its users again: within an hour they are duplicates.
    # After that a user comes into the table a second time, and nothing in it changes.
    allowed_lateness="1 hour",
    unique="id",
    key="id",
    # Columns that are computed from the record. TRY_CAST gives NULL where a text is no date.
    derive={
        "country": "nullif(trim(split_part(address, ',', -1)), '')",
        "registered_at": "TRY_CAST(registered_date AS TIMESTAMPTZ)",
        "email_domain": "lower(split_part(email, '@', -1))",
    },
    # A record that breaks one of these is `rejected`: a dead letter with the names of the rules.
    expect={
        "id_is_there": "id <> ''",
        "email_has_its_form": "regexp_full_match(email, '[^@\\s]+@[^@\\s]+\\.[^@\\s]+')",
        "known_gender": "gender IN ('female', 'male')",
        "country_is_there": "country IS NOT NULL",
        "date_is_one": "registered_at IS NOT NULL",
        "registered_before_polled": "registered_at IS NULL OR registered_at <= polled_at",
    },
)

# --------------------------------------------------------------------------------------------------
# The table: a row for each user. Every column is a text, as the table in Cassandra has it.
# --------------------------------------------------------------------------------------------------

pipeline.table(
    "created_users",
    """
    SELECT id, first_name, last_name, gender, address, post_code, email, username, registered_date, phone,
           picture,
           strftime(registered_at, '%Y') AS year,
           strftime(registered_at, '%m') AS month,
           strftime(registered_at, '%d') AS day,
           country
    FROM users_created
    """,
    key="id",
)

# --------------------------------------------------------------------------------------------------
# Views: Cassandra's query language cannot group by these columns, so their answers are kept beside the table.
# A key of Cassandra is never NULL, which is what COALESCE is for.
# --------------------------------------------------------------------------------------------------

pipeline.table("users_total", "SELECT 'all' AS scope, count(*) AS users FROM created_users", key="scope")

pipeline.table(
    "users_by_gender",
    "SELECT coalesce(gender, 'unknown') AS gender, count(*) AS users FROM created_users GROUP BY 1",
    key="gender",
)

pipeline.table(
    "users_by_country",
    "SELECT coalesce(country, 'unknown') AS country, count(*) AS users FROM created_users GROUP BY 1",
    key="country",
)

pipeline.table(
    "registrations_by_month",
    """
    SELECT coalesce(year, '0000') || '-' || coalesce(month, '00') AS month, count(*) AS users
    FROM created_users GROUP BY 1
    """,
    key="month",
)

pipeline.table(
    "email_providers",
    """
    SELECT coalesce(lower(split_part(email, '@', -1)), 'unknown') AS provider, count(*) AS users
    FROM created_users GROUP BY 1
    """,
    key="provider",
)

# One partition in Cassandra, newest first: `keys.recent_users` in headrace.toml says so.
pipeline.table(
    "recent_users",
    """
    SELECT 'newest' AS list, coalesce(registered_date, '') AS registered_date, id,
           first_name, last_name, gender, email, country
    FROM created_users
    ORDER BY registered_date DESC, id
    LIMIT 100
    """,
    key=["list", "registered_date", "id"],
)

# --------------------------------------------------------------------------------------------------
# Panels
# --------------------------------------------------------------------------------------------------

pipeline.panel("Total users", "SELECT users FROM users_total", kind="number", unit="users")

pipeline.panel(
    "Gender", "SELECT gender, users FROM users_by_gender ORDER BY users DESC", kind="pie", unit="users"
)

pipeline.panel(
    "Top 10 countries",
    "SELECT country, users FROM users_by_country ORDER BY users DESC, country LIMIT 10",
    kind="horizontal_bar",
    unit="users",
)

pipeline.panel(
    "Recently registered users",
    """
    SELECT registered_date, first_name, last_name, gender, email, country
    FROM recent_users ORDER BY registered_date DESC, id LIMIT 20
    """,
    kind="table",
)

pipeline.panel(
    "Registrations by month",
    "SELECT CAST(month || '-01' AS DATE) AS month, users FROM registrations_by_month ORDER BY 1",
    kind="line",
    unit="users",
)

pipeline.panel(
    "E-mail providers",
    "SELECT provider, users FROM email_providers ORDER BY users DESC, provider LIMIT 10",
    kind="bar",
    unit="users",
)

# --------------------------------------------------------------------------------------------------
# Alerts
# --------------------------------------------------------------------------------------------------

pipeline.alert(
    "no_users",
    "SELECT coalesce(max(minute) < now() - INTERVAL 2 MINUTES, true) FROM outcomes_by_minute",
    severity="warning",
    hold="9 minutes",  # a run that has begun is given this time for its first users
    summary="No user has been polled for 10 minutes: does the API answer?",
)

pipeline.alert(
    "bad_answers",
    """
    SELECT sum(records) FILTER (WHERE outcome IN ('malformed', 'rejected')) > 0.05 * sum(records)
    FROM outcomes_by_minute WHERE minute > now() - INTERVAL 1 HOUR
    """,
    summary="More than 5 % of what the API answers is set aside: see `headrace dead-letters list`.",
)
