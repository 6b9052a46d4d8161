"""The model, as a function that takes columns. `pipeline.py` declares it for SQL."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime  # here, not where it is used: where it is missing, every record would be set aside
import pyarrow as pa


class Model:
    """A model of ONNX. Its bytes travel to Spark's executors, and each process opens it once."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._opened: Any = None

    def __reduce__(self) -> tuple[Any, ...]:
        return Model, (self._data,)  # an open session cannot travel

    def _session(self) -> Any:
        if self._opened is None:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 1  # the engine has its own threads
            providers = ["CPUExecutionProvider"]
            self._opened = onnxruntime.InferenceSession(self._data, options, providers=providers)
        return self._opened

    def scores(self, columns: list[pa.Array]) -> pa.Array:
        """Return one score for each row; NULL where a value is."""
        rows = np.column_stack([column.to_numpy(zero_copy_only=False).astype(float) for column in columns])
        known = ~np.isnan(rows).any(axis=1)
        found = np.zeros(len(rows))
        if known.any():
            found[known] = self._session().run(None, {"payments": rows[known]})[0][:, 0]
        # What a processor makes of the last digits may depend on how many rows come together.
        return pa.array(found.round(3), pa.float64(), mask=~known)


MODEL = Model(Path(__file__).with_name("trouble.onnx").read_bytes())


def trouble(amount: pa.Array, latency_ms: pa.Array, failed: pa.Array) -> pa.Array:
    """Return how much each payment looks like one of an incident, from 0 to 1."""
    return MODEL.scores([amount, latency_ms, failed])
