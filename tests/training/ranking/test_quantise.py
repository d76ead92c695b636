"""Rounding to 8 bits and its cost, by hand."""

import numpy as np
import pytest

from recspark.training.ranking import quantise


def test_every_output_unit_has_its_own_step() -> None:
    weights = {"a.weight": np.array([[1.27, -0.5], [127.0, 3.4], [0.0, 0.0]], np.float32), "a.bias": np.ones(2)}
    packed = quantise.pack(weights)
    # the largest of a row is 127 steps: steps of .01 and 1, and a row of zeros stays one
    assert packed["a.weight"].dtype == np.int8
    assert packed["a.weight"].tolist() == [[127, -50], [127, 3], [0, 0]]
    np.testing.assert_allclose(packed["a.weight.step"], [[0.01], [1.0], [0.0]], rtol=1e-6)
    again = quantise.unpack(packed)
    np.testing.assert_allclose(again["a.weight"], [[1.27, -0.5], [127, 3], [0, 0]], rtol=1e-6)
    assert again["a.weight"].dtype == np.float32 and again["a.bias"] is weights["a.bias"]


def test_a_tower_has_a_step_a_column() -> None:
    towers = np.array([[[1.27, 127.0], [-0.5, 3.4]]], np.float32)  # one tower, two inputs, two outputs
    packed = quantise.pack({"towers.weight_GXH": towers, "towers.bias_GH": towers[0]})
    assert packed["towers.weight_GXH"].tolist() == [[[127, 127], [-50, 3]]]
    assert packed["towers.bias_GH"] is not None and "towers.bias_GH.step" not in packed


def test_cost_by_hand() -> None:
    lists = np.array([[0, 0]] * 3 + [[0, 1]] * 2 + [[1, 0]])
    labels = np.array([1, 0, 0, 1, 0, 0])
    exact = np.array([0.9, 0.8, 0.3, 0.7, 0.2, 0.05])
    rounded = np.array([0.9, 0.2, 0.8, 0.2, 0.7, 0.05])
    found = quantise.cost(labels, lists, exact, rounded, k=2)
    # the first list has lost one of its best two; the others have at most two rows: (1 / 2 + 1 + 1) / 3
    assert found["top_overlap"] == pytest.approx(2.5 / 3)
    # of 8 pairs (positive, negative): .7 is below .8, 7 right; then .2 has .8 and .7 above it and ties with .2: 5.5
    assert found["auc_loss"] == pytest.approx((7 - 5.5) / 8)
    assert quantise.cost(labels, lists, exact, exact, k=2) == {"auc_loss": 0.0, "top_overlap": 1.0}
