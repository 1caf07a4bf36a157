"""Weights with which every part of folding affects the outputs."""

import numpy as np


def scatter(model, seed=0):
    """Set random weights and statistics, except in the front-end."""
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
    """Return the largest difference relative to the largest expected value."""
    got, expected = np.asarray(got, np.float64), np.asarray(expected, np.float64)
    assert got.shape == expected.shape
    return np.abs(got - expected).max() / np.abs(expected).max()
