"""Ogg Vorbis files whose bytes depend on nothing but the samples.

The encoder gives every Ogg stream a random serial number, so the same samples encoded
twice differ. Here the number is set to a constant, and the checksum of each page renewed.
"""

from __future__ import annotations

import io
import zlib

import numpy as np
import soundfile
from numpy.typing import NDArray

_SERIAL = (1).to_bytes(4, "little")
_HEADER_BYTES = 27
# Ogg's CRC is zlib's polynomial with the bits of each byte, and of the result, reversed.
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def encode(samples: NDArray[np.float32], sample_rate_hz: int) -> bytes:
    """Encode mono samples, shape (n,) in [-1, 1], as Ogg Vorbis at the default quality."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, sample_rate_hz, format="OGG", subtype="VORBIS")
    return with_fixed_serial(buffer.getvalue())


def with_fixed_serial(stream: bytes) -> bytes:
    """Set the serial number of every page of an Ogg stream to 1.

    Raises:
        ValueError: The bytes are not a sequence of whole Ogg pages.
    """
    pages = []
    start = 0
    while start < len(stream):
        if stream[start : start + 4] != b"OggS":
            raise ValueError(f"No Ogg page at byte {start} of {len(stream)}.")
        segments = stream[start + 26]
        table = stream[start + _HEADER_BYTES : start + _HEADER_BYTES + segments]
        end = start + _HEADER_BYTES + segments + sum(table)
        page = bytearray(stream[start:end])
        page[14:18] = _SERIAL
        page[22:26] = bytes(4)
        page[22:26] = page_checksum(bytes(page)).to_bytes(4, "little")
        pages.append(bytes(page))
        start = end
    return b"".join(pages)


def page_checksum(page: bytes) -> int:
    """CRC-32 of an Ogg page whose checksum field is zero (polynomial 04c11db7, start 0)."""
    reflected = zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{reflected:032b}"[::-1], 2)
