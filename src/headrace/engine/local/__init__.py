"""The local engine: one process, one transaction per epoch."""

from headrace.engine.local.engine import LocalEngine
from headrace.engine.local.settings import EngineSettings, EpochReport

__all__ = ["EngineSettings", "EpochReport", "LocalEngine"]
