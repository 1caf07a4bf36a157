"""Shared parts of the exports to single files: arguments, test audio, comparison, timing."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rfkeras.audio.io import AudioFile, AudioFormat, Waveform
from rfkeras.errors import AudioError, ConfigError, unknown_name
from rfkeras.export.portable import PortableModel
from rfkeras.export.verify import TOLERANCES, Agreement, Run, check, compare
from rfkeras.utils.files import atomic_write

N_EXCERPTS = 48
EXCERPT_SECONDS = 10.0
PRECISIONS = tuple(TOLERANCES)
SYNTHETIC_FRAMES = 300
ROUNDS = 9
Batches = list[NDArray[np.float32]]


@dataclass(frozen=True)
class Exported:
    """A file that was written and compared with its model.

    Attributes:
        path: The file.
        size: Size in bytes.
        precision: "float32", "float16" or "int8".
        operations: Number of uses of each operation.
        agreement: Differences between its outputs and the model's.
    """

    path: Path
    size: int
    precision: str
    operations: dict[str, int]
    agreement: Agreement


class Plan:
    """Checked arguments of an export.

    Args:
        portable: The model to export.
        precision: One of `PRECISIONS`.
        calibration: Batches that determine the ranges of int8.
        trial: Batches for the comparison; None uses the calibration batches, or synthetic ones.
        max_difference: Largest allowed difference of a clip's score; None: that of the
            precision. See `rfkeras.export.verify.check`.

    Raises:
        ConfigError: The precision is unknown, int8 has no calibration, or the difference is
            not between 0 and 1.
    """

    def __init__(
        self,
        portable: PortableModel,
        precision: str,
        calibration: Sequence[NDArray[np.float32]] | None,
        trial: Sequence[NDArray[np.float32]] | None,
        max_difference: float | None = None,
    ):
        if precision not in PRECISIONS:
            raise ConfigError(unknown_name("precision", str(precision), PRECISIONS))
        if precision == "int8" and not calibration:
            raise ConfigError(
                "precision='int8' needs calibration=, batches of real audio that determine the "
                "ranges of the integers. See rfkeras.export.single_file.read_excerpts."
            )
        if max_difference is not None and not 0 <= max_difference <= 1:
            raise ConfigError(f"max_difference must be 0 to 1. Received: {max_difference!r}.")
        self.portable, self.precision = portable, precision
        self.max_difference = max_difference
        self.calibration = list(calibration or ())
        self.trial = list(trial or self.calibration or synthetic_batches(portable))


def write_checked(
    plan: Plan,
    path: Path,
    run: Run,
    operations: dict[str, int],
    write: Callable[[Path], None],
) -> Exported:
    """Compare a converted model with its source, then write it.

    Raises:
        ExportError: The converted model differs too much; nothing is written.
    """
    agreement = compare(plan.portable, run, plan.trial)
    check(agreement, plan.precision, plan.max_difference)
    with atomic_write(path) as aside:
        write(aside)
    return Exported(path, path.stat().st_size, plan.precision, operations, agreement)


@dataclass(frozen=True)
class Excerpts:
    """Waveforms at a model's sample rate, and their source.

    Attributes:
        waveforms: Each (samples,) or (samples, 2), float32.
        audio: Their sample rate and channels.
        source: Description for reports.
        unreadable: Files that could not be read, with reasons.
    """

    waveforms: list[Waveform]
    audio: AudioFormat
    source: str
    unreadable: tuple[str, ...] = ()


def read_excerpts(
    sources: Sequence[Path], audio: AudioFormat, count: int = N_EXCERPTS
) -> Excerpts:
    """Read the middle 10 s of some files, evenly spread; shorter files are read whole.

    Args:
        sources: Audio files, and folders that are searched at any depth.
        audio: The model's sample rate and channels.
        count: Maximum number of files to read.

    Raises:
        ConfigError: There is no audio file.
        AudioError: None of the chosen files can be read; reports the first error.
    """
    from rfkeras.audio.find import find_audio

    found = find_audio(sources)
    files = [file for file in found if file.error is None]
    unreadable = [f"{file.name}: {file.error}" for file in found if file.error is not None]
    step = max(1.0, len(files) / count)
    chosen = [files[int(i * step)] for i in range(min(count, len(files)))]
    waveforms: list[Waveform] = []
    first_error: AudioError | None = None
    for file in chosen:
        try:
            with AudioFile(file.path, audio) as opened:
                samples = min(opened.length, audio.samples(EXCERPT_SECONDS))
                waveforms.append(opened.read((opened.length - samples) // 2, samples))
        except AudioError as error:
            first_error = first_error or error
            unreadable.append(str(error))
    if not waveforms:
        raise first_error or ConfigError(
            f"No readable audio in {', '.join(map(str, sources))}."
        )
    where = ", ".join(map(str, sources))
    source = f"{len(waveforms)} excerpts from {where}"
    return Excerpts(waveforms, audio, source, tuple(unreadable))


def generated_clips(root: Path | None = None) -> Path | None:
    """Return the audio folder of the largest cached gm_instruments data set, or None."""
    from rfkeras.utils.files import default_cache_dir

    root = default_cache_dir() if root is None else root
    folders = root.glob("gm_instruments-v*/openmic-2018/audio")
    return max(folders, key=lambda folder: sum(1 for _ in folder.glob("*/*")), default=None)


def synthetic_excerpts(audio: AudioFormat, count: int = 6) -> Excerpts:
    """Generate decaying tones over soft noise, for comparisons but not for calibration."""
    rng = np.random.default_rng(0)
    samples = audio.samples(EXCERPT_SECONDS)
    time = np.arange(samples) / audio.sample_rate_hz
    waveforms: list[NDArray[np.float32]] = []
    for _ in range(count):
        waveform = 0.003 * rng.normal(size=samples)
        for onset in np.arange(0.0, EXCERPT_SECONDS, 0.5):
            hz, since = 55.0 * 2 ** rng.uniform(0, 5), np.maximum(time - onset, 0.0)
            waveform += 0.1 * np.sin(2 * np.pi * hz * since) * np.exp(-4.0 * since)
        mono = np.clip(waveform, -1, 1).astype(np.float32)
        stereo = np.stack([mono, np.roll(mono, 100)], axis=-1)
        waveforms.append(stereo if audio.channels == 2 else mono)
    return Excerpts(waveforms, audio, f"{count} synthetic excerpts")


def trial_batches(excerpts: Excerpts) -> Batches:
    """Return batches of several sizes and lengths for a comparison.

    These are every excerpt by itself; the first three together, cut to the shortest; a third of
    one; and 50 samples, which is shorter than any network needs.
    """
    waveforms = excerpts.waveforms
    shortest = min(len(waveform) for waveform in waveforms)
    first = waveforms[0]
    return [
        *(waveform[None] for waveform in waveforms),
        np.stack([waveform[:shortest] for waveform in waveforms[:3]]),
        first[None, : max(1, len(first) // 3)],
        first[None, :50],
    ]


def synthetic_batches(portable: PortableModel) -> list[NDArray[np.float32]]:
    """Return synthetic inputs: tones, or noise for models that take spectrograms."""
    shape = portable.input_shape
    if portable.input_name == "waveform" and "sample_rate_hz" in portable.card:
        audio = AudioFormat(portable.card["sample_rate_hz"], portable.card["channels"])
        return trial_batches(synthetic_excerpts(audio, count=3))
    rng = np.random.default_rng(0)
    free = (SYNTHETIC_FRAMES, SYNTHETIC_FRAMES // 2)
    return [
        rng.normal(size=(batch, *(size or free[i] for i, size in enumerate(shape[1:])))).astype(
            np.float32
        )
        for batch in (1, 2)
    ]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress standard output and error in the block, including native code, and warnings.

    Errors still raise exceptions. Warnings and log records of converters are meant for their
    developers.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    kept = [os.dup(number) for number in (1, 2)]
    disabled = logging.root.manager.disable
    try:
        with tempfile.TemporaryFile() as nowhere, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            logging.disable(logging.CRITICAL)
            for number in (1, 2):
                os.dup2(nowhere.fileno(), number)
            with (
                contextlib.redirect_stdout(io.StringIO()),
                contextlib.redirect_stderr(io.StringIO()),
            ):
                yield
    finally:
        logging.disable(disabled)
        for number, original in zip((1, 2), kept, strict=True):
            os.dup2(original, number)
            os.close(original)


def time_alternately(
    calls: Mapping[str, Callable[[], Any]], rounds: int = ROUNDS
) -> dict[str, float]:
    """Return the median milliseconds of each call.

    The calls take turns, so that other load affects all of them equally. Each is called once
    before, because first calls allocate memory.

    Args:
        calls: By name.
        rounds: Number of turns.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(rounds):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - started)
    return {name: 1000.0 * median(values) for name, values in seconds.items()}
