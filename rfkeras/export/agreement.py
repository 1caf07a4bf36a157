"""How far a converted model is from the one that it was made of.

Compared are all three outputs, on audio of several lengths and batch sizes, with the Keras
model's own graph on the CPU. How much a score may differ depends on what was rounded:

float32: 1e-5. The same numbers in another order; seen were 2e-6 and less.
float16: 5e-3. Weights keep 11 binary digits, so one is off by 2.4e-4 of itself on average,
    and their errors partly cancel; seen were 1e-3 and less.
int8: 0.1, of a frame 0.2, and tags in the same order to 0.9. Weights and maps keep 8 digits;
    the ready `resnet_rf_tiny`, calibrated on its own data, moved no clip's score by more than
    0.054 in 51 batches, at a correlation of 0.987. What counts most is the order of a clip's
    tags, as Spearman's correlation of its scores, on average over the clips.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rfkeras.export.portable import Arrays, PortableModel
from rfkeras.export.verify import ExportError

TOLERANCES = {"float32": 1e-5, "float16": 5e-3, "int8": 0.1}
FRAME_TOLERANCES = {**TOLERANCES, "int8": 0.2}
LEAST_RANKING = {"float32": 0.0, "float16": 0.0, "int8": 0.9}
EMBEDDING_TOLERANCES = {"float32": 1e-3, "float16": 2e-2, "int8": 0.5}

Run = Callable[[NDArray[np.float32]], Arrays]


@dataclass(frozen=True)
class Agreement:
    """Differences between a converted model and its source.

    Attributes:
        score: Largest difference of a clip's score.
        frame_score: Largest difference of a frame's score.
        embedding: Largest difference of an embedding, as a share of the largest value.
        ranking: Spearman's correlation of each clip's scores, averaged over clips; 1 is the
            same order.
        n_batches: Batches compared.
    """

    score: float
    frame_score: float
    embedding: float
    ranking: float
    n_batches: int


def compare(
    portable: PortableModel, run: Run, batches: Sequence[NDArray[np.float32]]
) -> Agreement:
    """Compare on some batches.

    Args:
        portable: The model.
        run: The converted one: from a batch to its outputs by name.
        batches: Inputs.

    Raises:
        ExportError: Outputs differ in shape.
    """
    largest = dict.fromkeys(("scores", "frame_scores", "embedding"), 0.0)
    rankings: list[float] = []
    for batch in batches:
        expected, got = portable.expect(batch), run(batch)
        for name in largest:
            if expected[name].shape != got[name].shape:
                raise ExportError(
                    f"The converted model's {name} have the shape {got[name].shape} for an "
                    f"input {batch.shape}; those of the model {expected[name].shape}."
                )
            scale = np.abs(expected[name]).max() if name == "embedding" else 1.0
            difference = np.abs(expected[name].astype(np.float64) - got[name]).max()
            # max() of Python would lose a NaN.
            largest[name] = float(np.maximum(largest[name], difference / (scale or 1.0)))
        rankings += _rank_correlations(expected["scores"], got["scores"])
    return Agreement(
        largest["scores"],
        largest["frame_scores"],
        largest["embedding"],
        float(np.mean(rankings)) if rankings else 1.0,
        len(batches),
    )


def check(agreement: Agreement, precision: str) -> None:
    """Refuse a converted model that is too far from its source.

    Raises:
        ExportError: A difference is over what rounding to that precision explains.
    """
    for name, value, bound in (
        ("score", agreement.score, TOLERANCES[precision]),
        ("score of a frame", agreement.frame_score, FRAME_TOLERANCES[precision]),
        ("embedding's share", agreement.embedding, EMBEDDING_TOLERANCES[precision]),
    ):
        if not value <= bound:  # so that NaN is refused too
            raise ExportError(
                f"The converted {precision} model differs from its source by {value:.2g} in a "
                f"{name}; at most {bound:.2g} is allowed. Nothing was written."
            )
    if agreement.ranking < LEAST_RANKING[precision]:
        raise ExportError(
            f"The converted {precision} model ranks a clip's tags differently: correlation "
            f"{agreement.ranking:.2f}, at least {LEAST_RANKING[precision]} is wanted. Nothing "
            "was written. Calibrate with more audio of the kind that it will hear, or take "
            "float16."
        )


def _rank_correlations(first: NDArray[np.float32], second: NDArray[np.float32]) -> list[float]:
    """Spearman's correlation of each row; rows of one class, or all equal, left out."""
    correlations = []
    for a, b in zip(first, second, strict=True):
        if len(a) > 1 and np.ptp(a) > 0:
            ranks = np.argsort(np.argsort(np.stack([a, b]), kind="stable"), kind="stable")
            correlations.append(float(np.corrcoef(ranks)[0, 1]))
    return correlations
