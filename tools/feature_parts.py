"""Files of quantised mel spectrograms with their labels. Needs only NumPy.

A file holds spectrograms of one front-end, in dB before standardisation, as 8-bit steps above
the fixed floor. They are small enough to travel to a machine without the audio, and without
TensorFlow.
"""

from __future__ import annotations

import json
import lzma
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rfkeras.errors import DatasetError
from rfkeras.utils.files import open_npz, write_npz

SPLITS = ("train", "validation", "test")
BLOCK_CLIPS = 16  # compressed together, and decompressed by one thread
# Raw LZMA with hardly any search for repetitions: spectrograms have none beyond silence. It is
# eight times as fast as the usual settings, and takes half a percent more.
_FILTERS = [
    {
        "id": lzma.FILTER_LZMA2,
        "dict_size": 1 << 16,
        "lc": 0,  # the band before says less about a byte than the statistics of all
        "lp": 0,
        "pb": 0,
        "mode": lzma.MODE_NORMAL,
        "mf": lzma.MF_BT2,
        "nice_len": 8,
        "depth": 1,
    }
]

# Of the dynamic range: the lowest deviation of a band, as in rfkeras.frontend.layer, which
# needs a backend.
_DEVIATIONS = 40


@dataclass(frozen=True)
class Scale:
    """The meaning of the 8-bit numbers of a file.

    A band of the front-end is a weighted sum of dB values plus an offset. The numbers count
    steps of the weighted mean, so that a gain adds the same number in every band.

    Attributes:
        preset: Preset of the front-end, which has a fixed floor.
        dynamic_range_db: Distance of the floor from a full-scale sine.
        step_db: Size of a step in dB.
        floor_db: Mean in dB of a band at the floor, whose number is 0.
        band_weight: Sum of the weights of each band.
        offset_db: Offset of each band.
        label_names: The tags.
    """

    preset: str
    dynamic_range_db: float
    step_db: float
    floor_db: float
    band_weight: tuple[float, ...]
    offset_db: tuple[float, ...]
    label_names: tuple[str, ...]

    def quantise(self, mel_db: Any) -> NDArray[np.uint8]:
        """Convert output of `Frontend.mel_db`, (..., bands), to steps above the floor."""
        weight = np.asarray(self.band_weight, np.float32)
        shifted = np.asarray(mel_db, np.float32) - np.asarray(self.offset_db, np.float32)
        # Filters between two bins have no weights; they are always at the floor.
        mean_db = np.divide(
            shifted, weight, out=np.full_like(shifted, self.floor_db), where=weight > 0
        )
        steps = np.rint((mean_db - self.floor_db) / self.step_db)
        return np.clip(steps, 0, 255).astype(np.uint8)

    def to_layer(self, above_floor_db: Any) -> NDArray[np.float64]:
        """Convert dB above the floor, (..., bands), to output of `Frontend.mel_db`."""
        mean_db = np.asarray(above_floor_db, np.float64) + self.floor_db
        return mean_db * np.asarray(self.band_weight) + np.asarray(self.offset_db)


@dataclass(frozen=True)
class Features:
    """Spectrograms with labels.

    Attributes:
        steps: (clips, frames, bands) uint8.
        labels: (clips, tags) float16, from 0 to 1.
        mask: (clips, tags) bool, true where the label is known.
        splits: (clips,) uint8, index in `SPLITS`.
        keys: (clips,) strings.
        scale: The meaning of `steps`.
    """

    steps: NDArray[np.uint8]
    labels: NDArray[np.float16]
    mask: NDArray[np.bool_]
    splits: NDArray[np.uint8]
    keys: NDArray[np.str_]
    scale: Scale

    def __len__(self) -> int:
        return len(self.keys)

    def first(self, count: int) -> Features:
        """Return the first clips."""
        return self._rows(slice(count))

    def band_statistics(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return mean and deviation of every band in dB above the floor, (bands,).

        The deviation has the lower limit of `Frontend.adapt`.
        """
        count = self.steps.shape[0] * self.steps.shape[1]
        total, squares = np.zeros(self.steps.shape[2]), np.zeros(self.steps.shape[2])
        for clip in self.steps:
            values = clip.astype(np.float32) * np.float32(self.scale.step_db)
            total += values.sum(axis=0)
            squares += np.square(values).sum(axis=0)
        mean = total / count
        deviation = np.sqrt(np.maximum(squares / count - mean**2, 0.0))
        lowest_db = self.scale.dynamic_range_db / _DEVIATIONS
        return (
            mean.astype(np.float32),
            np.maximum(deviation, lowest_db).astype(np.float32),
        )

    def select(self, split: str) -> Features:
        """Return the clips of a split."""
        return self._rows(np.flatnonzero(self.splits == SPLITS.index(split)))

    def _rows(self, rows: Any) -> Features:
        chosen = (a[rows] for a in (self.steps, self.labels, self.mask, self.splits, self.keys))
        return Features(*chosen, self.scale)


def compress(steps: NDArray[np.uint8]) -> bytes:
    """Compress clips (clips, frames, bands) without loss."""
    return lzma.compress(
        _differences(steps).tobytes(), format=lzma.FORMAT_RAW, filters=_FILTERS
    )


def decompress(content: bytes, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Return the clips that `compress` received."""
    raw = lzma.decompress(content, format=lzma.FORMAT_RAW, filters=_FILTERS)
    return _sums(np.frombuffer(raw, np.uint8).reshape(shape))


def _differences(steps: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the differences between neighbouring frames, modulo 256."""
    return np.diff(steps, axis=1, prepend=np.uint8(0))


def _sums(differences: NDArray[np.uint8]) -> NDArray[np.uint8]:
    sums: NDArray[np.uint8] = np.cumsum(differences, axis=1, dtype=np.uint8)
    return sums


def write_part(path: Path, features: Features, blocks: Sequence[bytes]) -> None:
    """Write a file.

    Args:
        path: The .npz file.
        features: The clips; their `steps` may be empty except for the shape.
        blocks: The steps of every `BLOCK_CLIPS` clips, from `compress`.
    """
    write_npz(
        path,
        {
            "shape": np.asarray(features.steps.shape, np.int64),
            "blocks": np.frombuffer(b"".join(blocks), np.uint8),
            "ends": np.cumsum([len(block) for block in blocks], dtype=np.int64),
            "labels": features.labels,
            "mask": features.mask,
            "splits": features.splits,
            "keys": features.keys,
            "scale": np.asarray(json.dumps(asdict(features.scale))),
        },
    )


class PartWriter:
    """Writes blocks of training clips to files OUT-000.npz, OUT-001.npz and so on.

    Args:
        out: The files are named after this one. Older ones are replaced.
        scale: The meaning of the numbers.
        part_mb: Largest size of a file in MB of 1,000,000 bytes.

    Attributes:
        written: The files.
    """

    def __init__(self, out: Path, scale: Scale, part_mb: float):
        self.written: list[Path] = []
        self._out = out
        self._scale = scale
        self._limit = part_mb * 1e6
        self._blocks: list[tuple[bytes, Any, Any]] = []
        self._keys: list[str] = []
        self._shape: tuple[int, ...] = ()

    def add(
        self, block: bytes, shape: tuple[int, ...], labels: Any, mask: Any, keys: Sequence[str]
    ) -> None:
        """Add a block.

        Args:
            block: `BLOCK_CLIPS` clips from `compress`; only the last block may have fewer.
            shape: (frames, bands) of a clip.
            labels: (clips, tags).
            mask: (clips, tags).
            keys: Key of each clip.
        """
        size = sum(len(each) for each, *_ in self._blocks)
        if self._blocks and size + len(block) > self._limit:
            self._write()
        self._blocks.append((block, labels, mask))
        self._keys += keys
        self._shape = shape

    def finish(self) -> list[Path]:
        """Write what is left, remove older files that were not replaced; return the files."""
        if self._blocks:
            self._write()
        for path in self._out.parent.glob(f"{self._out.stem}-[0-9][0-9][0-9].npz"):
            if path not in self.written:
                path.unlink()
        return self.written

    def _write(self) -> None:
        blocks, labels, mask = zip(*self._blocks, strict=True)
        features = Features(
            np.broadcast_to(np.uint8(0), (len(self._keys), *self._shape)),  # only its shape
            np.concatenate(labels),
            np.concatenate(mask),
            np.zeros(len(self._keys), np.uint8),
            np.array(self._keys),
            self._scale,
        )
        path = self._out.with_name(f"{self._out.stem}-{len(self.written):03d}.npz")
        write_part(path, features, blocks)
        self.written.append(path)
        self._blocks, self._keys = [], []


def read_part(path: Path) -> Features:
    """Read a file.

    Raises:
        DatasetError: It is not a file of `write_part`.
    """
    try:
        with open_npz(path) as arrays:
            part = {name: arrays[name] for name in arrays.files}
        clips, frames, bands = (int(n) for n in part["shape"])
        ends = part["ends"].tolist()
        content = part["blocks"].tobytes()

        def block(number: int) -> NDArray[np.uint8]:
            start = ends[number - 1] if number else 0
            count = min(BLOCK_CLIPS, clips - number * BLOCK_CLIPS)
            return decompress(content[start : ends[number]], (count, frames, bands))

        with ThreadPoolExecutor() as pool:  # LZMA releases the interpreter lock
            steps = np.concatenate(list(pool.map(block, range(len(ends)))))
        scale = read_scale(str(part["scale"]))
    except (OSError, ValueError, KeyError, TypeError, lzma.LZMAError) as error:
        raise DatasetError(f"{path} is not a file of tools.pack_features: {error}.") from error
    return Features(steps, part["labels"], part["mask"], part["splits"], part["keys"], scale)


def read_scale(text: str) -> Scale:
    """Read a `Scale` from JSON."""
    values = json.loads(text)
    return Scale(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


def read_parts(paths: Iterable[Path], report: Callable[[str], None] = print) -> Features:
    """Read files and join them.

    Raises:
        DatasetError: There is none, one cannot be read, or they differ in front-end, tags or
            length of the clips, or share clips.
    """
    parts = []
    for path in paths:
        part = read_part(path)
        size = path.stat().st_size / max(1, len(part))
        report(f"{path}: {len(part)} clips, {size:.0f} bytes each")
        first = parts[0] if parts else part
        if (part.scale, part.steps.shape[1:]) != (first.scale, first.steps.shape[1:]):
            raise DatasetError(
                f"{path} was packed with another front-end, step, tags or clip length than the "
                "files before it. Pack them again with the same options."
            )
        parts.append(part)
    if not parts:
        raise DatasetError("No file of features was given. Run python -m tools.pack_features.")
    joined = [
        np.concatenate([getattr(part, name) for part in parts])
        for name in ("steps", "labels", "mask", "splits", "keys")
    ]
    if len(np.unique(joined[-1])) < len(joined[-1]):
        raise DatasetError("Two files share clips. Give every file once.")
    return Features(*joined, parts[0].scale)
