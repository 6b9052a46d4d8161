"""Records that were given back and set aside again: the letter of the last try, for the letters before it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from headrace.operate.redrive import Address
from headrace.store.names import text_literal
from headrace.store.reading import LETTER_ACCEPTED, LETTER_RECORD
from headrace.web.page.sources import PageSources

__all__ = ["GROUPS_SQL", "last_tries"]

# A try in the redrive lane that failed. Few, so that their records are what others are compared with.
_TRIES = f"""
    SELECT stream AS of_stream, {LETTER_RECORD} AS of_record, epoch AS last_epoch, lane AS last_lane,
           "partition" AS last_partition, "offset" AS last_offset,
           outcome AS last_outcome, reasons AS last_reasons
    FROM dead_letters WHERE lane <> 'main'
    QUALIFY row_number() OVER (
        PARTITION BY of_stream, of_record ORDER BY epoch DESC, "partition" DESC, "offset" DESC) = 1
"""
_LATER = '(lane = \'main\' OR (epoch, "partition", "offset") < (last_epoch, last_partition, last_offset))'

GROUPS_SQL = f"""
    SELECT stream, outcome, coalesce(reasons[1].rule, '') AS rule, count(*) AS records,
           count(*) FILTER (WHERE accepted) AS accepted,
           count(*) FILTER (WHERE NOT accepted AND last_epoch IS NOT NULL AND {_LATER}) AS again,
           min(record_time) AS first, max(record_time) AS last,
           max_by(coalesce(reasons[1].detail, ''), record_time) AS detail,
           max_by(stream || CASE WHEN lane = 'main' THEN '' ELSE '@' || lane END || ':' || "partition" || ':'
                  || "offset", record_time) AS sample
    FROM (SELECT *, {LETTER_RECORD} AS record, {LETTER_ACCEPTED} AS accepted FROM dead_letters) letters
    LEFT JOIN ({_TRIES}) tries ON of_stream = stream AND of_record = record
    GROUP BY ALL ORDER BY records DESC, stream, outcome, rule
"""
"""Groups of dead letters by stream, outcome and first rule, as `models_records.DeadLetterGroup` has them."""


def last_tries(sources: PageSources, letters: Iterable[Address]) -> dict[Address, dict[str, Any]]:
    """Return of letters whose record was given back since and set aside again: the last letter of it.

    With `address`, `outcome` and `reasons`.
    """
    asked = [(each.stream, each.lane, each.partition, each.offset) for each in letters]
    if not asked:
        return {}
    places = ", ".join(
        f"({text_literal(stream)}, {text_literal(lane)}, {partition}, {offset})"
        for stream, lane, partition, offset in asked
    )
    offsets = ", ".join(str(offset) for offset in sorted({each[3] for each in asked}))
    # The offsets alone leave out most letters, at a fraction of what it costs to compare addresses.
    found = sources.records(
        f"""
        SELECT stream, lane, "partition", "offset", last_lane, last_partition, last_offset, last_outcome,
               last_reasons
        FROM (SELECT *, {LETTER_RECORD} AS record FROM dead_letters
              WHERE "offset" IN ({offsets}) AND (stream, lane, "partition", "offset") IN ({places})) letters
        JOIN ({_TRIES}) tries ON of_stream = stream AND of_record = record
        WHERE {_LATER}
        """,
        rows_max=len(asked),
    )
    return {
        Address.of(each): {
            "address": str(
                Address(each["stream"], each["last_lane"], each["last_partition"], each["last_offset"])
            ),
            "outcome": each["last_outcome"],
            "reasons": each["last_reasons"] or [],
        }
        for each in found
    }
