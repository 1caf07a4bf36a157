"""Data sets of ensembles: `rfkeras data compose`.

Every part of a clip has a source of its own, a preset of a sound font or recorded notes, and
the mix goes through a chain of recording. Some clips have no instrument at all, but silence,
noise, weather, machines, birds or own recordings: a model that has heard music alone finds an
instrument in everything, and these clips show it what has none.

The folder has the layout of OpenMIC-2018. Everything is a function of the settings and the
clip's number, so that a killed call can be continued and a data set can grow.
"""

from __future__ import annotations

import importlib.metadata
import json
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import signal

from rfkeras.audio.find import find_audio
from rfkeras.audio.io import AudioFormat, read_audio
from rfkeras.errors import ConfigError, unknown_name
from rfkeras.synthesis import ensemble, performance
from rfkeras.synthesis.clip_files import (
    COMPOSED,
    ClipJournal,
    announce_wait,
    checksum,
    clip_key,
    complete_audio,
    label_files,
)
from rfkeras.synthesis.ensemble import compose_ensemble
from rfkeras.synthesis.generate import FIRST_TEST_INDEX
from rfkeras.synthesis.mapping import CLASSES
from rfkeras.synthesis.performance import load_sounds, perform
from rfkeras.synthesis.recording_chain import draw_chain
from rfkeras.synthesis.recordings import load_recordings
from rfkeras.synthesis.render import CLIP_SAMPLES, SAMPLE_RATE_HZ, encode_ogg
from rfkeras.utils.files import exclusive, remove_leftovers, write_bytes, write_text
from rfkeras.utils.processes import usable_cores

MAX_CLIPS = 500_000

NEGATIVE_RATE = 0.06
"""Probability that a clip has no instrument."""

FILE_RATE = 0.4
"""Probability that such a clip is an excerpt of a given sound file, if there are some."""

_PEAK = 0.5

Samples = NDArray[np.float64]


@dataclass(frozen=True)
class Settings:
    """Settings of a composed data set. With its number, they determine a clip.

    Attributes:
        fonts: Paths of sound fonts, which may be partial.
        recordings: Path of a table of recorded notes; None for sound fonts only.
        leave_out: Names of recordings that are not used.
        recording_share: Probability that a recording plays a part, if one fits; None for
            `sources.recording_share`.
        negatives: Paths of sound files without instruments, such as speech.
        negative_rate: Probability that a clip has no instrument.
        parts: Smallest and largest number of parts.
        featured: Classes that are featured in turn.
        chain: Whether clips go through a chain of recording.
        seed: Seed of every choice.
    """

    fonts: tuple[str, ...] = ()
    recordings: str | None = None
    leave_out: tuple[str, ...] = ()
    recording_share: float | None = None
    negatives: tuple[str, ...] = ()
    negative_rate: float = NEGATIVE_RATE
    parts: tuple[int, int] = (1, 8)
    featured: tuple[str, ...] = CLASSES
    chain: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        low, high = self.parts
        if not 1 <= low <= high <= max(ensemble.PART_COUNTS):
            raise ConfigError(
                "The number of parts must be a range within 1 and "
                f"{max(ensemble.PART_COUNTS)}, such as 1-8. Received: {low}-{high}."
            )
        for name in self.featured:
            if name not in CLASSES:
                raise ConfigError(unknown_name("class", name, CLASSES))
        if not self.featured:
            raise ConfigError("At least one class must be featured.")
        rates = {"recording_share": self.recording_share, "negative_rate": self.negative_rate}
        for name, rate in rates.items():
            if rate is not None and not 0 <= rate <= 1:
                raise ConfigError(f"{name} must be within 0 and 1. Received: {rate}.")
        if self.seed < 0:
            raise ConfigError(f"The seed must be 0 or more. Received: {self.seed}.")
        if self.leave_out and self.recordings is None:
            raise ConfigError(
                "Without a table of recorded notes, none can be left out. Received: "
                f"{', '.join(self.leave_out)}."
            )


def parse_parts(text: str) -> tuple[int, int]:
    """Return the range of a text such as "1-8", or "1" for one part alone.

    Raises:
        ConfigError: The text is no range.
    """
    match = re.fullmatch(r"(\d+)(?:-(\d+))?", text.strip())
    if match is None:
        raise ConfigError(
            "The number of parts must be a range such as 1-8, or one number. "
            f'Received: "{text}".'
        )
    return int(match[1]), int(match[2] or match[1])


def find_negatives(folder: Path) -> tuple[str, ...]:
    """Return the paths of all sound files in a folder, sorted.

    Raises:
        ConfigError: There is no such folder, or no sound file in it.
    """
    if not folder.is_dir():
        raise ConfigError(f"The folder of sounds without instruments does not exist: {folder}.")
    return tuple(sorted(str(file.path.resolve()) for file in find_audio([folder])))


def compose_clips(
    out: Path,
    clips: int,
    settings: Settings,
    *,
    test_share: float = 0.1,
    workers: int | None = None,
    progress: bool = True,
) -> Path:
    """Make a data set of ensembles in the layout of OpenMIC-2018, or complete one.

    The call may be killed at any time: the next one continues where it stopped. With the same
    settings and more clips, a data set grows. A second call on the same folder waits.

    Args:
        out: Folder of the data set.
        clips: Number of clips, 2 to 500000, test split included.
        settings: What the clips are.
        test_share: Share of the test split, whose clips are other compositions.
        workers: Number of processes; None for one per core.
        progress: Show progress on standard error.

    Returns:
        The folder.

    Raises:
        ConfigError: An argument has a value that is not allowed, the folder cannot be written
            or contains a data set with other settings, or a sound font or table is wrong.
        DatasetError: A part cannot be played, or a clip could not be made.
    """
    workers = usable_cores() if workers is None else workers
    if not 2 <= clips <= MAX_CLIPS or not 0 < test_share < 1 or workers < 1:
        raise ConfigError(
            f"A data set has 2 to {MAX_CLIPS} clips, a test share between 0 and 1 and at least "
            f"1 worker. Received: clips={clips}, test_share={test_share}, workers={workers}."
        )
    if not settings.fonts and settings.recordings is None:
        raise ConfigError("Music needs a sound font (.sf2) or a table of recorded notes.")
    described = describe(settings)
    folder = out.expanduser().resolve()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder}: the folder cannot be created: {error}.") from error

    with exclusive(folder / ".lock", announce_wait(folder, progress=progress)):
        remove_leftovers(folder)
        journal = ClipJournal(folder / "clips.sha256")
        # A first call that failed, such as for a wrong table, must not forbid to mend it.
        if journal.read() or not (folder / COMPOSED).is_file():
            _check_settings(folder, described)
        write_text(folder / COMPOSED, json.dumps(described, indent=1) + "\n")
        test = min(clips - 1, max(1, round(clips * test_share)))
        splits = (range(clips - test), range(FIRST_TEST_INDEX, FIRST_TEST_INDEX + test))
        indices = [*splits[0], *splits[1]]
        complete_audio(
            folder,
            journal,
            {"kind": "ensembles", **asdict(settings)},
            indices,
            workers=workers,
            what=folder.name,
            progress=progress,
            changing=lambda: None,
        )
        train, held = ([clip_key(settings.seed, index) for index in split] for split in splits)
        answers = [clip_labels(settings, index) for index in indices]
        for path, content in label_files(train, held, answers).items():
            write_bytes(folder / path, content)
    return folder


def describe(settings: Settings) -> dict[str, Any]:
    """Return the settings as JSON, with the checksums and credits of what is played.

    Raises:
        ConfigError: A sound font or the table is wrong.
        DatasetError: A sound file of the table does not exist.
    """
    sounds = load_sounds([Path(path) for path in settings.fonts]) if settings.fonts else None
    content: dict[str, Any] = {
        "name": "composed",
        "version": [ensemble.VERSION, performance.VERSION],
        **json.loads(json.dumps(asdict(settings))),
        "fonts": [
            {"file": font.font.path.name, "sha256": font.font.sha256}
            for font in (sounds.fonts if sounds else ())
        ],
        "negatives": [
            {"file": Path(path).name, "sha256": checksum(Path(path))}
            for path in settings.negatives
        ],
    }
    if settings.recordings is not None:
        table = Path(settings.recordings)
        recordings = load_recordings(table, settings.leave_out)
        content["recordings"] = {"file": table.name, "sha256": checksum(table)}
        content["credits"] = [asdict(credit) for credit in recordings.credits()]
    made_with = ("midirenderer", "soundfile", "soxr", "numpy", "scipy", "av")
    content["made_with"] = {name: importlib.metadata.version(name) for name in made_with}
    return content


def _check_settings(folder: Path, described: Mapping[str, Any]) -> None:
    """Raise an error if the folder contains clips that were made with other settings."""
    path = folder / COMPOSED
    if not path.is_file():
        if any(folder.glob("*.npz")):
            raise ConfigError(
                f"{folder} contains another data set, without {COMPOSED}. Choose an empty "
                "folder."
            )
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        before = {}
    if not isinstance(before, dict):
        before = {}
    # Other versions of packages may change the last bit, which no one hears.
    names = [name for name in described if name not in ("made_with", "credits")]
    changed = [name for name in names if before.get(name) != described[name]]
    if changed:
        raise ConfigError(
            f"{folder} contains clips that were made with other settings: "
            f"{', '.join(changed)}. Repeat the settings in {path}, or choose another folder."
        )


def _is_negative(settings: Settings, index: int) -> bool:
    return _stream(settings.seed, index, "negative").random() < settings.negative_rate


def clip_labels(settings: Settings, index: int) -> tuple[tuple[int, ...], tuple[bool, ...]]:
    """Return the labels and the mask of a clip.

    Args:
        settings: Settings of the data set.
        index: Number of the clip.
    """
    if _is_negative(settings, index):
        return (0,) * len(CLASSES), (True,) * len(CLASSES)
    piece = _compose(settings, index)
    return piece.composition.labels, piece.composition.mask


def _compose(settings: Settings, index: int) -> ensemble.Piece:
    return compose_ensemble(
        settings.seed, index, parts=settings.parts, featured=settings.featured
    )


def ensemble_maker(maker: Mapping[str, Any]) -> Callable[[int], bytes]:
    """Return a function from the number of a clip to its Ogg file.

    Args:
        maker: Fields of Settings; lists may stand for tuples, and other entries are ignored.
    """
    record = clip_recorder(settings_of(maker))
    return lambda index: encode_ogg(record(index), SAMPLE_RATE_HZ)


def settings_of(fields: Mapping[str, Any]) -> Settings:
    """Return settings from JSON, in which lists stand for tuples; other entries are ignored."""
    given: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in fields.items()
        if name in Settings.__dataclass_fields__
    }
    return Settings(**given)


def clip_recorder(settings: Settings) -> Callable[[int], NDArray[np.float32]]:
    """Return a function from the number of a clip to its samples, (441000,) at 44.1 kHz."""
    sounds = load_sounds(
        [Path(path) for path in settings.fonts],
        None if settings.recordings is None else Path(settings.recordings),
        settings.leave_out,
        settings.recording_share,
    )
    files = [Path(path) for path in settings.negatives]

    def record(index: int) -> NDArray[np.float32]:
        if not _is_negative(settings, index):
            piece = _compose(settings, index)
            return perform(piece, sounds, settings.seed, index, chain=settings.chain).samples
        rng = _stream(settings.seed, index, "sound")
        samples, _ = draw_negative(rng, files, CLIP_SAMPLES, SAMPLE_RATE_HZ)
        return draw_chain(rng).apply(samples, SAMPLE_RATE_HZ) if settings.chain else samples

    return record


def _stream(seed: int, index: int, purpose: str) -> random.Random:
    """Return the random stream of one aspect of one clip."""
    return random.Random(f"composed/{seed}/{index}/{purpose}")


# Clips without instruments


def silence(rng: np.random.Generator, samples: int, rate_hz: int) -> Samples:
    """Return digital silence."""
    del rng, rate_hz
    return np.zeros(samples)


def noise(rng: np.random.Generator, samples: int, rate_hz: int) -> Samples:
    """Return noise whose power falls by 0 to 8 dB an octave, in a random band."""
    coloured = _coloured(rng, samples, rng.uniform(0, 8))
    if rng.random() < 0.5:
        low_hz = np.exp(rng.uniform(np.log(30), np.log(2000)))
        high_hz = min(low_hz * np.exp(rng.uniform(1, 4)), 0.45 * rate_hz)
        sections = signal.butter(2, (low_hz, high_hz), "bandpass", fs=rate_hz, output="sos")
        coloured = signal.sosfilt(sections, coloured)
    return np.asarray(coloured)


def weather(rng: np.random.Generator, samples: int, rate_hz: int) -> Samples:
    """Return wind or rain: low noise that swells, and many drops."""
    wind = _coloured(rng, samples, rng.uniform(4, 9)) * _swell(rng, samples, rate_hz, 1.5)
    rate = np.exp(rng.uniform(np.log(5), np.log(2000)))
    drops = (rng.random(samples) < rate / rate_hz) * rng.exponential(1.0, samples)
    centre_hz = rng.uniform(1000, min(6000, 0.4 * rate_hz))
    band = (0.7 * centre_hz, 1.1 * centre_hz)
    sections = signal.butter(1, band, "bandpass", fs=rate_hz, output="sos")
    rain = signal.sosfilt(sections, drops)
    return _scaled(wind) * rng.uniform(0, 1) + _scaled(np.asarray(rain)) * rng.uniform(0, 1)


def engine(rng: np.random.Generator, samples: int, rate_hz: int) -> Samples:
    """Return a motor: uneven explosions at a wandering speed, and its exhaust."""
    low_hz = np.exp(rng.uniform(np.log(15), np.log(120)))
    speed = low_hz * np.exp(0.3 * _wander(rng, samples, rate_hz, rng.uniform(1, 8)))
    phase = np.cumsum(speed) / rate_hz
    fired = np.diff(np.floor(phase), prepend=0.0) > 0
    pulses = np.zeros(samples)
    pulses[fired] = rng.uniform(0.5, 1.0, int(fired.sum()))
    body = signal.butter(1, rng.uniform(80, 900), fs=rate_hz, output="sos")
    hiss = _coloured(rng, samples, rng.uniform(2, 6))
    return _scaled(np.asarray(signal.sosfilt(body, pulses))) + 0.3 * rng.random() * _scaled(
        hiss
    )


def birds(rng: np.random.Generator, samples: int, rate_hz: int) -> Samples:
    """Return birds: short calls of quickly sweeping tones between 1.5 and 8 kHz."""
    result = np.zeros(samples)
    for _ in range(int(rng.integers(1, 4))):
        centre_hz = rng.uniform(2000, min(6500, 0.35 * rate_hz))
        sweep = rng.uniform(0.02, 0.5) * rng.choice((-1, 1))
        trill_hz, depth = rng.uniform(5, 60), rng.uniform(0, 0.15)
        length_s, gap_s = rng.uniform(0.03, 0.4), rng.uniform(0.03, 1.5)
        start = rng.uniform(0, 1)
        while start < samples / rate_hz:
            count = min(int(length_s * rate_hz), samples - int(start * rate_hz))
            time = np.arange(count) / rate_hz
            place = time / length_s
            pitch = centre_hz * np.exp(
                sweep * (place - 0.5) + depth * np.sin(2 * np.pi * trill_hz * time)
            )
            call = np.sin(2 * np.pi * np.cumsum(pitch) / rate_hz) * np.sin(np.pi * place) ** 2
            first = int(start * rate_hz)
            result[first : first + count] += call * rng.uniform(0.3, 1.0)
            start += length_s + gap_s * rng.uniform(0.5, 2.0)
    background = _scaled(_coloured(rng, samples, rng.uniform(3, 7)))
    return _scaled(result) + 0.1 * rng.random() * background


KINDS: dict[str, Callable[[np.random.Generator, int, int], Samples]] = {
    "silence": silence,
    "noise": noise,
    "weather": weather,
    "engine": engine,
    "birds": birds,
}


def draw_negative(
    rng: random.Random, files: Sequence[Path], samples: int, rate_hz: int
) -> tuple[NDArray[np.float32], str]:
    """Return a clip without instruments and what it is.

    Args:
        rng: Source of every choice.
        files: Sound files without instruments, such as speech. They are repeated if they are
            shorter than the clip.
        samples: Length of the clip.
        rate_hz: Sampling rate.

    Returns:
        (samples,) mono with a peak of 0.5, unless it is silent; and a kind of KINDS or the
        name of a file.

    Raises:
        AudioError: A file cannot be decoded.
    """
    if files and rng.random() < FILE_RATE:
        path = rng.choice(files)
        return _excerpt(rng, path, samples, rate_hz), path.name
    kind = rng.choice(tuple(KINDS))
    made = KINDS[kind](np.random.default_rng(rng.getrandbits(64)), samples, rate_hz)
    return (_PEAK * _scaled(made)).astype(np.float32), kind


def _excerpt(rng: random.Random, path: Path, samples: int, rate_hz: int) -> NDArray[np.float32]:
    """Return a random excerpt of a file, which is repeated if it is short."""
    whole = np.asarray(read_audio(path, AudioFormat(rate_hz, 1)), np.float64).reshape(-1)
    start = rng.randrange(max(1, len(whole) - samples + 1))
    excerpt = np.resize(whole[start : start + samples], samples)
    return (_PEAK * _scaled(excerpt)).astype(np.float32)


def _coloured(rng: np.random.Generator, samples: int, slope_db: float) -> Samples:
    """Return noise whose power falls by so many decibels an octave, above 20 cycles."""
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    octave = np.log2(np.maximum(np.arange(len(spectrum)), 20) / 20)
    return np.asarray(np.fft.irfft(spectrum * 10 ** (-slope_db * octave / 20), samples))


def _wander(rng: np.random.Generator, samples: int, rate_hz: int, seconds: float) -> Samples:
    """Return a smooth random curve of about -1 to 1 that turns every few seconds."""
    points = max(4, int(samples / rate_hz / seconds * 2) + 4)
    knots = np.interp(
        np.linspace(0, points - 1, samples), np.arange(points), rng.uniform(-1, 1, points)
    )
    return np.asarray(knots)


def _swell(rng: np.random.Generator, samples: int, rate_hz: int, seconds: float) -> Samples:
    """Return gains between 0.1 and 1 that rise and fall slowly."""
    return np.asarray(0.55 + 0.45 * _wander(rng, samples, rate_hz, seconds))


def _scaled(samples: Samples) -> Samples:
    """Return samples with a peak of 1; silence stays silent."""
    peak = np.max(np.abs(samples), initial=0.0)
    return samples / peak if peak > 0 else samples
