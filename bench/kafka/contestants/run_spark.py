"""Spark Structured Streaming: local[2], RocksDB state, tuned by hand; the tables as one would write them.

Two partitions of shuffle for two cores; as few fields decoded as the tables need; large micro-batches; no
web page. Every table is a query of its own, as Spark wants it; they share the two cores. What changed goes
to the driver as Arrow, and that is all that is done with it. Rows as such are files that executors write.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"

import pyarrow as pa
import pyarrow.parquet as pq
from marks import TASK, begin, end, passed, write
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

OUT = Path(TASK["out"])
KEY = TASK["key"]
CORE = "event_type STRING, timestamp STRING"
ITEMS = "items ARRAY<STRUCT<product_id: STRING, quantity: INT, price: DECIMAL(12,2)>>"
WATERMARK = "10 minutes"
TAIL_USER = "user_last"


def session() -> SparkSession:
    settings = {
        "spark.jars": ",".join(TASK["jars"]),
        "spark.sql.shuffle.partitions": "2",
        "spark.default.parallelism": "2",
        "spark.sql.streaming.stateStore.providerClass":
            "org.apache.spark.sql.execution.streaming.state.RocksDBStateStoreProvider",
        "spark.sql.streaming.stateStore.rocksdb.changelogCheckpointing.enabled": "true",
        "spark.sql.streaming.metricsEnabled": "false",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.adaptive.enabled": "false",
        "spark.ui.enabled": "false",
        "spark.driver.memory": "3g",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.scheduler.mode": "FAIR",
        "spark.sql.ansi.enabled": "false",
        "spark.local.dir": str(OUT / "local"),
    }  # fmt: skip
    builder = SparkSession.builder.master("local[2]").appName("peer")
    for name, value in settings.items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    return spark


def rows(spark: SparkSession, stream: dict, columns: str) -> DataFrame:
    """Return the records of a topic that are neither late nor of the future, with their event time `at`."""
    records = (
        spark.readStream.format("kafka")
        .option("kafka.bootstrap.servers", TASK["brokers"])
        .option("subscribe", stream["topic"])
        .option("startingOffsets", "earliest")
        .option("maxOffsetsPerTrigger", str(TASK["batch_rows"]))
        .load()
    )
    fields = F.from_json(F.col("value").cast("string"), f"{CORE}, {columns}").alias("row")
    decoded = records.select(fields, F.col("timestamp").alias("record_time")).select("row.*", "record_time")
    at = F.col("timestamp").cast("timestamp")
    return (
        decoded.withColumn("at", at)
        .drop("timestamp")
        .where("at >= record_time - INTERVAL 5 MINUTES AND at <= record_time + INTERVAL 1 MINUTE")
        .drop("record_time")
    )


def known(spark: SparkSession, stream: dict, columns: str) -> DataFrame:
    """Return the records of the shop with a known type and device, copies too."""
    types = "'user_login', 'page_view', 'item_click', 'cart_add', 'purchase', 'search'"
    return (
        rows(spark, stream, f"event_id STRING, device STRING, rating INT, {columns}")
        .where(f"event_type IN ({types}) AND device IN ('mobile', 'desktop', 'tablet')")
        .where("rating IS NULL OR rating BETWEEN 1 AND 5")
    )


def accepted(spark: SparkSession, stream: dict, columns: str) -> DataFrame:
    """Return the records of the shop that count, each once."""
    frame = known(spark, stream, columns).withWatermark("at", WATERMARK)
    return frame.dropDuplicates(["event_id", "at"])


def windowed(frame: DataFrame, size: str, slide: str | None, keys: list[str], *sums: F.Column) -> DataFrame:
    window = F.window("at", size, slide) if slide else F.window("at", size)
    bounds = [F.col("window.start").alias("window_start"), F.col("window.end").alias("window_end")]
    return frame.groupBy(window.alias("window"), *keys).agg(*sums).select(*bounds, "*").drop("window")


def count_if(condition: str) -> F.Column:
    return F.count(F.expr(f"CASE WHEN {condition} THEN 1 END"))


def events() -> F.Column:
    return F.count("*").alias("events")


def users(name: str = "users") -> F.Column:
    return F.size(F.collect_set("user_id")).cast("long").alias(name)


def revenue() -> F.Column:
    purchased = F.expr("CASE WHEN event_type = 'purchase' THEN total_amount END")
    return F.coalesce(F.sum(purchased), F.lit(0)).alias("revenue")


def user_activity(frame: DataFrame) -> DataFrame:
    return windowed(
        frame, "5 minutes", "1 minute", ["user_id"], events(),
        count_if("event_type = 'page_view'").alias("pages"),
        count_if("event_type = 'item_click'").alias("clicks"),
        count_if("event_type = 'purchase'").alias("purchases"),
        F.max_by("event_type", "at").alias("last_event"), F.max("at").alias("last_event_at"),
    )  # fmt: skip


def purchase_analytics(frame: DataFrame) -> DataFrame:
    return windowed(
        frame.where("event_type = 'purchase'"), "10 minutes", None, [],
        F.count("*").alias("orders"), F.sum("total_amount").alias("revenue"),
        F.avg("total_amount").alias("average_order"), F.max("total_amount").alias("largest_order"),
        users("buyers"),
    )  # fmt: skip


def sessions(frame: DataFrame) -> DataFrame:
    grouped = frame.groupBy(F.session_window("at", "30 minutes"), "user_id").agg(
        F.min("at").alias("session_start"), F.max("at").alias("session_end"), events(),
        F.bool_or(F.expr("event_type = 'purchase'")).alias("converted"),
    )  # fmt: skip
    length = F.expr(
        "date_diff(SECOND, date_trunc('SECOND', session_start), date_trunc('SECOND', session_end))"
    )
    return grouped.select(
        "user_id", "session_start", "session_end", length.alias("length_s"), "events", "converted"
    )


def product_popularity(frame: DataFrame) -> DataFrame:
    seen = frame.where("event_type IN ('page_view', 'item_click', 'cart_add') AND product_id IS NOT NULL")
    kinds = {"views": "page_view", "clicks": "item_click", "carts": "cart_add"}
    sums = [count_if(f"event_type = '{kind}'").alias(name) for name, kind in kinds.items()]
    return windowed(seen, "1 hour", None, ["product_id"], *sums)


def product_sales(frame: DataFrame) -> DataFrame:
    bought = frame.where("event_type = 'purchase'").select("at", F.explode("items").alias("item"))
    items = bought.select("at", "item.product_id", "item.quantity", "item.price")
    return windowed(
        items, "1 hour", None, ["product_id"],
        F.sum("quantity").alias("bought"), F.sum(F.expr("quantity * price")).alias("revenue"),
    )  # fmt: skip


def by(key: str) -> Callable[[DataFrame], DataFrame]:
    return lambda frame: windowed(frame, "5 minutes", None, [key], events(), users(), revenue())


MONEY = "user_id STRING, total_amount DECIMAL(12,2)"
CLEAN = (
    "user_id STRING, location STRING, session_id STRING, page STRING, product_id STRING, category STRING, "
    f"price DECIMAL(12,2), quantity INT, order_id STRING, {ITEMS}, total_amount DECIMAL(12,2), "
    "payment_method STRING, query STRING, results INT, method STRING, success BOOLEAN"
)
TABLES: dict[str, tuple[str, Callable[[DataFrame], DataFrame], list[str]]] = {
    "event_counts": (
        "user_id STRING",
        lambda frame: windowed(frame, "1 minute", None, ["event_type"], events(), users()),
        ["window_start", "window_end", "event_type"],
    ),
    "user_activity": ("user_id STRING", user_activity, ["window_start", "window_end", "user_id"]),
    "purchase_analytics": (MONEY, purchase_analytics, ["window_start", "window_end"]),
    "sessions": ("user_id STRING", sessions, []),
    "device_stats": (MONEY, by("device"), ["window_start", "window_end", "device"]),
    "location_stats": (
        f"location STRING, {MONEY}",
        by("location"),
        ["window_start", "window_end", "location"],
    ),
    "product_popularity": (
        "product_id STRING",
        product_popularity,
        ["window_start", "window_end", "product_id"],
    ),
    "product_sales": (ITEMS, product_sales, ["window_start", "window_end", "product_id"]),
}


def start(frame: DataFrame, place: str, keep: Callable[[DataFrame, int], None], mode: str = "update"):
    return (
        frame.writeStream.outputMode(mode)
        .option("checkpointLocation", str(OUT / "checkpoints" / place))
        .trigger(availableNow=True)
        .foreachBatch(keep)
        .start()
    )


def small(spark: SparkSession, stream: dict, place: str) -> tuple[list[pa.Table], list[float]]:
    """Count and add up a topic from start to end; return what each batch changed, and when it ended."""
    frame = rows(spark, stream, "user_id STRING, total_amount DECIMAL(12,2)").withWatermark("at", WATERMARK)
    grouped = frame.groupBy(F.window("at", "1 minute").alias("window"), F.col(KEY).alias("name")).agg(
        events(), F.sum("total_amount").alias("revenue")
    )
    result = grouped.select(
        (F.unix_timestamp("window.start") * 1000).alias("window_ms"), "name", "events",
        F.coalesce((F.col("revenue") * 100).cast("long"), F.lit(0)).alias("cents"),
    )  # fmt: skip
    kept: list[pa.Table] = []
    ends: list[float] = []

    def keep(batch: DataFrame, number: int) -> None:
        kept.append(batch.toArrow())
        ends.append(passed())

    start(result, place, keep).awaitTermination()
    return kept, ends


def clean(frame: DataFrame, place: str):
    """Start the query that writes rows as files."""
    added = "CAST(total + item.quantity * item.price AS DECIMAL(30,2))"
    items_total = F.expr(f"aggregate(items, CAST(0 AS DECIMAL(30,2)), (total, item) -> {added})")
    files = str(OUT / f"clean-{place}")
    return start(
        frame.withColumn("items_total", items_total),
        f"{place}-clean",
        lambda batch, number: batch.write.mode("append").parquet(files),
        "append",
    )


def commerce(spark: SparkSession, stream: dict, place: str) -> dict[str, list[pa.Table]]:
    """Run every table over a topic from start to end; return what each batch changed."""
    kept: dict[str, list[pa.Table]] = {name: [] for name in TABLES}
    queries = []
    for name, (columns, table, _) in TABLES.items():
        queries.append(
            start(
                table(accepted(spark, stream, columns)), f"{place}-{name}",
                lambda batch, number, name=name: kept[name].append(batch.toArrow()),
                "append" if name == "sessions" else "update",
            )
        )  # fmt: skip
    queries.append(clean(accepted(spark, stream, CLEAN), place))
    for query in queries:
        query.awaitTermination()
    return kept


def write_commerce(kept: dict[str, list[pa.Table]], spark: SparkSession) -> None:
    """Write the last state of every group as a file per table."""
    for name, tables in kept.items():
        whole = pa.concat_tables(
            [each.append_column("_n", pa.array([n] * len(each), pa.int32())) for n, each in enumerate(tables)]
        )
        if keys := TABLES[name][2]:
            last = whole.group_by(keys).aggregate([("_n", "max")]).rename_columns([*keys, "_n"])
            whole = whole.join(last, keys=[*keys, "_n"], join_type="inner")
        pq.write_table(whole.drop_columns(["_n"]), OUT / f"{name}.parquet")
    write_clean(spark)


def write_clean(spark: SparkSession) -> None:
    """Write of the rows what is compared."""
    files = spark.read.parquet(str(OUT / "clean-measured"))
    rows = files.selectExpr("event_id", "at AS timestamp", "items_total")
    pq.write_table(rows.toArrow(), OUT / "events_clean.parquet")
    shutil.rmtree(OUT / "clean-measured")


def main() -> None:
    """Warm up, measure, write."""
    spark = session()
    java = spark.sparkContext._jvm.java.lang.System.getProperty("java.version")
    facts = {"spark": spark.version, "java": java}
    if TASK["case"] in ("intake", "filter"):
        taken = accepted if TASK["case"] == "intake" else known
        clean(taken(spark, TASK["warm"], CLEAN), "warm").awaitTermination()
        begin()
        query = clean(taken(spark, TASK["stream"], CLEAN), "measured")
        query.awaitTermination()
        end(batches=len(query.recentProgress), **facts)
        write_clean(spark)
    elif TASK["case"] == "commerce":
        commerce(spark, TASK["warm"], "warm")
        begin()
        kept = commerce(spark, TASK["stream"], "measured")
        end(batches=max(len(tables) for tables in kept.values()), **facts)
        write_commerce(kept, spark)
    else:
        small(spark, TASK["warm"], "warm")
        begin()
        changed, ends = small(spark, TASK["stream"], "measured")
        end(batches=len(changed), batch_ends=ends, **facts)
        last: dict = {}
        for table in changed:
            for window, name, count, total in zip(
                *(column.to_pylist() for column in table.columns), strict=True
            ):
                last[window, name] = (count, total)
        write((window, name, *sums) for (window, name), sums in last.items())
    spark.stop()


main()
