"""The row stage: bytes to outcomes (DESIGN: one code for both engines)."""

from headrace.rows.result import DEAD_SCHEMA, RULE_SCHEMA, Outcome, RowResult
from headrace.rows.stage import RowStage

__all__ = ["DEAD_SCHEMA", "RULE_SCHEMA", "Outcome", "RowResult", "RowStage"]
