"""Which variables of a model are kernels."""

from __future__ import annotations

from typing import Any


def is_kernel(variable: Any) -> bool:
    """Whether a variable is a kernel, which decays and is pruned.

    A kernel has more than one dimension and is no bias: Keras keeps the two biases of a GRU
    in one variable of shape (2, 3 * units).
    """
    name = variable.path.rpartition("/")[2]
    return len(variable.shape) > 1 and not name.endswith("bias")
