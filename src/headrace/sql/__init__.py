"""The user's SQL, taken apart into row, aggregate and result part; the only room that reads a query."""

from headrace.sql.explain import explain_table
from headrace.sql.planner import plan_pipeline

__all__ = ["explain_table", "plan_pipeline"]
