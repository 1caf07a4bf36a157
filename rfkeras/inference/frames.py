"""Where a model's frames lie, and whether chunks of the audio give the frames of the whole."""

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


@dataclass(frozen=True)
class ChunkPlan:
    """Chunks of equal length at equal distances; the last is whatever is left.

    Attributes:
        samples: Length of a chunk.
        step_samples: Between the starts of two chunks.
        skip: Frames at the start of every chunk but the first that the one before decides.
        stop: Frames from the chunk's start after which the next one decides.
        reserve_samples: A chunk is the last, and takes all that is left, unless more than
            this is left from its start on.
    """

    samples: int
    step_samples: int
    skip: int
    stop: int
    reserve_samples: int


def overlapping(
    time: AxisField,
    scale: SpectrogramScale,
    step_seconds: float,
    min_samples: int,
    margins: tuple[int, int] = (0, 0),
) -> ChunkPlan:
    """Chunks that give the frames of the whole.

    Args:
        time: Receptive field along time in spectrogram frames, with a whole jump over 0 and
            windows all alike.
        scale: The spectrogram's units. Its frames are centred.
        step_seconds: About this much of each chunk is new; at least one frame is.
        min_samples: Audio below this length is padded by the model.
        margins: Spectrogram frames at a chunk's start and end that the windows of the frames
            it decides must keep off, if more than those that reach beyond the audio.
    """
    jump, hop = int(time.jump), scale.hop_samples
    before = scale.window_samples // 2  # a frame reads from so long before its centre
    after = scale.window_samples - before

    first_sound = max(ceil(before / hop), margins[0])  # of the chunk's spectrogram
    skip = max(0, ceil((first_sound - time.start) / jump))
    wanted = max(1, round(step_seconds * scale.sample_rate_hz / (jump * hop)))
    read = time.start + (skip + wanted - 1) * jump + time.size  # up to before this one
    least = max(ceil(((read - 1) * hop + after + 1) / hop), read + margins[1])
    frames = ceil(least / jump) * jump
    samples = frames * hop - 1  # the most that give so many frames

    sound = min((samples - after) // hop + 1, frames - margins[1])
    stop = (sound - time.size - time.start) // jump + 1
    step_samples = (stop - skip) * jump * hop
    reserve_samples = max(samples, step_samples + min_samples)
    return ChunkPlan(samples, step_samples, skip, stop, reserve_samples)


def side_by_side(
    count: Callable[[int], int],
    jump: Fraction,
    scale: SpectrogramScale,
    step_seconds: float,
    min_samples: int,
) -> ChunkPlan:
    """Chunks that the model reads as if each were all there is, for a model that is bound to.

    A chunk is only as much longer than the step as it takes to give its share of the frames.

    Args:
        count: From samples to the model's frames.
        jump: Spectrogram frames from one of the model's frames to the next; 0: a waveform has
            the same number of frames whatever its length.
        scale: The spectrogram's units.
        step_seconds: About so long is a step.
        min_samples: Audio below this length is padded by the model.
    """
    hop = scale.hop_samples
    if not jump:
        step = max(1, round(step_seconds * scale.sample_rate_hz))
        samples, stop = max(step, min_samples), count(max(step, min_samples))
    else:
        # Frames a whole number of pixels apart, so that those of all chunks make one grid.
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


Times = NDArray[np.float64]


@dataclass(frozen=True)
class FrameTimes:
    """Times of a model's frames, all in milliseconds from the start of the audio.

    A frame hears the audio of its window, and is about its centre. Windows overlap, and near
    the ends of the audio reach beyond it; spans lie side by side.

    Attributes:
        stride_ms: Between the centres of two frames.
        first_ms: Centre of frame 0's window.
        window_ms: Length of a frame's window (the receptive field); None: without limit.
    """

    stride_ms: float
    first_ms: float
    window_ms: float | None

    def centres_ms(self, n: int) -> Times:
        """Centres of the windows of the first n frames, (n,)."""
        return self.first_ms + self.stride_ms * np.arange(n, dtype=np.float64)

    def starts_ms(self, n: int) -> Times:
        """Starts of the spans of the first n frames, (n,): half a stride before the centre."""
        return np.maximum(self.centres_ms(n) - self.stride_ms / 2, 0.0)

    def ends_ms(self, n: int) -> Times:
        """Ends of the spans of the first n frames, (n,): half a stride after the centre."""
        return self.centres_ms(n) + self.stride_ms / 2


# Length of the spectrogram on which the layers are measured. Most distances between a model's
# frames divide it.
_SPAN_FRAMES = 2**10 * 3**3 * 5 * 7


class FrameGrid:
    """The frames of a model with a front-end, along time.

    Args:
        model: Functional, with a `ClipLogits` layer at its end.
        frontend: Its front-end.

    Attributes:
        scale: Units of the spectrogram.
        field: Receptive field along time, in spectrogram frames; None: without limit, or not
            known.
        jump: Spectrogram frames from one frame to the next; 0: there are no more frames the
            longer the audio.
        reasons: Why chunks do not give the frames of the whole; () if they do.

    Raises:
        ConfigError: The model has no such head, or the number of its frames cannot be told.
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
                "the front-end's dB floor follows the loudest point of what it is given: "
                "create the model with a front-end of fixed_floor=True"
            )
        self.reasons = tuple(reasons)

    @property
    def overlaps(self) -> bool:
        """Whether chunks can overlap so that every frame hears all of its window."""
        return self.field is not None and not self.field.windows and self.jump > 0

    def count(self, samples: int) -> int:
        """The model's frames of a waveform of so many samples."""
        shape = self._to_map.compute_output_shape((1, samples, *self._channels))
        if shape[1] is None:
            raise ConfigError(
                f"How many frames model {self._to_map.name!r} has cannot be told from its "
                "layers: one of them does not compute the shape of its output."
            )
        return int(shape[1])

    def plan(self, step_seconds: float) -> ChunkPlan:
        """Chunks of which about so much is new."""
        if self.field is not None and self.overlaps:
            margins = _margins(self._model, self.field, self.scale.hop_samples)
            return overlapping(self.field, self.scale, step_seconds, self.min_samples, margins)
        return side_by_side(self.count, self.jump, self.scale, step_seconds, self.min_samples)

    def times(self) -> FrameTimes | None:
        """When the frames are; None: their number does not depend on the audio's length."""
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
        short, long = _SPAN_FRAMES, 2 * _SPAN_FRAMES
        hop = self.scale.hop_samples
        more = self.count(long * hop - 1) - self.count(short * hop - 1)
        return Fraction(_SPAN_FRAMES, more).limit_denominator(64) if more else Fraction(0)


def frame_times(model: keras.Model) -> FrameTimes | None:
    """When the frames of a tagger are.

    Args:
        model: Functional, with a `ClipLogits` layer at its end.

    Returns:
        Their times; None for a model without a front-end, whose units are not known, and for
        one whose frames do not grow in number with the audio.

    Raises:
        ConfigError: The model has no `ClipLogits` layer of its own.
    """
    frontend = find_frontend(model)
    return None if frontend is None else FrameGrid(model, frontend).times()


def _time_field(model: keras.Model, frontend: Frontend) -> tuple[AxisField | None, list[str]]:
    """Receptive field along time, None if it is of no use, and what is wrong with it."""
    try:
        rf = receptive_field(model)
    except ConfigError as error:
        return None, [f"the model's receptive field is not known: {error}"]
    if rf.time is None or not rf.time.jump:
        why = "".join(f" ({note})" for note in rf.notes[:1] if rf.time is None)
        return None, [f"each frame hears all of what the model is given{why}"]
    if rf.time.windows:
        return rf.time, ["the windows of the model's frames are not all alike"]
    if rf.notes and _moves_with_length(model, frontend, rf.time):
        return rf.time, [
            "strided layers with padding='same' pad by the audio's length: pad by "
            "keras.layers.ZeroPadding2D and give them padding='valid'"
        ]
    return rf.time, []


def _moves_with_length(model: keras.Model, frontend: Frontend, time: AxisField) -> bool:
    """Whether the frames lie elsewhere for some length of the audio."""
    hop = frontend.hop_samples
    enough = frontend.min_samples // hop + 1
    channels = model.inputs[0].shape[2:]
    fields = (
        receptive_field(model, input_shape=(frames * hop, *channels)).time
        for frames in range(enough, enough + int(time.jump))
    )
    return any(field != time for field in fields)


def _margins(model: keras.Model, time: AxisField, hop: int) -> tuple[int, int]:
    """Spectrogram frames at a chunk's ends that its frames must not hear.

    A layer that pads puts zeros where the whole has a map. Mostly these stand for windows
    that reach beyond the chunk; but of a map that was cropped before, for windows inside.

    Returns:
        (first frame that may be heard, how many at the end may not).
    """
    frames = _SPAN_FRAMES * int(time.jump)  # any length would do that no cropping uses up
    shape = (frames * hop - 1, *model.inputs[0].shape[2:])
    left = right = 0
    for row in receptive_field(model, input_shape=shape).layers:
        if row.in_pixels and row.time is not None and row.positions[0] is not None:
            left = max(left, row.time.window(-1)[0] + 1)
            right = max(right, frames - row.time.window(row.positions[0])[1] + 1)
    return left, right
