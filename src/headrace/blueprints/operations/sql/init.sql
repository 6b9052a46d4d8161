-- Made by `headrace export sql`; each statement may be run again.

DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'headrace_writer') THEN
        CREATE ROLE headrace_writer NOLOGIN;
    END IF;
END $$;

DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'headrace_reader') THEN
        CREATE ROLE headrace_reader NOLOGIN;
    END IF;
END $$;

CREATE SCHEMA IF NOT EXISTS "headrace";

CREATE TABLE IF NOT EXISTS "headrace"."_headrace_cursors" (
    table_name text PRIMARY KEY,
    store_id text NOT NULL,
    replica text NOT NULL,
    generation bigint NOT NULL,
    epoch bigint NOT NULL,
    through bigint NOT NULL,
    after bigint NOT NULL,
    begun bigint NOT NULL,
    sweep_below bigint NOT NULL,
    rounds bigint NOT NULL DEFAULT 0,
    kept_below bigint NOT NULL DEFAULT 0,
    written_at timestamptz NOT NULL DEFAULT now()
);

ALTER TABLE "headrace"."_headrace_cursors" ADD COLUMN IF NOT EXISTS rounds bigint NOT NULL DEFAULT 0;

ALTER TABLE "headrace"."_headrace_cursors" ADD COLUMN IF NOT EXISTS kept_below bigint NOT NULL DEFAULT 0;

CREATE TABLE IF NOT EXISTS "headrace"."service_health" (
    "window_start" timestamp with time zone,
    "window_end" timestamp with time zone,
    "service" text,
    "lines" bigint,
    "errors" bigint,
    "error_share" double precision,
    "p50_ms" double precision,
    "p95_ms" double precision,
    "p99_ms" double precision,
    "last_event_at" timestamp with time zone,
    "_version" bigint NOT NULL,
    "updated_at" timestamp with time zone NOT NULL DEFAULT now(),
    "epoch" bigint GENERATED ALWAYS AS ("_version" & 1099511627775) STORED,
    UNIQUE NULLS NOT DISTINCT ("window_start", "service")
);

CREATE INDEX IF NOT EXISTS "service_health_by_service" ON "headrace"."service_health" ("service", "window_start" DESC);

CREATE TABLE IF NOT EXISTS "headrace"."click_traffic" (
    "window_start" timestamp with time zone,
    "window_end" timestamp with time zone,
    "page" text,
    "clicks" bigint,
    "users" bigint,
    "average_s_on_page" double precision,
    "_version" bigint NOT NULL,
    "updated_at" timestamp with time zone NOT NULL DEFAULT now(),
    "epoch" bigint GENERATED ALWAYS AS ("_version" & 1099511627775) STORED,
    UNIQUE NULLS NOT DISTINCT ("window_start", "page")
);

CREATE INDEX IF NOT EXISTS "click_traffic_by_page" ON "headrace"."click_traffic" ("page", "window_start" DESC);

CREATE TABLE IF NOT EXISTS "headrace"."transaction_totals" (
    "window_start" timestamp with time zone,
    "window_end" timestamp with time zone,
    "currency" text,
    "status" text,
    "transactions" bigint,
    "amount" numeric(38,2),
    "mean_latency_ms" double precision,
    "p95_latency_ms" double precision,
    "_version" bigint NOT NULL,
    "updated_at" timestamp with time zone NOT NULL DEFAULT now(),
    "epoch" bigint GENERATED ALWAYS AS ("_version" & 1099511627775) STORED,
    UNIQUE NULLS NOT DISTINCT ("window_start", "currency", "status")
);

CREATE INDEX IF NOT EXISTS "transaction_totals_by_currency_status" ON "headrace"."transaction_totals" ("currency", "status", "window_start" DESC);

CREATE TABLE IF NOT EXISTS "headrace"."account_risk" (
    "window_start" timestamp with time zone,
    "window_end" timestamp with time zone,
    "account" text,
    "transactions" bigint,
    "failed" bigint,
    "amount" numeric(38,2),
    "_version" bigint NOT NULL,
    "updated_at" timestamp with time zone NOT NULL DEFAULT now(),
    "epoch" bigint GENERATED ALWAYS AS ("_version" & 1099511627775) STORED,
    UNIQUE NULLS NOT DISTINCT ("window_start", "account")
);

CREATE INDEX IF NOT EXISTS "account_risk_by_account" ON "headrace"."account_risk" ("account", "window_start" DESC);

CREATE TABLE IF NOT EXISTS "headrace"."risky_accounts" (
    "window_start" timestamp with time zone,
    "window_end" timestamp with time zone,
    "account" text,
    "transactions" bigint,
    "failed" bigint,
    "amount" numeric(38,2),
    "reason" text,
    "_version" bigint NOT NULL,
    "updated_at" timestamp with time zone NOT NULL DEFAULT now(),
    "epoch" bigint GENERATED ALWAYS AS ("_version" & 1099511627775) STORED,
    UNIQUE NULLS NOT DISTINCT ("window_start", "account")
);

CREATE INDEX IF NOT EXISTS "risky_accounts_by_account" ON "headrace"."risky_accounts" ("account", "window_start" DESC);

CREATE TABLE IF NOT EXISTS "headrace"."malformed_by_minute" (
    "minute" timestamp with time zone,
    "reason" text,
    "malformed" bigint,
    "records" bigint,
    "share" double precision,
    "_version" bigint NOT NULL,
    "updated_at" timestamp with time zone NOT NULL DEFAULT now(),
    "epoch" bigint GENERATED ALWAYS AS ("_version" & 1099511627775) STORED,
    UNIQUE NULLS NOT DISTINCT ("minute", "reason")
);

CREATE INDEX IF NOT EXISTS "malformed_by_minute_by_reason" ON "headrace"."malformed_by_minute" ("reason", "minute" DESC);

GRANT USAGE ON SCHEMA "headrace" TO headrace_writer, headrace_reader;

GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA "headrace" TO headrace_writer;

GRANT SELECT ON ALL TABLES IN SCHEMA "headrace" TO headrace_reader;

ALTER DEFAULT PRIVILEGES IN SCHEMA "headrace" GRANT SELECT ON TABLES TO headrace_reader;

