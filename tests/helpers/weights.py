"""Weights with which every part of a folding shows."""

import numpy as np


def scatter(model, seed=0):
    """Random weights and statistics, far from those of a new model; its front-end keeps its."""
    rng = np.random.default_rng(seed)
    for variable in model.variables:
        name, shape = variable.path.rpartition("/")[2], tuple(variable.shape)
        if variable.dtype != "float32" or "frontend" in variable.path:
            continue
        if name == "moving_variance":
            values = rng.uniform(0.3, 3.0, shape)
        elif name == "gamma":
            values = rng.uniform(0.5, 1.5, shape) * rng.choice([-1, 1], shape)
        elif len(shape) == 4:
            values = rng.normal(0, (2 / np.prod(shape[:3])) ** 0.5, shape)
        else:
            values = rng.normal(0, 0.3, shape)
        variable.assign(values)
    return model


def largest_difference(got, expected):
    """As a share of the largest expected value."""
    got, expected = np.asarray(got, np.float64), np.asarray(expected, np.float64)
    assert got.shape == expected.shape
    return np.abs(got - expected).max() / np.abs(expected).max()
