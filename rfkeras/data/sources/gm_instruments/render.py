"""From a composition to sound: stems, their balance, the mix, its level."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable
from typing import Any

import midirenderer
import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from rfkeras.data.sources.gm_instruments.compose import Composition, Part
from rfkeras.data.sources.gm_instruments.loudness import gated_loudness, with_rms
from rfkeras.data.sources.gm_instruments.song import CLIP_SECONDS, LEAD_SECONDS
from rfkeras.data.sources.gm_instruments.soundfont import SoundFont
from rfkeras.errors import DatasetError

with warnings.catch_warnings():
    # pretty_midi 0.2.11 imports pkg_resources, which warns that it is deprecated.
    warnings.simplefilter("ignore")
    import pretty_midi

SAMPLE_RATE_HZ = 44100
CLIP_SAMPLES = int(CLIP_SECONDS * SAMPLE_RATE_HZ)
CLIP_RMS = 0.05
"""Level of every clip (26 dB below full scale), before a random gain of at most 2 dB."""

_RENDER_RATE_HZ = 48000
_RENDER_SAMPLES = int((LEAD_SECONDS + CLIP_SECONDS) * _RENDER_RATE_HZ)
_BEND_RANGE_CENTS = 200.0
_TICKS_PER_BEAT = 960
_FADE_SAMPLES = 220


def midi_of(part: Part, kit: int, tuning_cents: float) -> bytes:
    """A part as a MIDI file that begins LEAD_SECONDS before the clip.

    Args:
        part: The part.
        kit: Program for drums and cymbals.
        tuning_cents: Tuning against 440 Hz; kits are not tuned.
    """
    is_kit = part.casting.instrument.family == "kit"
    song = pretty_midi.PrettyMIDI(resolution=_TICKS_PER_BEAT, initial_tempo=120.0)
    track = pretty_midi.Instrument(kit if is_kit else part.casting.program, is_drum=is_kit)
    for controller, value in ((91, part.reverb), (1, part.vibrato)):
        track.control_changes.append(pretty_midi.ControlChange(controller, value, 0.0))
    if not is_kit:
        bend = round(8192 * tuning_cents / _BEND_RANGE_CENTS)
        track.pitch_bends.append(pretty_midi.PitchBend(bend, 0.0))
    track.notes.extend(
        pretty_midi.Note(
            note.velocity, note.pitch, note.start + LEAD_SECONDS, note.end + LEAD_SECONDS
        )
        for note in part.notes
    )
    # The renderer stops at the last event: this one makes it play all decays to the end.
    end = LEAD_SECONDS + CLIP_SECONDS + 0.05
    track.control_changes.append(pretty_midi.ControlChange(91, part.reverb, end))
    song.instruments.append(track)
    buffer = io.BytesIO()
    song.write(buffer)
    return buffer.getvalue()


def render_stem(part: Part, kit: int, tuning_cents: float, font: SoundFont) -> NDArray[Any]:
    """One part alone, (480000,) float32, mono at 48 kHz, at the sound font's own level.

    Raises:
        DatasetError: The renderer rejects the sound font, or the part is silent with it.
    """
    try:
        wave = midirenderer.render_wave_from(font.content, midi_of(part, kit, tuning_cents))
    except Exception as error:  # a native module: it documents no class
        raise DatasetError(f"{font.path}: the sound font cannot be played: {error}") from error
    stereo, _ = soundfile.read(io.BytesIO(wave), dtype="float32", always_2d=True)
    mono = stereo[:_RENDER_SAMPLES].mean(axis=1)
    mono = np.pad(mono, (0, _RENDER_SAMPLES - len(mono)))
    return np.asarray(mono[int(LEAD_SECONDS * _RENDER_RATE_HZ) :])


def mix(composition: Composition, stems: Iterable[NDArray[Any]]) -> NDArray[np.float32]:
    """Bring stems to their levels by ear, add them, and give the clip its level.

    Args:
        composition: The clip.
        stems: One (480000,) array at 48 kHz for each of its parts.

    Returns:
        (441000,) float32 at 44.1 kHz.

    Raises:
        DatasetError: A part that should be heard is silent.
    """
    total = np.zeros(int(CLIP_SECONDS * _RENDER_RATE_HZ))
    for part, stem in zip(composition.parts, stems, strict=True):
        loudness = gated_loudness(stem, _RENDER_RATE_HZ)
        if np.isfinite(loudness):
            total += stem * 10 ** ((part.level_db - loudness) / 20)
        elif part.heard:
            raise DatasetError(
                f"{part.casting.instrument.name} (program {part.casting.program}, pitches "
                f"{part.casting.low} to {part.casting.high}) is silent with this sound font. "
                "Use a complete General MIDI sound font."
            )
    resampled = soxr.resample(total, _RENDER_RATE_HZ, SAMPLE_RATE_HZ)[:CLIP_SAMPLES]
    clip = np.pad(resampled, (0, CLIP_SAMPLES - len(resampled)))
    ramp = np.linspace(0, 1, _FADE_SAMPLES)
    clip[:_FADE_SAMPLES] *= ramp
    clip[-_FADE_SAMPLES:] *= ramp[::-1]
    return with_rms(clip, CLIP_RMS * 10 ** (composition.jitter_db / 20))


def render(composition: Composition, font: SoundFont) -> NDArray[np.float32]:
    """Play a composition with a sound font: (441000,) float32 mono at 44.1 kHz."""
    # A font without this kit would play its first one anyway; saying so keeps it certain.
    kit = composition.kit if composition.kit in font.kits else 0
    return mix(
        composition,
        (render_stem(part, kit, composition.tuning_cents, font) for part in composition.parts),
    )
