"""Decoded audio kept in memory, so that later epochs skip decoding."""

from __future__ import annotations

import threading

from rfkeras.data.audio import Waveform


class WaveformCache:
    """Whole waveforms by file, up to a number of bytes; what no longer fits is not kept.

    Waveforms are kept as the float32 that was decoded, so a cached epoch has the very
    numbers of an uncached one. Nothing is thrown out: with every clip used once an epoch,
    making room for one would only evict another that is needed just as soon.

    Args:
        max_bytes: Bytes of samples to keep, 10 s of 22050 Hz mono being 882,000.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.used_bytes = 0
        self._waveforms: dict[object, Waveform] = {}
        self._lock = threading.Lock()

    def get(self, key: object) -> Waveform | None:
        """The waveform kept under that key, None when there is none."""
        return self._waveforms.get(key)

    def put(self, key: object, waveform: Waveform) -> None:
        """Keep a waveform if there is room for it."""
        with self._lock:
            fits = self.used_bytes + waveform.nbytes <= self.max_bytes
            if fits and key not in self._waveforms:
                waveform.flags.writeable = False
                self._waveforms[key] = waveform
                self.used_bytes += waveform.nbytes
