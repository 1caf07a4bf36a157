"""Find variables that contain NaN or infinity."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np


def first_not_finite(variables: Iterable[Any]) -> str | None:
    """Return the path of the first variable that contains NaN or infinity; None if none does.

    Each variable is reduced on its device, and the results are fetched together.

    Args:
        variables: Keras variables. Those that are not floating-point are skipped.
    """
    import keras
    from keras import ops

    floats = [v for v in variables if keras.backend.is_float_dtype(v.dtype)]
    if not floats:
        return None
    finite = ops.convert_to_numpy(ops.stack([ops.all(ops.isfinite(v)) for v in floats]))
    broken = np.flatnonzero(~finite)
    return None if broken.size == 0 else str(floats[broken[0]].path)
