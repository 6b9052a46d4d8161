from oracle_words import Grouped, Plain, Stream, aggregate, column, columns, integer, same, text

STREAMS = [Stream("events", columns(user=text, n=integer))]
TABLES = {
    "totals": Grouped(
        "events", same("user", "total"), {"total": aggregate("sum", column("n"))}, keys=same("user")
    ),
    "last": Plain("events", same("user", "n"), key=["user"]),
}
