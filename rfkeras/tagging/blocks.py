"""From pieces of a waveform of any sizes to the chunks of a plan, in constant memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np

from rfkeras.data.audio_format import AudioFormat, Waveform
from rfkeras.data.decoding import open_audio
from rfkeras.data.opening import Source
from rfkeras.errors import ConfigError
from rfkeras.tagging.chunks import ChunkPlan

# A chunk takes several blocks at once: while the network computes one, the next one's are
# decoded. With less ahead it waits for them; more changes nothing.
BLOCKS_AHEAD = 6


@dataclass(frozen=True)
class Chunk:
    """Part of a waveform.

    Attributes:
        number: From 0.
        samples: (n,) or (n, channels) float32, valid until the next chunk is taken.
        stop_sample: The waveform's sample after the last of them.
        last: Whether the waveform ends there.
    """

    number: int
    samples: Waveform
    stop_sample: int
    last: bool


def chunked(blocks: Iterable[Waveform], plan: ChunkPlan, audio: AudioFormat) -> Iterator[Chunk]:
    """The chunks of a waveform that comes in consecutive blocks.

    What the chunks are does not depend on the sizes of the blocks.

    Args:
        blocks: Float, (samples,) or (samples, channels), at the model's rate.
        plan: Of the chunks.
        audio: Format of the blocks.

    Raises:
        ConfigError: A block is not of that format or holds NaN or infinite samples, or
            there is not a single sample.
    """
    buffer = np.empty(audio.shape(plan.reserve_samples + 1), np.float32)
    filled = number = start = 0
    for block in blocks:
        _check(block, audio, start + filled)
        taken = 0
        while taken < len(block):
            count = min(len(block) - taken, len(buffer) - filled)
            buffer[filled : filled + count] = block[taken : taken + count]
            taken, filled = taken + count, filled + count
            if filled == len(buffer):
                yield Chunk(number, buffer[: plan.samples], start + plan.samples, last=False)
                filled -= plan.step_samples
                buffer[:filled] = buffer[plan.step_samples :]
                number, start = number + 1, start + plan.step_samples
    if not filled:
        raise ConfigError("The audio has no samples: blocks must hold at least one.")
    yield Chunk(number, buffer[:filled], start + filled, last=True)


def file_blocks(
    source: Source, audio: AudioFormat, block_samples: int, decoder: str = "soundfile"
) -> Iterator[Waveform]:
    """The waveform of a file, decoded some blocks ahead in a thread.

    Args:
        source: A path, or the bytes of a file.
        audio: The format wanted.
        block_samples: Length of a block; the last may be shorter.
        decoder: One of `rfkeras.data.decoding.FILE_DECODERS`.

    Raises:
        AudioError: The file cannot be used, or ends before its declared length.
    """
    opened = open_audio(source, audio, decoder=decoder)
    with opened as file, ThreadPoolExecutor(1) as thread:

        def read(start: int) -> Waveform:
            return file.read(start, min(block_samples, file.length - start))

        starts = iter(range(0, file.length, block_samples))
        ahead = deque(thread.submit(read, start) for start in islice(starts, BLOCKS_AHEAD))
        while ahead:
            block = ahead.popleft().result()
            ahead.extend(thread.submit(read, start) for start in islice(starts, 1))
            yield block


def _check(block: Waveform, audio: AudioFormat, first_sample: int) -> None:
    shape = audio.shape(len(block)) if np.ndim(block) else None
    if np.shape(block) != shape or not np.issubdtype(block.dtype, np.floating):
        wanted = "(samples,)" if audio.channels == 1 else f"(samples, {audio.channels})"
        raise ConfigError(
            f"A block of audio must be a float array {wanted} in [-1, 1] at "
            f"{audio.sample_rate_hz} Hz. Received: {type(block).__name__} of shape "
            f"{np.shape(block)}, {getattr(block, 'dtype', 'no array')}."
        )
    finite = np.isfinite(block)
    if not finite.all():
        sample = first_sample + int(np.argwhere(~finite)[0][0])
        raise ConfigError(
            f"The audio has NaN or infinite samples, first at "
            f"{sample / audio.sample_rate_hz:.3f} s."
        )
