"""Decoding process that crashes, hangs or takes all memory, depending on the file's name.

Everything else works as in `rfkeras.audio.sandbox_worker`.
"""

import ctypes
import time

from rfkeras.audio import sandbox_worker
from rfkeras.audio.io import AudioFile
from rfkeras.audio.sandbox_worker import main


class FaultyFile(AudioFile):
    """Audio file that fails on reading if its name asks for it."""

    def read(self, start=0, count=None):
        if "segfault" in self.name:
            ctypes.string_at(0)
        if "endless" in self.name:
            while True:
                time.sleep(0.01)
        if "greedy" in self.name:
            bytearray(1 << 40)
        if "unexpected" in self.name:
            raise ZeroDivisionError
        samples = super().read(start, count)
        return samples[:-1] if "short" in self.name else samples


if __name__ == "__main__":
    sandbox_worker.AudioFile = FaultyFile
    main()
