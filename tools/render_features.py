"""Render composed music straight to features, for machines without TensorFlow.

`python -m tools.render_features front OUT.npz` writes the numbers of a front-end (needs
TensorFlow). `python -m tools.render_features render FOLDER --settings settings.json --front
OUT.npz --clips N` renders clips and stores their mel spectrograms, with no audio file between.
The settings are the fields of `ensemble_clips.Settings`, with paths of the sounds, which the
composed.json of a data set lacks. An earlier content of FOLDER is overwritten.
`tools.train_on_jax --growing FOLDER` trains on what is ready, and
`python -m tools.render_features pack FOLDER OUT.npz` packs it into files that can travel, as
those of `tools.pack_features`.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import soxr
from numpy.typing import NDArray

from rfkeras.errors import RFKerasError
from rfkeras.synthesis.ensemble_clips import clip_labels, clip_recorder, settings_of
from rfkeras.synthesis.mapping import CLASSES
from rfkeras.synthesis.render import CLIP_SAMPLES, SAMPLE_RATE_HZ
from rfkeras.utils.files import write_npz, write_text
from rfkeras.utils.progress import track
from tools.feature_parts import BLOCK_CLIPS, PartWriter, Scale, compress, read_scale

ROWS = ("steps", "labels", "mask", "done")


def write_front(
    path: Path, preset: str, step_db: float, label_names: Sequence[str] = CLASSES
) -> None:
    """Write the numbers of a front-end with a fixed floor, and the tags of the clips."""
    from rfkeras.frontend import create_frontend
    from tools.pack_features import scale_of

    frontend = create_frontend(preset, fixed_floor=True)
    scale = scale_of(frontend, preset, step_db, label_names)
    write_npz(
        path,
        {
            "rate_hz": np.asarray(frontend.sample_rate_hz),
            "hop": np.asarray(frontend.hop_samples),
            "n_fft": np.asarray(frontend.n_fft),
            "filterbank": np.asarray(frontend.mel.filterbank, np.float32),
            "offset_db": np.asarray(frontend.offset_db, np.float32),
            "floor": np.asarray(frontend.amin, np.float64),
            "scale": np.asarray(json.dumps(asdict(scale))),
        },
    )


def mel_db(samples: NDArray[np.float32], front: Mapping[str, Any]) -> NDArray[np.float32]:
    """Return the mel spectrogram of `Frontend.mel_db` (order "db_then_mel"), by NumPy.

    Args:
        samples: (samples,) at the front-end's rate.
        front: Content of a file of `write_front`.

    Returns:
        (1 + samples // hop, bands).
    """
    n_fft, hop = int(front["n_fft"]), int(front["hop"])
    padded = np.pad(samples, n_fft // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, n_fft)[::hop]
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
    spectra = np.abs(np.fft.rfft(frames * window.astype(np.float32), axis=1)) ** 2
    level_db = 10 * np.log10(np.maximum(spectra, front["floor"])).astype(np.float32)
    return np.asarray(level_db @ front["filterbank"] + front["offset_db"], np.float32)


def render(
    folder: Path, settings: Mapping[str, Any], front: Path, clips: int, workers: int
) -> int:
    """Render clips in parallel; return how many failed. Rows are ready where `done` is 1.

    Args:
        folder: Folder for steps.npy, labels.npy, mask.npy, done.npy and scale.json.
        settings: Fields of `ensemble_clips.Settings`.
        front: File of `write_front`.
        clips: Number of clips.
        workers: Number of processes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with np.load(front) as arrays:
        scale = str(arrays["scale"])
        length = 1 + _model_samples(int(arrays["rate_hz"])) // int(arrays["hop"])
        bands = arrays["filterbank"].shape[1]
    shapes = {
        "steps": ((clips, length, bands), np.uint8),
        "labels": ((clips, len(CLASSES)), np.float16),
        "mask": ((clips, len(CLASSES)), np.bool_),
        "done": ((clips,), np.uint8),
    }
    for name, (shape, kind) in shapes.items():
        np.lib.format.open_memmap(
            folder / f"{name}.npy", mode="w+", dtype=kind, shape=shape
        ).flush()
    write_text(folder / "scale.json", scale)
    with ProcessPoolExecutor(
        workers,
        multiprocessing.get_context("spawn"),
        _start,
        (str(folder), dict(settings), str(front)),
    ) as pool:
        rows = pool.map(_render_row, range(clips))
        for _ in track(rows, clips, "Rendering", unit="clips", plain_lines=20):
            pass
    return clips - int(np.count_nonzero(np.load(folder / "done.npy")))


def pack(folder: Path, out: Path, part_mb: float) -> list[Path]:
    """Pack the clips that are ready into training files; return these.

    Args:
        folder: Folder of `render`, which may still be running.
        out: The files are named after this: OUT-000.npz and so on. Older ones are replaced.
        part_mb: Largest size of a file in MB of 1,000,000 bytes.
    """
    rows = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in ROWS}
    scale = read_scale((folder / "scale.json").read_text(encoding="utf-8"))
    ready = np.flatnonzero(rows["done"])
    writer = PartWriter(out, scale, part_mb)
    blocks = [
        ready[first : first + BLOCK_CLIPS].tolist()
        for first in range(0, len(ready), BLOCK_CLIPS)
    ]
    for block in track(blocks, len(blocks), "Packing", unit="blocks"):
        steps = np.array(rows["steps"][block])
        labels, mask = (np.array(rows[name][block]) for name in ("labels", "mask"))
        keys = [f"{out.stem}/{row}" for row in block]
        writer.add(compress(steps), steps.shape[1:], labels, mask, keys)
    return writer.finish()


def quantised(
    samples: NDArray[np.float32], front: Mapping[str, Any], scale: Scale
) -> NDArray[np.uint8]:
    """Return the features of a clip.

    Args:
        samples: (441000,) at 44.1 kHz.
        front: Content of a file of `write_front`.
        scale: The scale in it.
    """
    rate_hz = int(front["rate_hz"])
    wanted = _model_samples(rate_hz)
    resampled = soxr.resample(samples, SAMPLE_RATE_HZ, rate_hz)[:wanted]
    return scale.quantise(mel_db(np.pad(resampled, (0, wanted - len(resampled))), front))


def _model_samples(rate_hz: int) -> int:
    return round(CLIP_SAMPLES * rate_hz / SAMPLE_RATE_HZ)


_worker: dict[str, Any] = {}


def _start(folder: str, settings: Mapping[str, Any], front: str) -> None:
    """Prepare a worker process."""
    with np.load(front) as arrays:
        _worker["front"] = {name: arrays[name] for name in arrays.files}
    _worker["scale"] = read_scale(str(_worker["front"]["scale"]))
    _worker["settings"] = settings_of(settings)
    _worker["record"] = clip_recorder(_worker["settings"])
    for name in ROWS:
        _worker[name] = np.load(Path(folder) / f"{name}.npy", mmap_mode="r+")


def _render_row(index: int) -> int:
    front, scale = _worker["front"], _worker["scale"]
    assert isinstance(scale, Scale)
    try:
        samples = _worker["record"](index)
    except RFKerasError as error:  # one clip must not stop a rented machine
        print(f"Clip {index}: {error}", file=sys.stderr, flush=True)
        return index
    _worker["steps"][index] = quantised(samples, front, scale)
    _worker["labels"][index], _worker["mask"][index] = clip_labels(_worker["settings"], index)
    _worker["done"][index] = 1
    return index


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; 1 if a clip could not be rendered."""
    parser = argparse.ArgumentParser(prog="python -m tools.render_features")
    actions = parser.add_subparsers(dest="action", required=True)
    front = actions.add_parser("front", help="write the numbers of a front-end")
    front.add_argument("output", type=Path)
    front.add_argument("--frontend", default="perceptual_mel_22k")
    front.add_argument("--step-db", type=float, default=0.5)
    render_parser = actions.add_parser("render", help="render clips")
    render_parser.add_argument("folder", type=Path)
    render_parser.add_argument("--settings", type=Path, required=True)
    render_parser.add_argument("--front", type=Path, required=True)
    render_parser.add_argument("--clips", type=int, required=True)
    render_parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    pack_parser = actions.add_parser("pack", help="pack rendered clips into files")
    pack_parser.add_argument("folder", type=Path)
    pack_parser.add_argument("output", type=Path)
    pack_parser.add_argument("--part-mb", type=float, default=50.0)
    options = parser.parse_args(arguments)
    if options.action == "pack":
        for path in pack(options.folder, options.output, options.part_mb):
            print(path)
        return 0
    if options.action == "front":
        write_front(options.output, options.frontend, options.step_db)
        return 0
    # Each worker keeps one core busy. Child processes read this before they load NumPy.
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
    started = time.monotonic()
    settings = json.loads(options.settings.read_text(encoding="utf-8"))
    failed = render(options.folder, settings, options.front, options.clips, options.workers)
    print(
        f"{options.clips} clips in {time.monotonic() - started:.0f} s, {failed} failed",
        flush=True,
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
