"""Which chunks of a waveform a model is run on, and which frames each of them decides.

A chunk's ends are not the waveform's. What the model invents beyond them, reflected audio
before the spectrogram and zeros around every map, spoils the frames whose window (receptive
field) reaches there. So neighbouring chunks overlap, and each decides the frames whose
windows lie on audio that it holds. At the waveform's own ends a chunk does what the model
does with the whole, and decides all frames up to there. Chunks start a whole number of
frames apart, so that all strides and poolings fall where they fall in the whole.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from math import ceil

from rfkeras.receptive_field.field import AxisField
from rfkeras.receptive_field.units import SpectrogramScale


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
