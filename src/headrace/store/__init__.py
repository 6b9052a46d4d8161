"""The store: one DuckDB file with the tables.

The ledger, the dead letters and how far everything has come.
"""

from headrace.store.ledger import LaneLedger, Ledger, PartitionStatus, StoreStatus, TableLedger, TableStatus
from headrace.store.reading import ReadStore, open_store_readonly
from headrace.store.store import Store

__all__ = [
    "LaneLedger",
    "Ledger",
    "PartitionStatus",
    "ReadStore",
    "Store",
    "StoreStatus",
    "TableLedger",
    "TableStatus",
    "open_store_readonly",
]
