"""How close a converted model must be to its source."""

import numpy as np
import pytest

from rfkeras.errors import ConfigError
from rfkeras.export import ExportError
from rfkeras.export.single_file import Plan
from rfkeras.export.verify import TOLERANCES, Agreement, check

CLOSE = {"score": 0.0, "frame_score": 0.0, "embedding": 0.0, "ranking": 1.0, "n_batches": 3}


def agreement(**differences):
    return Agreement(**{**CLOSE, **differences})


def test_the_largest_difference_replaces_the_limits_of_a_precision():
    beyond = 2 * TOLERANCES["int8"]
    with pytest.raises(ExportError, match="--max-difference"):
        check(agreement(score=beyond), "int8")
    check(agreement(score=beyond), "int8", max_difference=1.01 * beyond)
    with pytest.raises(ExportError, match="in a score; at most"):
        check(agreement(score=beyond), "int8", max_difference=0.99 * beyond)


@pytest.mark.parametrize(
    "differences", [{"frame_score": 0.9}, {"embedding": 9.0}, {"ranking": 0.1}]
)
def test_only_the_scores_of_clips_count_with_a_largest_difference(differences):
    with pytest.raises(ExportError):
        check(agreement(**differences), "int8")
    check(agreement(**differences), "int8", max_difference=0.5)


def test_nan_is_never_close_enough():
    with pytest.raises(ExportError, match="nan"):
        check(agreement(score=np.nan), "int8", max_difference=1.0)


def test_a_frame_in_float32_beyond_the_limit_has_advice():
    check(agreement(frame_score=1.9e-5), "float32")
    with pytest.raises(ExportError, match=r"2\.1e-05 in a frame score.*--max-difference"):
        check(agreement(frame_score=2.1e-5), "float32")


@pytest.mark.parametrize("value", [-0.1, 1.5, float("nan")])
def test_a_largest_difference_is_a_difference_of_scores(value):
    with pytest.raises(ConfigError, match="max_difference must be 0 to 1"):
        Plan(None, "float32", None, None, value)
