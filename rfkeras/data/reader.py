"""Excerpts of fixed length from files of any length, with or without a cache."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from rfkeras.data.audio_format import AudioFormat, Waveform
from rfkeras.data.cache import WaveformCache
from rfkeras.data.decoding import open_audio

# With a cache, files up to this long are decoded whole whether or not they still fit, so
# that the state of the cache never changes a number; longer ones are read by excerpt.
WHOLE_FILE_SECONDS = 60.0


def cut(whole: Waveform, start: int, count: int) -> Waveform:
    """Samples [start, start + count); a shorter waveform is repeated from its beginning."""
    if len(whole) >= count:
        return whole[start : start + count]
    return np.take(whole, np.arange(count), axis=0, mode="wrap")


def place(length: int, fraction: float, count: int) -> int:
    """Start of an excerpt of `count` samples, `fraction` in [0, 1) of the way through."""
    return int(fraction * (max(0, length - count) + 1))


class ClipReader:
    """Reads excerpts of files, decoding no more than needed.

    Args:
        audio: Format of the waveforms.
        cache: Where whole files are kept; None keeps nothing.
        decoder: One of `rfkeras.data.decoding.DECODERS`.
    """

    def __init__(
        self,
        audio: AudioFormat,
        cache: WaveformCache | None = None,
        decoder: str = "soundfile",
    ) -> None:
        self.audio = audio
        self.cache = cache
        self.decoder = decoder

    def excerpt(self, path: Path, fraction: float, count: int) -> Waveform:
        """An excerpt of `count` samples at a place that `fraction` in [0, 1) chooses.

        A file shorter than the excerpt is repeated circularly: no silence is invented.

        Raises:
            AudioError: The file cannot be used.
        """
        return self._read(path, lambda length: place(length, fraction, count), count)

    def window(self, path: Path, start: int, count: int) -> Waveform:
        """Samples [start, start + count), repeated circularly when the file is shorter.

        Raises:
            AudioError: The file cannot be used.
        """
        return self._read(path, lambda _: start, count)

    def length(self, path: Path) -> int:
        """Samples of the whole file in the model's format, from its headers.

        Raises:
            AudioError: The file cannot be used.
        """
        with open_audio(path, self.audio, decoder=self.decoder) as file:
            return file.length

    def _read(self, path: Path, start: Callable[[int], int], count: int) -> Waveform:
        key = (path, self.audio)
        whole = None if self.cache is None else self.cache.get(key)
        if whole is None:
            with open_audio(path, self.audio, decoder=self.decoder) as file:
                keep = self.cache is not None and file.length <= self.audio.samples(
                    WHOLE_FILE_SECONDS
                )
                if file.length > count and not keep:
                    return file.read(start(file.length), count)
                whole = file.read()
            if self.cache is not None and keep:
                self.cache.put(key, whole)
        return cut(whole, start(len(whole)), count)
