"""What the exports to single files share: their arguments, the check, the file."""

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
from rfkeras.utils.files import replacing

N_EXCERPTS = 48
EXCERPT_SECONDS = 10.0

Batches = list[NDArray[np.float32]]


@dataclass(frozen=True)
class Excerpts:
    """Waveforms at a model's rate, and where they are from.

    Attributes:
        waveforms: Each (samples,) or (samples, 2), float32.
        audio: Their sample rate and channels.
        source: For the reader of a table.
    """

    waveforms: list[Waveform]
    audio: AudioFormat
    source: str


def read_excerpts(
    sources: Sequence[Path], audio: AudioFormat, count: int = N_EXCERPTS
) -> Excerpts:
    """The middle 10 s of some of the files, evenly spread over them; shorter files whole.

    Args:
        sources: Audio files, and folders that are searched at any depth.
        audio: The model's sample rate and channels.
        count: Most files that are read.

    Raises:
        ConfigError: There is no audio file.
        AudioError: None of those that were chosen can be read; the reason of the first.
    """
    from rfkeras.inference.audio_files import find_audio

    files = [file for file in find_audio(sources) if file.error is None]
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
    if not waveforms:
        raise first_error or ConfigError(
            f"No audio can be read under {', '.join(map(str, sources))}."
        )
    where = ", ".join(map(str, sources))
    return Excerpts(waveforms, audio, f"{len(waveforms)} excerpts from {where}")


def generated_clips(root: Path | None = None) -> Path | None:
    """Audio of the largest gm_instruments data set in the cache; None where there is none."""
    from rfkeras.synthesis.generate import default_cache_dir

    root = default_cache_dir() if root is None else root
    folders = root.glob("gm_instruments-v*/openmic-2018/audio")
    return max(folders, key=lambda folder: sum(1 for _ in folder.glob("*/*")), default=None)


def synthetic_excerpts(audio: AudioFormat, count: int = 6) -> Excerpts:
    """Decaying tones over soft noise: enough to compare with, too little to calibrate by."""
    rng = np.random.default_rng(0)
    samples = audio.samples(EXCERPT_SECONDS)
    time = np.arange(samples) / audio.sample_rate_hz
    waveforms = []
    for _ in range(count):
        waveform = 0.003 * rng.normal(size=samples)
        for onset in np.arange(0.0, EXCERPT_SECONDS, 0.5):
            hz, since = 55.0 * 2 ** rng.uniform(0, 5), np.maximum(time - onset, 0.0)
            waveform += 0.1 * np.sin(2 * np.pi * hz * since) * np.exp(-4.0 * since)
        waveform = np.clip(waveform, -1, 1).astype(np.float32)
        if audio.channels == 2:
            waveform = np.stack([waveform, np.roll(waveform, 100)], axis=-1)
        waveforms.append(waveform)
    return Excerpts(waveforms, audio, f"{count} synthetic excerpts")


def trial_batches(excerpts: Excerpts) -> Batches:
    """Batches of several sizes and lengths for a comparison.

    Every excerpt alone; the first ones together, cut to the shortest; a third of one; and
    50 samples, less than any network needs.
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


PRECISIONS = tuple(TOLERANCES)
SYNTHETIC_FRAMES = 300


@dataclass(frozen=True)
class Exported:
    """A file that was written and compared with its model.

    Attributes:
        path: The file.
        size: Bytes.
        precision: "float32", "float16" or "int8".
        operations: How often each operation occurs in it.
        agreement: How far its outputs are from the model's.
    """

    path: Path
    size: int
    precision: str
    operations: dict[str, int]
    agreement: Agreement


class Plan:
    """Arguments of an export, checked.

    Args:
        portable: What is exported.
        precision: One of `PRECISIONS`.
        calibration: Batches that integers are scaled by.
        trial: Batches that are compared; None: the calibration's, or synthetic ones.

    Raises:
        ConfigError: Unknown precision, or int8 without calibration.
    """

    def __init__(
        self,
        portable: PortableModel,
        precision: str,
        calibration: Sequence[NDArray[np.float32]] | None,
        trial: Sequence[NDArray[np.float32]] | None,
    ):
        if precision not in PRECISIONS:
            raise ConfigError(unknown_name("precision", str(precision), PRECISIONS))
        if precision == "int8" and not calibration:
            raise ConfigError(
                "precision='int8' needs calibration=: batches of real audio, by which the "
                "ranges of the integers are set. See rfkeras.export.single_file.read_excerpts."
            )
        self.portable, self.precision = portable, precision
        self.calibration = list(calibration or ())
        self.trial = list(trial or self.calibration or synthetic_batches(portable))


def synthetic_batches(portable: PortableModel) -> list[NDArray[np.float32]]:
    """Inputs where nobody gave audio: tones, or noise in place of a spectrogram."""
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


def write_checked(
    plan: Plan,
    path: Path,
    run: Run,
    operations: dict[str, int],
    write: Callable[[Path], None],
) -> Exported:
    """Compare, then write.

    Raises:
        ExportError: The converted model differs too much; nothing is written.
    """
    agreement = compare(plan.portable, run, plan.trial)
    check(agreement, plan.precision)
    with replacing(path) as aside:
        write(aside)
    return Exported(path, path.stat().st_size, plan.precision, operations, agreement)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Drop what the block writes to standard output and error, native code's notes too.

    What goes wrong comes as an exception all the same. Warnings and the log records of
    converters tell their authors' concerns; they are dropped as well.
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


ROUNDS = 9


def time_alternately(
    calls: Mapping[str, Callable[[], Any]], rounds: int = ROUNDS
) -> dict[str, float]:
    """Median milliseconds of each call.

    The calls take turns, so that what else the machine does meets all of them alike, and
    each is called once before, as first calls allocate.

    Args:
        calls: By name.
        rounds: Turns.
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
