"""The proof that both engines give the same answers, over records that were recorded."""

from headrace.operate.verify.page import told_differences, verdict_page
from headrace.operate.verify.slices import RECORDS_MAX, OffsetRange, Recorded, Wanted, read_file, slice_logs
from headrace.operate.verify.verdict import Verdict
from headrace.operate.verify.verifying import Progress, verify

__all__ = [
    "RECORDS_MAX",
    "OffsetRange",
    "Progress",
    "Recorded",
    "Verdict",
    "Wanted",
    "read_file",
    "slice_logs",
    "told_differences",
    "verdict_page",
    "verify",
]
