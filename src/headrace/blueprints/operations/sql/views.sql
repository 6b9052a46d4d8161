-- Views for dashboards over the tables that the replica fills. Run after init.sql; may be run again.
-- The first column of each is "time", as Grafana wants it.

CREATE OR REPLACE VIEW headrace.dashboard_throughput AS
SELECT minute AS "time", max(records) / 60.0 AS records_per_second
FROM headrace.malformed_by_minute
GROUP BY minute;

-- How long after it happened the newest log line of a service could be seen here: log, engine and replica together.
CREATE OR REPLACE VIEW headrace.dashboard_latency AS
SELECT window_start AS "time", service,
       extract(epoch FROM updated_at - last_event_at)::double precision AS seconds
FROM headrace.service_health;

CREATE OR REPLACE VIEW headrace.dashboard_services AS
SELECT window_start AS "time", service, lines, errors, 100 * error_share AS error_percent, p50_ms, p95_ms, p99_ms
FROM headrace.service_health;

CREATE OR REPLACE VIEW headrace.dashboard_traffic AS
SELECT window_end AS "time", page, clicks, users, average_s_on_page
FROM headrace.click_traffic;

CREATE OR REPLACE VIEW headrace.dashboard_transactions AS
SELECT window_start AS "time", currency, status, transactions, amount, mean_latency_ms, p95_latency_ms
FROM headrace.transaction_totals;

CREATE OR REPLACE VIEW headrace.dashboard_accounts AS
SELECT max(window_end) AS "time", account, max(failed) AS failed, max(amount) AS amount,
       max(transactions) AS transactions
FROM headrace.risky_accounts
GROUP BY account;

CREATE OR REPLACE VIEW headrace.dashboard_malformed AS
SELECT minute AS "time", reason, malformed, 100 * share AS percent
FROM headrace.malformed_by_minute
WHERE malformed > 0;

-- How far the copies are: a table that nothing has been written to for long says so.
CREATE OR REPLACE VIEW headrace.dashboard_copies AS
SELECT written_at AS "time", table_name, epoch
FROM headrace._headrace_cursors;
