"""The two parts of a model between which the effective receptive field is measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rfkeras.errors import ConfigError
from rfkeras.receptive_field.arithmetic import AxisField
from rfkeras.receptive_field.effective.windows import AxisMap
from rfkeras.receptive_field.units import SpectrogramScale


@dataclass(frozen=True)
class Split:
    """The two parts of a model.

    Attributes:
        model: The whole.
        front: From the model's input to the spectrogram; None where the input is one.
        body: From the spectrogram, (batch, time, mel, channels) or (batch, time, mel), to
            the map, (batch, time', mel', channels) or (batch, time', channels).
        label_names: Tags of the map's channels; None where they are not known.
        scale: The spectrogram's units; None where they are not known.
    """

    model: Any
    front: Any | None
    body: Any
    label_names: tuple[str, ...] | None
    scale: SpectrogramScale | None

    def batches(self, inputs: Any, size: int) -> list[NDArray[np.float32]]:
        """The inputs cut into batches of at most that size.

        Raises:
            ConfigError: They do not fit the model, are empty or not finite, or size < 1.
        """
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ConfigError(
                f"clips_at_once must be a whole number of at least 1. Received: {size!r}."
            )
        wanted = tuple(self.model.inputs[0].shape)
        try:
            array = np.asarray(inputs, np.float32)
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"inputs must be one array of numbers, (clips, ...), all clips of one "
                f"length. Received: {error}."
            ) from error
        fits = array.ndim == len(wanted) and all(
            want in (None, have) for want, have in zip(wanted[1:], array.shape[1:], strict=True)
        )
        if not fits or 0 in array.shape:
            shown = ", ".join("any" if size is None else str(size) for size in wanted[1:])
            raise ConfigError(
                f"inputs must be an array (clips, {shown}), as model {self.model.name!r} "
                f"takes them. Received: shape {array.shape}."
            )
        if not np.isfinite(array).all():
            raise ConfigError("inputs must be finite. Received: an array with NaN or infinity.")
        return [array[at : at + size] for at in range(0, len(array), size)]

    def spectrogram(self, batch: Any) -> Any:
        """A batch of inputs as spectrograms, float32."""
        if self.front is None:
            return batch
        from keras import ops

        return ops.cast(self.front(batch, training=False), "float32")

    def geometry(self, shape: Sequence[int]) -> tuple[tuple[AxisMap, AxisMap], int]:
        """The map over a spectrogram (batch, frames, bands, ...) of that shape.

        Returns:
            Its time and frequency axes, and its number of channels.

        Raises:
            ConfigError: The spectrogram is too small for the model.
        """
        from rfkeras.receptive_field.model import receptive_field

        too_small = (
            f"{shape[1]} frames and {shape[2]} bands leave no position on the map: model "
            f"{self.model.name!r} needs longer inputs."
        )
        try:
            output = self.body.compute_output_shape((1, *shape[1:]))
        except (ValueError, ZeroDivisionError) as error:
            raise ConfigError(f"{too_small} ({error})") from error
        lengths = (output[1], output[2] if len(output) == 4 else 1)
        if min(lengths) < 1:
            raise ConfigError(too_small)
        exact = receptive_field(self.body, input_shape=tuple(shape[1:]))
        time, frequency = (
            self._axis(*parts, pooled=exact.pooled_by is not None)
            for parts in zip(
                (exact.time, exact.frequency), exact.positions, lengths, shape[1:3], strict=True
            )
        )
        return (time, frequency), output[-1]

    def _axis(
        self,
        field: AxisField | None,
        known: int | None,
        length: int,
        pixels: int,
        pooled: bool,
    ) -> AxisMap:
        """One axis of the map, which has `length` positions; `known` are those of the field.

        Raises:
            ConfigError: The map's axes are in another order.
        """
        if pooled and length == 1 and known not in (None, 1):
            field = None  # the one position sees what was pooled into it: everything
        elif known not in (None, length):
            raise ConfigError(
                f"The map of model {self.model.name!r} must be (batch, time, frequency, "
                f"channels). Received a map with {length} positions where {known} of them "
                "see windows of their own."
            )
        return AxisMap(field, length, pixels)
