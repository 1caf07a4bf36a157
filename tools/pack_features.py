"""Pack the mel spectrograms of a data set for `tools.train_on_jax`.

`python -m tools.pack_features DATA_DIR OUT.npz --frontend perceptual_mel_22k`

DATA_DIR has the layout of OpenMIC-2018. Writes OUT-000.npz, OUT-001.npz and so on, none larger
than `--part-mb`. The same call on a folder that has grown, or on another folder, packs only
clips that no part of OUT has yet: those with another key or another name of the folder. Clips
without an audio file are left for a later call.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rfkeras.audio.io import AudioFormat, read_audio
from rfkeras.datasets import openmic
from rfkeras.datasets.excerpts import crop_or_repeat
from rfkeras.errors import AudioError, ConfigError, DatasetError, RFKerasError
from rfkeras.utils.files import open_npz
from tools.feature_parts import (
    BLOCK_CLIPS,
    SPLITS,
    Features,
    Scale,
    compress,
    read_scale,
    write_part,
)

MB = 1e6


@dataclass(frozen=True)
class Clip:
    """A clip of the data set: its file, labels, mask, and index of its split in `SPLITS`.

    The key begins with the name of the folder, because folders can have clips of one key.
    """

    key: str
    path: Path
    labels: NDArray[np.float32]
    mask: NDArray[np.float32]
    split: int


@dataclass
class Part:
    """Clips of the next file, compressed.

    Attributes:
        clips: The clips.
        blocks: Their spectrograms, from `compress`.
        shape: (frames, bands) of a clip.
    """

    clips: list[Clip] = field(default_factory=list)
    blocks: list[bytes] = field(default_factory=list)
    shape: tuple[int, int] = (0, 0)

    @property
    def size(self) -> int:
        """Compressed bytes."""
        return sum(map(len, self.blocks))

    def add(self, clips: Sequence[Clip], steps: NDArray[np.uint8]) -> None:
        """Add a block of clips."""
        self.clips += clips
        self.blocks.append(compress(steps))
        self.shape = steps.shape[1], steps.shape[2]

    def write(self, path: Path, scale: Scale) -> None:
        """Write the file."""
        features = Features(
            np.broadcast_to(np.uint8(0), (len(self.clips), *self.shape)),  # only its shape
            np.array([clip.labels for clip in self.clips], np.float16),
            np.array([clip.mask for clip in self.clips], bool),
            np.array([clip.split for clip in self.clips], np.uint8),
            np.array([clip.key for clip in self.clips]),
            scale,
        )
        write_part(path, features, self.blocks)


def scale_of(frontend: Any, preset: str, step_db: float, label_names: Sequence[str]) -> Scale:
    """Return the scale of a front-end's spectrograms.

    Raises:
        ConfigError: Its floor is not fixed.
    """
    if not frontend.fixed_floor:
        raise ConfigError("Features need a front-end with fixed_floor=True.")
    weights = np.ones(frontend.n_mels)
    if frontend.order == "db_then_mel":
        weights = np.asarray(frontend.mel.filterbank, np.float64).sum(axis=0)
    return Scale(
        preset=preset,
        dynamic_range_db=frontend.dynamic_range_db,
        step_db=step_db,
        floor_db=10.0 * float(np.log10(frontend.amin)),
        band_weight=tuple(weights.tolist()),
        offset_db=tuple(np.asarray(frontend.offset_db, np.float64).tolist()),
        label_names=tuple(label_names),
    )


def clips_of(
    data_dir: Path, validation_share: float, split: str | None
) -> tuple[list[Clip], tuple[str, ...]]:
    """Return the clips of a folder, in the order of their keys, and the tags.

    Whether a training clip is held out for validation depends only on its key, so clips keep
    their split when the folder grows.

    Args:
        data_dir: Folder in the layout of OpenMIC-2018.
        validation_share: Share of the training partition held out for validation.
        split: Split of all clips; None for those of the folder.
    """
    dataset = openmic.load(data_dir, name=str(data_dir), published=None)
    clips = []
    for name, part in dataset.splits.items():
        for key, path, labels, mask in zip(
            part.keys, part.paths, part.labels, part.mask, strict=True
        ):
            own = "test" if name == "test" else split_of(key, validation_share)
            place = SPLITS.index(split or own)
            clips.append(Clip(f"{data_dir.resolve().name}/{key}", path, labels, mask, place))
    return sorted(clips, key=lambda clip: clip.key), dataset.label_names


def split_of(key: str, validation_share: float) -> str:
    """Return the split of a clip of the training partition."""
    digits = int(hashlib.sha256(key.encode()).hexdigest()[:8], 16)
    return "validation" if digits < validation_share * 16**8 else "train"


def existing_parts(out: Path) -> list[Path]:
    """Return the parts that were written for OUT.npz."""
    return sorted(out.parent.glob(f"{out.stem}-[0-9][0-9][0-9].npz"))


def packed_keys(parts: Sequence[Path], scale: Scale) -> set[str]:
    """Return the keys of the clips in some parts.

    Raises:
        DatasetError: A part was made with other options.
    """
    keys: set[str] = set()
    for path in parts:
        with open_npz(path) as arrays:
            if read_scale(str(arrays["scale"])) != scale:
                raise DatasetError(
                    f"{path} has another front-end, step or other tags. Give other options, or "
                    "another OUT."
                )
            keys.update(arrays["keys"].tolist())
    return keys


def waveforms(
    clips: Sequence[Clip], audio: AudioFormat, threads: int
) -> Iterator[tuple[list[Clip], NDArray[np.float32]]]:
    """Read clips in blocks of `BLOCK_CLIPS`; a note names files that cannot be used.

    Yields:
        (clips, waveforms): those of the block that can be used.
    """
    samples = audio.samples(openmic.CLIP_SECONDS)

    def read(clip: Clip) -> NDArray[np.float32] | None:
        try:
            return crop_or_repeat(read_audio(clip.path, audio), 0, samples)
        except AudioError as error:
            print(f"Note: left out {error}", file=sys.stderr, flush=True)
            return None

    with ThreadPoolExecutor(threads) as pool:
        for first in range(0, len(clips), BLOCK_CLIPS):
            block = clips[first : first + BLOCK_CLIPS]
            read_clips = zip(block, pool.map(read, block), strict=True)
            pairs = [(clip, wave) for clip, wave in read_clips if wave is not None]
            if pairs:
                yield [clip for clip, _ in pairs], np.stack([wave for _, wave in pairs])


def pack(
    data_dir: Path,
    out: Path,
    *,
    preset: str = "perceptual_mel_22k",
    step_db: float = 0.5,
    part_mb: float = 50.0,
    validation_share: float = 0.05,
    split: str | None = None,
    threads: int = 1,
) -> list[Path]:
    """Pack the clips that no part has yet; return the new parts.

    Args:
        data_dir: Folder in the layout of OpenMIC-2018.
        out: The parts are named after this file.
        preset: Preset of the front-end; its floor is fixed.
        step_db: Size of a quantisation step.
        part_mb: Largest size of a part in MB of 1,000,000 bytes, plus one block of clips.
        validation_share: Share of the training partition held out for validation.
        split: Split of all clips; None for those of the folder.
        threads: Threads that read audio.
    """
    import tensorflow as tf

    from rfkeras.frontend import create_frontend

    frontend = create_frontend(preset, fixed_floor=True)
    clips, label_names = clips_of(data_dir, validation_share, split)
    scale = scale_of(frontend, preset, step_db, label_names)
    parts = existing_parts(out)
    known = packed_keys(parts, scale)
    fresh = [clip for clip in clips if clip.key not in known]
    ready = [clip for clip in fresh if clip.path.is_file()]
    print(
        f"{data_dir}: {len(clips)} clips, {len(clips) - len(fresh)} packed before, "
        f"{len(fresh) - len(ready)} without audio, {len(ready)} to pack",
        flush=True,
    )
    number = len(parts)
    written: list[Path] = []
    part, begun, done, mel_s = Part(), time.monotonic(), 0, 0.0

    def finish(part: Part) -> None:
        path = out.with_name(f"{out.stem}-{number + len(written):03d}.npz")
        part.write(path, scale)
        count, frames, bands = len(part.clips), *part.shape
        print(
            f"{path}: {count} clips, {frames * bands} bytes each, compressed "
            f"{part.size / count:.0f}; {done / (time.monotonic() - begun):.2f} clips/s "
            f"({mel_s / done * 1000:.0f} ms a clip for the front-end)",
            flush=True,
        )
        written.append(path)

    mel_db = tf.function(frontend.mel_db, reduce_retracing=True)
    audio = AudioFormat(frontend.sample_rate_hz)
    for block, waves in waveforms(ready, audio, threads):
        if part.size >= part_mb * MB - part.size / max(1, len(part.blocks)):
            finish(part)
            part = Part()
        before = time.monotonic()
        spectrograms = mel_db(tf.constant(waves))[..., 0].numpy()
        mel_s += time.monotonic() - before
        part.add(block, scale.quantise(spectrograms))
        done += len(block)
    if part.clips:
        finish(part)
    return written


def main(argv: Sequence[str] | None = None) -> int:
    """Pack a folder."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--frontend", dest="preset", default="perceptual_mel_22k")
    parser.add_argument("--step-db", type=float, default=0.5)
    parser.add_argument("--part-mb", type=float, default=50.0)
    parser.add_argument("--validation-share", type=float, default=0.05)
    parser.add_argument("--split", choices=SPLITS, help="split of all clips of the folder")
    parser.add_argument("--threads", type=int, default=1, help="threads that read audio")
    values = vars(parser.parse_args(argv))
    try:
        pack(values.pop("data_dir"), values.pop("out"), **values)
    except RFKerasError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
