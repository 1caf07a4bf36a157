"""Load sound fonts, and turn compositions into audio files.

`render` plays each part separately, balances the parts by loudness, adds them and sets the
level of the clip. `encode_ogg` encodes the result, always in the same bytes.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import io
import os
import struct
import warnings
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from rfkeras.errors import ConfigError, DatasetError
from rfkeras.synthesis.compose import Composition, Part
from rfkeras.synthesis.curves import Expression, bend_events, expression_events
from rfkeras.synthesis.mapping import KITS, programs_used
from rfkeras.synthesis.song import CLIP_SECONDS, LEAD_SECONDS

with warnings.catch_warnings():
    # pretty_midi 0.2.11 imports pkg_resources, which warns that it is deprecated.
    warnings.simplefilter("ignore")
    import pretty_midi

SAMPLE_RATE_HZ = 44100
CLIP_SAMPLES = int(CLIP_SECONDS * SAMPLE_RATE_HZ)
CLIP_RMS = 0.05
"""RMS of every clip (26 dB below full scale), before a random gain of at most 2 dB."""

RENDER_RATE_HZ = 48000
_RENDER_SAMPLES = int((LEAD_SECONDS + CLIP_SECONDS) * RENDER_RATE_HZ)
_TICKS_PER_BEAT = 960
_FADE_SAMPLES = 220

# Loudness: frame length, and the thresholds relative to full scale and to the mean.
_FRAME_SECONDS = 0.4
_FLOOR_DB = -70.0
_GATE_DB = -10.0

# Peaks above the knee bend softly and stay below the peak limit.
_KNEE = 0.7
_PEAK = 0.97

_DEFAULT_NAME = "TimGM6mb"
DRUM_BANK = 128
_PRESET_BYTES = 38

_OGG_SERIAL = (1).to_bytes(4, "little")
_OGG_HEADER_BYTES = 27
# Ogg's CRC is zlib's polynomial with the bits of each byte, and of the result, reversed.
_REVERSED_BITS = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


@dataclass(frozen=True)
class SoundFont:
    """A checked sound font.

    Attributes:
        path: The file.
        content: Its bytes.
        sha256: Their checksum, hexadecimal.
        kits: Programs of its drum kits.
    """

    path: Path
    content: bytes
    sha256: str
    kits: frozenset[int]


def default_sound_font() -> Path:
    """Return the path of TimGM6mb.sf2 in pretty_midi, without importing that package.

    Raises:
        DatasetError: pretty_midi is not installed, or no longer contains the sound font.
    """
    spec = importlib.util.find_spec("pretty_midi")
    if spec is not None and spec.origin is not None:
        path = Path(spec.origin).parent / "TimGM6mb.sf2"
        if path.is_file():
            return path
    raise DatasetError(
        "The sound font TimGM6mb.sf2 was not found. It is part of the package pretty_midi "
        "0.2.11: install that version (pip install pretty_midi==0.2.11), or choose another "
        "sound font."
    )


def parse_sound_fonts(text: str) -> tuple[Path, ...]:
    """Return the absolute paths of the sound fonts listed in a text.

    Args:
        text: One file, or several separated by ":" as in PATH (on Windows by ";").
            "TimGM6mb" is the default font.

    Raises:
        DatasetError: The default font is listed but not installed.
    """
    names = [name for name in text.split(os.pathsep) if name]
    return tuple(
        default_sound_font() if name == _DEFAULT_NAME else Path(name).resolve()
        for name in names
    )


@functools.lru_cache(maxsize=4)
def load_sound_font(path: Path) -> SoundFont:
    """Read a sound font and check that it has every program that the music uses.

    Args:
        path: A SoundFont 2 file (.sf2).

    Raises:
        ConfigError: The file does not exist or is not in SoundFont 2 format.
        DatasetError: Programs are missing. Substitutes would make the labels wrong.
    """
    content, presets = read_sound_font(path)
    missing = sorted(programs_used() - {program for bank, program in presets if bank == 0})
    kits = frozenset(program for bank, program in presets if bank == DRUM_BANK)
    if missing or KITS[0] not in kits:
        raise DatasetError(
            f"{path}: the sound font needs a standard drum kit (bank {DRUM_BANK}, program "
            f"{KITS[0]}) and all GM programs that the music uses. Missing programs: {missing}. "
            f"Drum kits found: {sorted(kits)}. Use a complete General MIDI sound font."
        )
    return SoundFont(path, content, hashlib.sha256(content).hexdigest(), kits)


def read_sound_font(path: Path) -> tuple[bytes, frozenset[tuple[int, int]]]:
    """Read a sound font that may be partial.

    Args:
        path: A SoundFont 2 file (.sf2).

    Returns:
        The bytes of the file, and (bank, program) of its presets. Drum kits are in bank 128.

    Raises:
        ConfigError: The file does not exist or is not in SoundFont 2 format.
    """
    if not path.is_file():
        raise ConfigError(
            f"The sound font must be an .sf2 file. Received: {path}, which does not exist."
        )
    content = path.read_bytes()
    presets = frozenset(_presets(content))
    if content[:4] != b"RIFF" or content[8:12] != b"sfbk" or not presets:
        raise ConfigError(
            f"The sound font must be in SoundFont 2 format (.sf2). Received: {path}, which is "
            "in another format."
        )
    return content, presets


def _presets(content: bytes) -> set[tuple[int, int]]:
    """Return (bank, program) of every preset in the font's header."""
    # The header is in the last chunk, so audio samples that spell "phdr" cannot mislead.
    place = content.rfind(b"phdr")
    if place < 0 or place + 8 > len(content):
        return set()
    size = int.from_bytes(content[place + 4 : place + 8], "little")
    table = content[place + 8 : place + 8 + size]
    # The last record only marks the end.
    starts = range(0, len(table) - 2 * _PRESET_BYTES + 1, _PRESET_BYTES)
    found = (struct.unpack_from("<HH", table, start + 20) for start in starts)
    return {(bank, program) for program, bank in found}


def render(composition: Composition, font: SoundFont) -> NDArray[np.float32]:
    """Play a composition with a sound font.

    Args:
        composition: The clip.
        font: The sound font.

    Returns:
        (441000,) float32, mono at 44.1 kHz.

    Raises:
        DatasetError: The sound font cannot be played, or a part that should be heard is
            silent with it.
    """
    # Renderers replace a missing kit by the first one; choosing it here makes that certain.
    kit = composition.kit if composition.kit in font.kits else 0
    return mix(
        composition,
        (render_stem(part, kit, composition.tuning_cents, font) for part in composition.parts),
    )


def render_stem(
    part: Part,
    kit: int,
    tuning_cents: float,
    font: SoundFont,
    *,
    bank: int = 0,
    expression: Expression | None = None,
) -> NDArray[Any]:
    """Render one part: (480000,) float32, mono at 48 kHz, at the sound font's own level.

    Args:
        part: The part.
        kit: Program for drums and cymbals.
        tuning_cents: Tuning relative to 440 Hz; kits are not tuned.
        font: The sound font.
        bank: Bank of the part's program. Kits always use bank 128.
        expression: Curves of pitch and level; None for none. The notes are those of the part.

    Raises:
        DatasetError: midirenderer is not installed, or it rejects the sound font.
    """
    mono = play_midi(_midi_file(part, kit, tuning_cents, bank, expression), font)
    mono = mono[:_RENDER_SAMPLES]
    mono = np.pad(mono, (0, _RENDER_SAMPLES - len(mono)))
    return np.asarray(mono[int(LEAD_SECONDS * RENDER_RATE_HZ) :])


def play_midi(content: bytes, font: SoundFont) -> NDArray[Any]:
    """Render a MIDI file up to its last event: (samples,) float32, mono at 48 kHz.

    Args:
        content: Bytes of the MIDI file.
        font: The sound font.

    Raises:
        DatasetError: midirenderer is not installed, or it rejects the sound font or the file.
    """
    renderer = _load_renderer()
    try:
        wave = renderer.render_wave_from(font.content, content)
    except Exception as error:  # a native module that does not document its exceptions
        raise DatasetError(f"{font.path}: the sound font cannot be played: {error}") from error
    stereo, _ = soundfile.read(io.BytesIO(wave), dtype="float32", always_2d=True)
    return np.asarray(stereo.mean(axis=1))


def _load_renderer() -> Any:
    try:
        import midirenderer
    except ImportError as error:
        raise DatasetError(
            "Rendering music needs midirenderer (pip install midirenderer==0.1.3). It exists "
            "for Linux x86-64, macOS and Windows, and for Linux on ARM with glibc 2.34 or "
            "newer. Elsewhere, render the data set on another machine and copy its folder."
        ) from error
    return midirenderer


def _midi_file(
    part: Part, kit: int, tuning_cents: float, bank: int, expression: Expression | None
) -> bytes:
    """Return a part as a MIDI file that begins LEAD_SECONDS before the clip.

    The arguments are those of `render_stem`.
    """
    is_kit = part.casting.instrument.family == "kit"
    song = pretty_midi.PrettyMIDI(resolution=_TICKS_PER_BEAT, initial_tempo=120.0)
    track = pretty_midi.Instrument(kit if is_kit else part.casting.program, is_drum=is_kit)
    for controller, value in ((91, part.reverb), (1, part.vibrato)):
        track.control_changes.append(pretty_midi.ControlChange(controller, value, 0.0))
    if bank and not is_kit:
        track.control_changes.append(pretty_midi.ControlChange(0, bank, 0.0))
    curves = expression or Expression(part.notes)
    window = (-LEAD_SECONDS, CLIP_SECONDS)
    if not is_kit:
        track.pitch_bends.extend(
            pretty_midi.PitchBend(wheel, time + LEAD_SECONDS)
            for time, wheel in bend_events(curves.bend_cents, tuning_cents, window)
        )
    if len(curves.level_db):
        track.control_changes.extend(
            pretty_midi.ControlChange(11, value, time + LEAD_SECONDS)
            for time, value in expression_events(curves.level_db, window)
        )
    track.notes.extend(
        pretty_midi.Note(
            note.velocity, note.pitch, note.start + LEAD_SECONDS, note.end + LEAD_SECONDS
        )
        for note in part.notes
    )
    # The renderer stops at the last event. This one makes it play all decays to the end.
    end = LEAD_SECONDS + CLIP_SECONDS + 0.05
    track.control_changes.append(pretty_midi.ControlChange(91, part.reverb, end))
    song.instruments.append(track)
    buffer = io.BytesIO()
    song.write(buffer)
    return buffer.getvalue()


def mix(composition: Composition, stems: Iterable[NDArray[Any]]) -> NDArray[np.float32]:
    """Balance stems by loudness, add them and set the level of the clip.

    Args:
        composition: The clip.
        stems: One (480000,) array at 48 kHz per part.

    Returns:
        (441000,) float32 at 44.1 kHz.

    Raises:
        DatasetError: A part that should be heard is silent.
    """
    total = np.zeros(int(CLIP_SECONDS * RENDER_RATE_HZ))
    for part, stem in zip(composition.parts, stems, strict=True):
        loudness = gated_loudness(stem, RENDER_RATE_HZ)
        if np.isfinite(loudness):
            total += stem * 10 ** ((part.level_db - loudness) / 20)
        elif part.heard:
            raise DatasetError(
                f"{part.casting.instrument.name} (program {part.casting.program}, pitches "
                f"{part.casting.low} to {part.casting.high}) is silent with this sound font. "
                "Use a complete General MIDI sound font."
            )
    resampled = soxr.resample(total, RENDER_RATE_HZ, SAMPLE_RATE_HZ)[:CLIP_SAMPLES]
    clip = np.pad(resampled, (0, CLIP_SAMPLES - len(resampled)))
    ramp = np.linspace(0, 1, _FADE_SAMPLES)
    clip[:_FADE_SAMPLES] *= ramp
    clip[-_FADE_SAMPLES:] *= ramp[::-1]
    return with_rms(clip, CLIP_RMS * 10 ** (composition.jitter_db / 20))


def _k_weighting(frequency_hz: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the power response of ITU-R BS.1770's K-weighting: less bass, more treble."""
    s = 1j * frequency_hz / 1681.97
    high, q = 10 ** (3.99984 / 20), 0.70718
    shelf = (high * s**2 + high**0.49967 * s / q + 1) / (s**2 + s / q + 1)
    r = 1j * frequency_hz / 38.1355
    high_pass = r**2 / (r**2 + r / 0.50033 + 1)
    return np.asarray(np.abs(shelf * high_pass) ** 2)


def gated_loudness(samples: NDArray[np.floating[Any]], sample_rate_hz: int) -> float:
    """Measure the loudness of the parts of a signal that sound, relative to full scale.

    As in BS.1770, frames of 0.4 s are weighted by frequency; silent frames are dropped, then
    frames 10 dB below the mean of the rest. Unlike in BS.1770, frames do not overlap, and
    their spectra are weighted.

    Args:
        samples: (n,) mono, at least one frame long.
        sample_rate_hz: Sampling rate.

    Returns:
        Decibels, rounded to 0.001; minus infinity for silence.
    """
    length = int(_FRAME_SECONDS * sample_rate_hz)
    frames = samples[: len(samples) // length * length].reshape(-1, length)
    power = np.abs(np.fft.rfft(frames, axis=1)) ** 2
    weights = _k_weighting(np.fft.rfftfreq(length, 1 / sample_rate_hz).astype(np.float64))
    # No matrix product: its order of summation would depend on the number of threads.
    energy = 2 * (power * weights).sum(axis=1) / length**2
    energy = energy[energy > 10 ** (_FLOOR_DB / 10)]
    if energy.size == 0:
        return float("-inf")
    energy = energy[energy >= energy.mean() * 10 ** (_GATE_DB / 10)]
    return round(float(10 * np.log10(energy.mean())), 3)


def with_rms(samples: NDArray[np.float64], rms: float) -> NDArray[np.float32]:
    """Scale a clip to a given RMS. Peaks above 0.7 bend softly and stay below 0.97.

    Bending reduces the energy, so scaling and bending alternate until the level is reached.

    Args:
        samples: (n,) mono, not silent.
        rms: Target root mean square, well below the peak limit.

    Returns:
        (n,) float32.
    """
    level = rms
    for _ in range(6):
        shaped = samples * (level / np.sqrt(np.mean(samples**2)))
        size = np.abs(shaped)
        bent = _KNEE + (_PEAK - _KNEE) * np.tanh((size - _KNEE) / (_PEAK - _KNEE))
        shaped = np.where(size > _KNEE, np.sign(shaped) * bent, shaped)
        reached = float(np.sqrt(np.mean(shaped**2)))
        if abs(reached / rms - 1) < 1e-3:
            break
        level *= rms / reached
    return np.asarray(shaped, dtype=np.float32)


def encode_ogg(samples: NDArray[np.float32], sample_rate_hz: int) -> bytes:
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
        table = stream[start + _OGG_HEADER_BYTES : start + _OGG_HEADER_BYTES + segments]
        end = start + _OGG_HEADER_BYTES + segments + sum(table)
        page = bytearray(stream[start:end])
        page[14:18] = _OGG_SERIAL
        page[22:26] = bytes(4)
        page[22:26] = page_checksum(bytes(page)).to_bytes(4, "little")
        pages.append(bytes(page))
        start = end
    return b"".join(pages)


def page_checksum(page: bytes) -> int:
    """Return the CRC-32 of an Ogg page with a zero checksum field (polynomial 04c11db7)."""
    reflected = zlib.crc32(page.translate(_REVERSED_BITS), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{reflected:032b}"[::-1], 2)
