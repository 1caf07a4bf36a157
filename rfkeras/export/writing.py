"""What the exports to single files share: their arguments, the check, the file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rfkeras.data.audio_format import AudioFormat
from rfkeras.errors import ConfigError, unknown_name
from rfkeras.export.agreement import TOLERANCES, Agreement, Run, check, compare
from rfkeras.export.calibration import synthetic_excerpts, trial_batches
from rfkeras.export.portable import PortableModel
from rfkeras.files import replacing

PRECISIONS = tuple(TOLERANCES)
SYNTHETIC_FRAMES = 300


@dataclass(frozen=True)
class Exported:
    """A file that was written and compared with its model.

    Attributes:
        path: The file.
        size: Bytes.
        precision: "float32", "float16" or "int8".
        operations: How often each operation occurs in it.
        agreement: How far its outputs are from the model's.
    """

    path: Path
    size: int
    precision: str
    operations: dict[str, int]
    agreement: Agreement


class Plan:
    """Arguments of an export, checked.

    Args:
        portable: What is exported.
        precision: One of `PRECISIONS`.
        calibration: Batches that integers are scaled by.
        trial: Batches that are compared; None: the calibration's, or synthetic ones.

    Raises:
        ConfigError: Unknown precision, or int8 without calibration.
    """

    def __init__(
        self,
        portable: PortableModel,
        precision: str,
        calibration: Sequence[NDArray[np.float32]] | None,
        trial: Sequence[NDArray[np.float32]] | None,
    ):
        if precision not in PRECISIONS:
            raise ConfigError(unknown_name("precision", str(precision), PRECISIONS))
        if precision == "int8" and not calibration:
            raise ConfigError(
                "precision='int8' needs calibration=: batches of real audio, by which the "
                "ranges of the integers are set. See rfkeras.export.calibration.read_excerpts."
            )
        self.portable, self.precision = portable, precision
        self.calibration = list(calibration or ())
        self.trial = list(trial or self.calibration or synthetic_batches(portable))


def synthetic_batches(portable: PortableModel) -> list[NDArray[np.float32]]:
    """Inputs where nobody gave audio: tones, or noise in place of a spectrogram."""
    shape = portable.input_shape
    if portable.input_name == "waveform" and "sample_rate_hz" in portable.card:
        audio = AudioFormat(portable.card["sample_rate_hz"], portable.card["channels"])
        return trial_batches(synthetic_excerpts(audio, count=3))
    rng = np.random.default_rng(0)
    free = (SYNTHETIC_FRAMES, SYNTHETIC_FRAMES // 2)
    return [
        rng.normal(size=(batch, *(size or free[i] for i, size in enumerate(shape[1:])))).astype(
            np.float32
        )
        for batch in (1, 2)
    ]


def write_checked(
    plan: Plan,
    path: Path,
    run: Run,
    operations: dict[str, int],
    write: Callable[[Path], None],
) -> Exported:
    """Compare, then write.

    Raises:
        ExportError: The converted model differs too much; nothing is written.
    """
    agreement = compare(plan.portable, run, plan.trial)
    check(agreement, plan.precision)
    with replacing(path) as aside:
        write(aside)
    return Exported(path, path.stat().st_size, plan.precision, operations, agreement)
