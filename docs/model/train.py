# /// script
# dependencies = ["headrace", "numpy", "onnx"]
# ///
"""Trains the model of `scoring.py` and writes it to `trouble.onnx`: `python train.py`, a few seconds.

It learns from the generator of the operations blueprint, which can make incidents on command: what a payment
looks like in a quiet hour, and what one looks like while something is wrong.
"""

import json
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from headrace.blueprints import make_generator

RECORDS, HIDDEN, ROUNDS, STEP = 30_000, 8, 2_000, 0.5


def payments(incident: str | None, seed: int) -> np.ndarray:
    """Return a row of amount, latency in ms and whether it failed for each payment."""
    generator = make_generator("operations", seed=seed, incident=incident)
    found = []
    for value in generator.batch(datetime(2026, 3, 1, tzinfo=UTC), RECORDS, rate=20.0)["value"].to_pylist():
        try:
            record = json.loads(value)
            found.append((float(record["amount"]), float(record["latency_ms"]), record["status"] == "failed"))
        except (ValueError, KeyError, TypeError):
            continue  # another kind of record, or a spoiled one
    return np.array(found, float)


def trained(rows: np.ndarray, wanted: np.ndarray) -> dict[str, np.ndarray]:
    """Return the weights of a network with one hidden layer, found by plain gradient descent."""
    chance = np.random.default_rng(7)
    inputs = np.log1p(np.maximum(rows, 0))
    mean, spread = inputs.mean(0), inputs.std(0)
    inputs = (inputs - mean) / spread
    w1, b1 = chance.normal(0, 0.5, (rows.shape[1], HIDDEN)), np.zeros(HIDDEN)
    w2, b2 = chance.normal(0, 0.5, (HIDDEN, 1)), np.zeros(1)
    for _ in range(ROUNDS):
        hidden = np.tanh(inputs @ w1 + b1)
        given = 1 / (1 + np.exp(-(hidden @ w2 + b2)))
        error = (given - wanted) / len(rows)
        back = (error @ w2.T) * (1 - hidden**2)
        w2, b2 = w2 - STEP * hidden.T @ error, b2 - STEP * error.sum(0)
        w1, b1 = w1 - STEP * inputs.T @ back, b1 - STEP * back.sum(0)
    return {"mean": mean, "spread": spread, "w1": w1, "b1": b1, "w2": w2, "b2": b2}


def written(weights: dict[str, np.ndarray]) -> bytes:
    """Return the model: payments in, the probability of trouble out, in double precision."""
    zero = numpy_helper.from_array(np.zeros(1), "zero")
    one = numpy_helper.from_array(np.ones(1), "one")
    nodes = [
        helper.make_node("Max", ["payments", "zero"], ["positive"]),
        helper.make_node("Add", ["positive", "one"], ["more"]),
        helper.make_node("Log", ["more"], ["logs"]),
        helper.make_node("Sub", ["logs", "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "spread"], ["scaled"]),
        helper.make_node("Gemm", ["scaled", "w1", "b1"], ["sums"]),
        helper.make_node("Tanh", ["sums"], ["hidden"]),
        helper.make_node("Gemm", ["hidden", "w2", "b2"], ["odds"]),
        helper.make_node("Sigmoid", ["odds"], ["trouble"]),
    ]
    graph = helper.make_graph(
        nodes,
        "trouble",
        [helper.make_tensor_value_info("payments", TensorProto.DOUBLE, ["rows", 3])],
        [helper.make_tensor_value_info("trouble", TensorProto.DOUBLE, ["rows", 1])],
        [zero, one, *(numpy_helper.from_array(value, name) for name, value in weights.items())],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()


if __name__ == "__main__":
    quiet = payments(None, 1)
    trouble = np.concatenate([payments("latency", 2), payments("errors", 3)])
    rows = np.concatenate([quiet, trouble])
    wanted = np.concatenate([np.zeros((len(quiet), 1)), np.ones((len(trouble), 1))])
    path = Path(__file__).with_name("trouble.onnx")
    path.write_bytes(written(trained(rows, wanted)))
    sys.stdout.write(f"{path.name}: {path.stat().st_size:,} bytes, from {len(rows):,} payments\n")
