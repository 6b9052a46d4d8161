"""The user's SQL, taken apart into row, aggregate and result part; the only room that reads a query."""

from headrace.sql.planner import plan_pipeline

__all__ = ["plan_pipeline"]
