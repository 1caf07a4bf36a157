"""The streams of an Ogg file, its end, and the lengths of Vorbis packets."""

from __future__ import annotations

import mmap
from dataclasses import dataclass

from rfkeras.audio.source import AnySource, Source, mapped, read_bytes, remembered, size_of

_MAGIC = b"OggS"
_HEADER_BYTES = 27
_PAGE_MAX = _HEADER_BYTES + 255 + 255 * 255
_FIRST_PAGE, _LAST_PAGE = 0x02, 0x04

_BLOCKSIZES_AT = 28  # in the identification header
_MODE_BITS = 41  # block flag, window type, transform type, mapping
_MAX_MODES = 64
_MODES_BYTES = _MAX_MODES * _MODE_BITS // 8 + 2


@remembered
def ogg_links(source: Source) -> tuple[int, ...]:
    """Return where the links of a chained Ogg file begin; one link is a plain Ogg file.

    Args:
        source: A path, or the content of a file as bytes.
    """
    with mapped(source) as content:
        return _links(content)


def _links(content: bytes | mmap.mmap) -> tuple[int, ...]:
    links: list[int] = []
    begins = False  # whether the last page began a stream
    position = content.find(_MAGIC)
    while 0 <= position <= len(content) - _HEADER_BYTES:
        is_first = bool(content[position + 5] & _FIRST_PAGE)
        if is_first and not begins:
            links.append(position)
        begins = is_first
        table = position + _HEADER_BYTES
        lengths = content[table : table + content[position + 26]]
        position = content.find(_MAGIC, table + len(lengths) + sum(lengths))
    return tuple(links)


def ogg_truncation(source: AnySource) -> str | None:
    """Look for the end-of-stream page, which a complete Ogg stream has.

    Args:
        source: A path, or the content of a file as bytes.

    Returns:
        A sentence if it is missing, otherwise None.
    """
    size = size_of(source)
    tail = read_bytes(source, max(0, size - 2 * _PAGE_MAX), size)
    position = tail.rfind(_MAGIC)
    while position >= 0:
        page = tail[position:]
        segments = page[26] if len(page) > 26 else 0
        table = _HEADER_BYTES + segments
        if (
            len(page) >= table
            and page[5] & _LAST_PAGE
            and len(page) >= table + sum(page[_HEADER_BYTES:table])
        ):
            return None
        position = tail.rfind(_MAGIC, 0, position)
    return "truncated: the Ogg stream has no end-of-stream page"


@dataclass
class VorbisBlocks:
    """Block sizes of one Vorbis stream.

    Args:
        sizes: Samples in a block, by mode.
        mask: Bits of a packet's first byte that hold its mode, from bit 1 on.
    """

    sizes: tuple[int, ...]
    mask: int
    _previous: int | None = None

    def samples(self, first_byte: int) -> int:
        """Return the samples that the next packet of the stream yields; 0 for a header."""
        mode = (first_byte & self.mask) >> 1
        if first_byte & 1 or mode >= len(self.sizes):
            return 0
        size = self.sizes[mode]
        previous, self._previous = self._previous, size
        return ((previous or size) + size) // 4


def vorbis_blocks(extradata: bytes) -> VorbisBlocks | None:
    """Find the block sizes in the three headers of a stream; None if they are damaged.

    Args:
        extradata: The headers with Xiph lacing, as FFmpeg keeps them.
    """
    headers = _headers(extradata)
    if headers is None or len(headers[0]) <= _BLOCKSIZES_AT:
        return None
    exponents = headers[0][_BLOCKSIZES_AT]
    blocks = (1 << (exponents & 15), 1 << (exponents >> 4))
    # The modes are the last part of the setup header and their number stands before them,
    # so they are read backwards, from the framing bit on.
    modes = headers[2].rstrip(b"\0")[-_MODES_BYTES:]
    bits = "".join(f"{byte:08b}" for byte in reversed(modes))
    start = bits.find("1") + 1
    flags: list[int] = []
    count = 0
    for number in range(1, _MAX_MODES + 1):
        entry = bits[start + (number - 1) * _MODE_BITS :][:_MODE_BITS]
        if len(entry) < _MODE_BITS or int(entry[:8], 2) > 63 or int(entry[8:40], 2):
            break
        flags.append(int(entry[40]))
        before = bits[start + number * _MODE_BITS :][:6]
        if len(before) == 6 and int(before, 2) + 1 == number:
            count = number
    if count == 0:
        return None
    flags = flags[:count][::-1]
    mask = ((1 << (count - 1).bit_length()) - 1) << 1
    return VorbisBlocks(tuple(blocks[flag] for flag in flags), mask)


def _headers(extradata: bytes) -> list[bytes] | None:
    """Split headers with Xiph lacing."""
    if extradata[:1] != b"\x02":
        return None
    lengths, position = [], 1
    for _ in range(2):
        length = 0
        while True:
            if position >= len(extradata):
                return None
            byte = extradata[position]
            position += 1
            length += byte
            if byte < 255:
                break
        lengths.append(length)
    ends = [position + lengths[0], position + sum(lengths)]
    return [extradata[position : ends[0]], extradata[ends[0] : ends[1]], extradata[ends[1] :]]
