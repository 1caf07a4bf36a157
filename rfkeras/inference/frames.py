"""When a model's frames occur, and how to split audio into chunks that give the same frames."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from math import ceil

import keras
import numpy as np
from numpy.typing import NDArray

from rfkeras.errors import ConfigError
from rfkeras.frontend import find_frontend
from rfkeras.frontend.layer import Frontend
from rfkeras.frontend.presets import SpectrogramScale, scale_of_frontend
from rfkeras.rf import receptive_field
from rfkeras.rf.axis import AxisField
from zoo.tagger import top_head

Times = NDArray[np.float64]


@dataclass(frozen=True)
class FrameTimes:
    """Times of a model's frames, in milliseconds from the start of the audio.

    Each frame is computed from the audio in its window and describes the centre of that window.
    Windows overlap, and reach beyond the audio near its ends. Spans are adjacent.

    Attributes:
        stride_ms: Distance between the centres of two frames.
        first_ms: Centre of the window of frame 0.
        window_ms: Length of a frame's window (the receptive field); None if unlimited.
    """

    stride_ms: float
    first_ms: float
    window_ms: float | None

    def centres_ms(self, n: int) -> Times:
        """Return the window centres of the first n frames, (n,)."""
        return self.first_ms + self.stride_ms * np.arange(n, dtype=np.float64)

    def starts_ms(self, n: int) -> Times:
        """Return the span starts of the first n frames, (n,), half a stride before centres."""
        return np.maximum(self.centres_ms(n) - self.stride_ms / 2, 0.0)

    def ends_ms(self, n: int) -> Times:
        """Return the span ends of the first n frames, (n,), half a stride after centres."""
        return self.centres_ms(n) + self.stride_ms / 2


def frame_times(model: keras.Model) -> FrameTimes | None:
    """Return the times of a tagger's frames.

    Args:
        model: Functional, with a `ClipLogits` layer at its end.

    Returns:
        The times. None for a model without a front-end, whose units are unknown, and for one
        whose number of frames does not depend on the length of the audio.

    Raises:
        ConfigError: The model has no `ClipLogits` layer outside nested models.
    """
    frontend = find_frontend(model)
    return None if frontend is None else FrameGrid(model, frontend).times()


# Length of the spectrogram used to measure layers. Divisible by most frame strides of models.
_SPAN_FRAMES = 2**10 * 3**3 * 5 * 7


class FrameGrid:
    """The frames along time of a model with a front-end.

    Args:
        model: Functional, with a `ClipLogits` layer at its end.
        frontend: The model's front-end.

    Attributes:
        scale: Units of the spectrogram.
        min_samples: The model pads audio shorter than this.
        field: Receptive field along time, in spectrogram frames; None if unlimited or unknown.
        jump: Spectrogram frames between two frames of the model; 0 if longer audio does not
            give more frames.
        reasons: Why chunks do not give the frames of the whole audio; empty if they do.

    Raises:
        ConfigError: The model has no such head, or the number of its frames is unknown.
    """

    def __init__(self, model: keras.Model, frontend: Frontend) -> None:
        self.scale = scale_of_frontend(frontend)
        self.min_samples = frontend.min_samples
        self._model = model
        self._to_map = keras.Model(model.inputs[0], top_head(model).input, name="to_map")
        self._channels = model.inputs[0].shape[2:]
        self.field, reasons = _time_field(model, frontend)
        self.jump = self._measured_jump() if self.field is None else Fraction(self.field.jump)
        if not frontend.fixed_floor:
            reasons.append(
                "the front-end sets its dB floor relative to the loudest point of its input: "
                "create the model with a front-end that has fixed_floor=True"
            )
        self.reasons = tuple(reasons)

    @property
    def overlaps(self) -> bool:
        """Return whether chunks can overlap so that every frame has its whole window."""
        return self.field is not None and not self.field.windows and self.jump > 0

    def count(self, samples: int) -> int:
        """Return the model's number of frames for a waveform of this many samples."""
        shape = self._to_map.compute_output_shape((1, samples, *self._channels))
        if shape[1] is None:
            raise ConfigError(
                f"The number of frames of model {self._to_map.name!r} is unknown: one of its "
                "layers does not implement compute_output_shape."
            )
        return int(shape[1])

    def plan(self, step_seconds: float) -> ChunkPlan:
        """Plan chunks with about this much new audio in each."""
        if self.field is not None and self.overlaps:
            margins = _margins(self._model, self.field, self.scale.hop_samples)
            return overlapping_chunks(
                self.field, self.scale, step_seconds, self.min_samples, margins
            )
        return separate_chunks(
            self.count, self.jump, self.scale, step_seconds, self.min_samples
        )

    def times(self) -> FrameTimes | None:
        """Return the times of the frames.

        Returns:
            The times; None if the number of frames does not depend on the length of the audio.
        """
        if not self.jump:
            return None
        if self.field is None:
            centre, window_ms = float(self.jump - 1) / 2, None
        else:
            first, stop = self.field.window(0)
            centre, window_ms = (first + stop - 1) / 2, self.scale.ms(self.field.size)
        hop_ms = self.scale.hop_ms
        return FrameTimes(float(self.jump) * hop_ms, centre * hop_ms, window_ms)

    def _measured_jump(self) -> Fraction:
        """Measure the jump from the numbers of frames for two lengths."""
        short, long = _SPAN_FRAMES, 2 * _SPAN_FRAMES
        hop = self.scale.hop_samples
        more = self.count(long * hop - 1) - self.count(short * hop - 1)
        return Fraction(_SPAN_FRAMES, more).limit_denominator(64) if more else Fraction(0)


def _time_field(model: keras.Model, frontend: Frontend) -> tuple[AxisField | None, list[str]]:
    """Return (receptive field along time, or None if unusable; reasons against chunks)."""
    try:
        rf = receptive_field(model)
    except ConfigError as error:
        return None, [f"the model's receptive field is unknown: {error}"]
    if rf.time is None or not rf.time.jump:
        why = "".join(f" ({note})" for note in rf.notes[:1] if rf.time is None)
        return None, [f"each frame depends on the whole input of the model{why}"]
    if rf.time.windows:
        return rf.time, ["the windows of the model's frames differ"]
    if rf.notes and _moves_with_length(model, frontend, rf.time):
        return rf.time, [
            "the padding of strided layers with padding='same' depends on the audio length: "
            "use keras.layers.ZeroPadding2D and padding='valid'"
        ]
    return rf.time, []


def _moves_with_length(model: keras.Model, frontend: Frontend, time: AxisField) -> bool:
    """Return whether the positions of the frames depend on the length of the audio."""
    hop = frontend.hop_samples
    enough = frontend.min_samples // hop + 1
    channels = model.inputs[0].shape[2:]
    fields = (
        receptive_field(model, input_shape=(frames * hop, *channels)).time
        for frames in range(enough, enough + int(time.jump))
    )
    return any(field != time for field in fields)


def _margins(model: keras.Model, time: AxisField, hop: int) -> tuple[int, int]:
    """Return the spectrogram frames at a chunk's ends that its frames must not use.

    A padding layer puts zeros where the whole audio has map values. Usually these positions
    belong to windows that reach beyond the chunk. After cropping they can belong to windows
    inside it.

    Returns:
        (first usable frame, number of unusable frames at the end).
    """
    frames = _SPAN_FRAMES * int(time.jump)  # longer than what cropping removes
    shape = (frames * hop - 1, *model.inputs[0].shape[2:])
    left = right = 0
    for row in receptive_field(model, input_shape=shape).layers:
        if row.in_pixels and row.time is not None and row.positions[0] is not None:
            left = max(left, row.time.window(-1)[0] + 1)
            right = max(right, frames - row.time.window(row.positions[0])[1] + 1)
    return left, right


@dataclass(frozen=True)
class ChunkPlan:
    """Equal chunks at equal distances; the last chunk takes the remaining audio.

    Attributes:
        samples: Length of a chunk.
        step_samples: Distance between the starts of two chunks.
        skip: Number of frames at the start of a chunk that the previous chunk provides. Does
            not apply to the first chunk.
        stop: Number of frames from the chunk's start after which the next chunk takes over.
        reserve_samples: A chunk becomes the last one and takes all remaining audio unless more
            than this remains from its start.
    """

    samples: int
    step_samples: int
    skip: int
    stop: int
    reserve_samples: int


def overlapping_chunks(
    time: AxisField,
    scale: SpectrogramScale,
    step_seconds: float,
    min_samples: int,
    margins: tuple[int, int] = (0, 0),
) -> ChunkPlan:
    """Plan overlapping chunks that give the same frames as one pass over the whole audio.

    Args:
        time: Receptive field along time in spectrogram frames. The jump is a whole number above
            0 and all windows are equal.
        scale: Units of the spectrogram. Its frames are centred.
        step_seconds: Approximate amount of new audio in each chunk; at least one frame.
        min_samples: The model pads audio shorter than this.
        margins: Spectrogram frames at a chunk's start and end that the windows of its frames
            must avoid, where these exceed the frames that reach beyond the audio.
    """
    jump, hop = int(time.jump), scale.hop_samples
    before = scale.window_samples // 2  # a frame starts this far before its centre
    after = scale.window_samples - before

    first_sound = max(ceil(before / hop), margins[0])  # frame of the chunk's spectrogram
    skip = max(0, ceil((first_sound - time.start) / jump))
    wanted = max(1, round(step_seconds * scale.sample_rate_hz / (jump * hop)))
    read = time.start + (skip + wanted - 1) * jump + time.size  # exclusive
    least = max(ceil(((read - 1) * hop + after + 1) / hop), read + margins[1])
    frames = ceil(least / jump) * jump
    samples = frames * hop - 1  # the most that give this many frames

    sound = min((samples - after) // hop + 1, frames - margins[1])
    stop = (sound - time.size - time.start) // jump + 1
    step_samples = (stop - skip) * jump * hop
    reserve_samples = max(samples, step_samples + min_samples)
    return ChunkPlan(samples, step_samples, skip, stop, reserve_samples)


def separate_chunks(
    count: Callable[[int], int],
    jump: Fraction,
    scale: SpectrogramScale,
    step_seconds: float,
    min_samples: int,
) -> ChunkPlan:
    """Plan chunks without overlap, for models that cannot be computed exactly in chunks.

    A chunk exceeds the step only by what the model needs to give the chunk's frames.

    Args:
        count: Function from samples to the model's number of frames.
        jump: Spectrogram frames between two frames of the model; 0 if the number of frames does
            not depend on the length of the audio.
        scale: Units of the spectrogram.
        step_seconds: Approximate length of a step.
        min_samples: The model pads audio shorter than this.
    """
    hop = scale.hop_samples
    if not jump:
        step = max(1, round(step_seconds * scale.sample_rate_hz))
        samples, stop = max(step, min_samples), count(max(step, min_samples))
    else:
        # A whole number of pixels per step, so that the frames of all chunks form one grid.
        group = jump.denominator
        wanted = step_seconds * scale.sample_rate_hz / (jump.numerator * hop)
        stop = max(1, round(wanted)) * group
        pixels = int(stop * jump)
        longest = 2 * pixels
        while count(longest * hop - 1) < stop:
            longest *= 2
        choices = range(pixels, longest + 1)
        samples = choices[bisect_left(choices, stop, key=lambda n: count(n * hop - 1))]
        samples, step = samples * hop - 1, pixels * hop
    return ChunkPlan(samples, step, 0, stop, max(samples, 2 * step, step + min_samples))
