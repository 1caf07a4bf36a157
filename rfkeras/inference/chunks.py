"""The times of a model's frames, and the layout of chunks that give the same frames.

Imports no framework. `rfkeras.inference.frames` finds the numbers of a Keras model.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from fractions import Fraction
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rfkeras.frontend.presets import SpectrogramScale
from rfkeras.rf.axis import AxisField

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


@dataclass(frozen=True)
class FrameSamples:
    """The samples of a model's input that the frames of its spectrogram read.

    Frame i reads from i * hop - before to i * hop + after (exclusive).

    Attributes:
        hop: Samples between frames.
        before: Samples read before a frame's time.
        after: Samples read from a frame's time on.
        left: Samples at the start of a chunk that a frame must not read, because a layer before
            the front-end pads there.
        right: Samples at its end that a frame must not read.
    """

    hop: int
    before: int
    after: int
    left: int = 0
    right: int = 0


def frame_samples(scale: SpectrogramScale) -> FrameSamples:
    """Return what frames read of the front-end's own input; its frames are centred."""
    before = scale.window_samples // 2  # a frame starts this far before its centre
    return FrameSamples(scale.hop_samples, before, scale.window_samples - before)


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
    reads: FrameSamples | None = None,
    longest: Callable[[int], int] | None = None,
) -> ChunkPlan:
    """Plan overlapping chunks that give the same frames as one pass over the whole audio.

    Args:
        time: Receptive field along time in spectrogram frames. The jump is a whole number above
            0 and all windows are equal.
        scale: Units of the spectrogram. Its frames are centred.
        step_seconds: Approximate amount of new audio in each chunk; at least one frame.
        min_samples: The model pads or rejects audio shorter than this.
        margins: Spectrogram frames at a chunk's start and end that the windows of its frames
            must avoid, where these exceed the frames that reach beyond the audio.
        reads: Samples that the frames read; None if the front-end is the first layer.
        longest: Function from a number of spectrogram frames to the longest audio that gives
            them; None if the front-end is the first layer.
    """
    reads = frame_samples(scale) if reads is None else reads
    most = longest or (lambda frames: frames * scale.hop_samples - 1)
    jump, hop = int(time.jump), reads.hop

    # First frame of the chunk's spectrogram that reads no padding.
    first_sound = max(ceil((reads.left + reads.before) / hop), margins[0])
    skip = max(0, ceil((first_sound - time.start) / jump))
    wanted = max(1, round(step_seconds * scale.sample_rate_hz / (jump * hop)))
    read = time.start + (skip + wanted - 1) * jump + time.size  # exclusive
    needed = (read - 1) * hop + reads.after + reads.right
    frames = ceil(max(1, read + margins[1]) / jump) * jump
    while most(frames) < needed:
        short_by = needed - most(frames)
        frames += ceil(short_by / hop / jump) * jump
    samples = most(frames)

    sound = min((samples - reads.right - reads.after) // hop + 1, frames - margins[1])
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
        min_samples: The model pads or rejects audio shorter than this.
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


@dataclass(frozen=True)
class Overlap:
    """The overlap that chunks need, for a network whose frames all have equal windows.

    Attributes:
        field: Receptive field along time, in frames of the spectrogram.
        scale: Units of the spectrogram.
        min_samples: Shortest audio that the network neither pads nor rejects.
        margins: See `overlapping_chunks`.
        reads: Samples that the frames of the spectrogram read.
    """

    field: AxisField
    scale: SpectrogramScale
    min_samples: int
    margins: tuple[int, int]
    reads: FrameSamples

    def plan(
        self, step_seconds: float, longest: Callable[[int], int] | None = None
    ) -> ChunkPlan:
        """Plan overlapping chunks; see `overlapping_chunks`."""
        return overlapping_chunks(
            self.field,
            self.scale,
            step_seconds,
            self.min_samples,
            self.margins,
            self.reads,
            longest,
        )

    def as_json(self) -> dict[str, Any]:
        """Return the numbers, for a file."""
        field = {name: int(getattr(self.field, name)) for name in ("size", "jump", "start")}
        values = {"field": field, "scale": asdict(self.scale), "reads": asdict(self.reads)}
        return {**values, "min_samples": self.min_samples, "margins": list(self.margins)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Overlap:
        """Return what `as_json` wrote.

        Raises:
            KeyError, TypeError, ValueError: It did not write this.
        """
        first, last = values["margins"]
        return cls(
            AxisField(**values["field"]),
            SpectrogramScale(**values["scale"]),
            values["min_samples"],
            (first, last),
            FrameSamples(**values["reads"]),
        )
