"""Clips of human-composed MIDI files, labelled with the instruments that are heard.

A MIDI file states its instruments as General MIDI programs, so it is labelled music that
nobody composed for this library. Excerpts of 10 s are played with a sound font. The sounds of
each class are rendered separately: their notes and their share of the loudness decide the
label.

- Positive: the class plays often enough in the excerpt (`is_heard`) and its loudness is less
  than 12 dB below the whole, as for the composed training clips.
- Unknown: the class is hardly heard, or another sound resembles it, such as a viola the violin.
- Negative: everything else.
"""

from __future__ import annotations

import hashlib
import io
import struct
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soxr
from numpy.typing import NDArray

from rfkeras.errors import ConfigError, DatasetError
from rfkeras.synthesis.compose import is_heard
from rfkeras.synthesis.ensemble import DROWNED_DB
from rfkeras.synthesis.mapping import CLASSES, CYMBAL_NOTES, DRUM_NOTES, INSTRUMENTS
from rfkeras.synthesis.render import (
    CLIP_RMS,
    RENDER_RATE_HZ,
    SAMPLE_RATE_HZ,
    SoundFont,
    gated_loudness,
    play_midi,
    with_rms,
)
from rfkeras.synthesis.song import CLIP_SECONDS, Note

EXCERPTS_PER_SONG = 4
LONGEST_SECONDS = 120.0
"""Excerpts are taken from the first part of a song, because many songs repeat it."""

_SUFFIXES = (".mid", ".midi", ".wad")
_TAIL_SECONDS = 2.0
_TICKS_PER_BEAT = 960
_PERCUSSION = "percussion"

# The classes that sounds outside the data set's mapping could be taken for, by program.
_RESEMBLED: dict[tuple[int, ...], tuple[str, ...]] = {
    (6, 7): ("piano", "synthesizer"),
    (8, 10, 14, 15, 108, 112, 114): ("mallet_percussion",),
    (22,): ("accordion",),
    (31, 120): ("guitar",),
    (41,): ("violin", "cello"),
    (46, 104, 106, 107): ("guitar", "banjo"),
    (47, 115, 116, 117, 118): ("drums",),
    (55,): ("violin", "trumpet", "synthesizer"),
    (58,): ("trombone",),
    (60, 61): ("trombone", "trumpet"),
    (68, 69, 70, 111): ("clarinet", "saxophone"),
    (74, 75, 76, 77, 78, 79): ("flute",),
    (85, 91): ("voice", "synthesizer"),
    (96, 97, 98, 99, 100, 101, 102, 103): ("synthesizer",),
    (109,): ("accordion",),
    (113, 119): ("cymbals", "mallet_percussion"),
}


@dataclass(frozen=True)
class Song:
    """A MIDI file.

    Attributes:
        name: Name of the file; for one inside an archive, also the archive's.
        content: Its bytes.
    """

    name: str
    content: bytes


@dataclass(frozen=True)
class Sound:
    """A group of MIDI parts with one label.

    Attributes:
        name: A class, or "program N" or "percussion" for a sound without a class.
        doubtful: Classes whose label becomes unknown where the sound is played.
    """

    name: str
    doubtful: tuple[str, ...] = ()


@dataclass(frozen=True)
class Excerpt:
    """A rendered excerpt.

    Attributes:
        start: Seconds from the start of the song.
        samples: (441000,) float32, mono at 44.1 kHz.
        labels: 1 if a class is heard, else 0, in the order of CLASSES.
        mask: 1 if the label is known.
    """

    start: float
    samples: NDArray[np.float32]
    labels: tuple[int, ...]
    mask: tuple[int, ...]


def find_songs(paths: Sequence[Path]) -> list[Song]:
    """Return the MIDI files in files and folders, each content once, sorted by name.

    Args:
        paths: MIDI files (.mid, .midi), archives of games (.wad) that contain MIDI files, and
            folders, which are searched at any depth.

    Raises:
        ConfigError: A path does not exist, or there is no MIDI file.
    """
    files: list[Path] = []
    for path in paths:
        if not path.exists():
            raise ConfigError(f"--midi: there is no file or folder {path}.")
        found = sorted(path.rglob("*")) if path.is_dir() else [path]
        files += [file for file in found if file.suffix.lower() in _SUFFIXES]
    songs: dict[str, Song] = {}
    for file in files:
        for song in _songs_of(file):
            songs.setdefault(hashlib.sha256(song.content).hexdigest(), song)
    if not songs:
        raise ConfigError(
            f"--midi: no MIDI files ({', '.join(_SUFFIXES)}) in {', '.join(map(str, paths))}."
        )
    return sorted(songs.values(), key=lambda song: song.name)


def _songs_of(file: Path) -> Iterator[Song]:
    content = file.read_bytes()
    if file.suffix.lower() != ".wad":
        yield Song(file.stem, content)
        return
    # Header: kind, number of lumps, position of the directory of (position, size, name).
    try:
        count, directory = struct.unpack_from("<4xii", content)
        for place in range(directory, directory + 16 * count, 16):
            start, size, name = struct.unpack_from("<ii8s", content, place)
            if content[start : start + 4] == b"MThd":
                title = name.rstrip(b"\0").decode("ascii", "replace")
                yield Song(f"{file.stem}-{title}", content[start : start + size])
    except struct.error as error:
        raise DatasetError(f"{file} is not a WAD archive: {error}.") from error


def sound_of(program: int) -> Sound:
    """Return the sound of a General MIDI program (0-based)."""
    if program == 24:  # nylon strings: the mapping divides them by pitch, composers do not
        return Sound("guitar", ("ukulele",))
    if program == 25:  # steel strings
        return Sound("guitar", ("mandolin",))
    for instrument in INSTRUMENTS.values():
        if program in {patch.program for patch in instrument.patches}:
            if instrument.name in CLASSES:
                return Sound(instrument.name)
            return Sound(f"program {program}", instrument.resembles)
    for programs, classes in _RESEMBLED.items():
        if program in programs:
            return Sound(f"program {program}", classes)
    return Sound(f"program {program}")


def render_excerpts(
    song: Song, font: SoundFont, excerpts: int = EXCERPTS_PER_SONG
) -> Iterator[Excerpt]:
    """Play excerpts of a song, evenly spaced over its first two minutes.

    Args:
        song: The song.
        font: The sound font.
        excerpts: Largest number of excerpts; they do not overlap. Silent ones are left out.

    Raises:
        DatasetError: The file is not a MIDI file, or cannot be played.
    """
    parts = _parts(song)
    length = max(
        (note.end for group in parts.values() for part in group for note in part.notes),
        default=0.0,
    )
    length = min(length, LONGEST_SECONDS)
    number = min(excerpts, int(length // CLIP_SECONDS))
    starts = [(place + 0.5) * length / number - CLIP_SECONDS / 2 for place in range(number)]
    if not starts:
        return
    stems: dict[Sound, list[NDArray[Any]]] = {}
    for sound, group in parts.items():
        stem = play_midi(_midi_file(group, starts[-1] + CLIP_SECONDS), font)
        stems[sound] = [_cut(stem, start) for start in starts]
    for place, start in enumerate(starts):
        notes = {sound: _notes(group, start) for sound, group in parts.items()}
        waves = {sound: stem[place] for sound, stem in stems.items()}
        mixed = np.asarray(np.sum(list(waves.values()), axis=0, dtype=np.float64))
        if not np.isfinite(gated_loudness(mixed, RENDER_RATE_HZ)):
            continue
        labels, mask = label_excerpt(notes, waves, mixed)
        clip = soxr.resample(mixed, RENDER_RATE_HZ, SAMPLE_RATE_HZ)
        yield Excerpt(start, with_rms(clip, CLIP_RMS), labels, mask)


def label_excerpt(
    notes: Mapping[Sound, Sequence[Note]],
    waves: Mapping[Sound, NDArray[Any]],
    mixed: NDArray[np.float64],
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return labels and mask of an excerpt, in the order of CLASSES.

    Args:
        notes: Notes of each sound in the excerpt, in seconds from its start.
        waves: Rendered excerpt of each sound, mono at 48 kHz.
        mixed: Their sum.
    """
    whole = gated_loudness(mixed.astype(np.float32), RENDER_RATE_HZ)
    heard: set[str] = set()
    doubtful: set[str] = set()
    for sound, played in notes.items():
        if not played:
            continue
        doubtful.update(sound.doubtful)
        level = gated_loudness(waves[sound], RENDER_RATE_HZ) - whole
        if is_heard(played, CLIP_SECONDS) and level > DROWNED_DB:
            heard.add(sound.name)
        else:
            doubtful.add(sound.name)
    labels = tuple(int(name in heard) for name in CLASSES)
    mask = tuple(int(name in heard or name not in doubtful) for name in CLASSES)
    return labels, mask


def _parts(song: Song) -> dict[Sound, list[Any]]:
    """Return the parts of a song (pretty_midi.Instrument) by sound."""
    with warnings.catch_warnings():
        # pretty_midi imports pkg_resources, and warns about tempo changes outside track 0.
        warnings.simplefilter("ignore")
        import pretty_midi

        try:
            midi = pretty_midi.PrettyMIDI(io.BytesIO(song.content))
        except Exception as error:  # mido documents no exceptions
            raise DatasetError(f"{song.name} is not a MIDI file: {error}") from error
    parts: dict[Sound, list[Any]] = defaultdict(list)
    for instrument in midi.instruments:
        if not instrument.is_drum:
            parts[sound_of(instrument.program)].append(instrument)
            continue
        for sound, pitches in _KIT.items():
            notes = [note for note in instrument.notes if note.pitch in pitches]
            part = pretty_midi.Instrument(instrument.program, is_drum=True)
            part.notes, part.control_changes = notes, instrument.control_changes
            parts[sound].append(part)
    return {
        sound: kept
        for sound, group in parts.items()
        if (kept := [part for part in group if part.notes])
    }


def _pitches(table: Mapping[str, tuple[int, ...]]) -> frozenset[int]:
    return frozenset(pitch for pitches in table.values() for pitch in pitches)


_KIT = {
    Sound("drums"): _pitches(DRUM_NOTES),
    Sound("cymbals"): _pitches(CYMBAL_NOTES),
    Sound(_PERCUSSION, ("drums", "cymbals")): frozenset(range(128))
    - _pitches(DRUM_NOTES)
    - _pitches(CYMBAL_NOTES),
}


def _midi_file(parts: Sequence[Any], end: float) -> bytes:
    """Return parts up to a time as a MIDI file that lasts a little longer."""
    import pretty_midi

    song = pretty_midi.PrettyMIDI(resolution=_TICKS_PER_BEAT, initial_tempo=120.0)
    for part in parts:
        track = pretty_midi.Instrument(part.program, part.is_drum)
        track.notes = [note for note in part.notes if note.start < end]
        track.control_changes = [change for change in part.control_changes if change.time < end]
        track.pitch_bends = [bend for bend in part.pitch_bends if bend.time < end]
        # The renderer stops at the last event; controller 102 has no function.
        track.control_changes.append(pretty_midi.ControlChange(102, 0, end + _TAIL_SECONDS))
        song.instruments.append(track)
    buffer = io.BytesIO()
    song.write(buffer)
    return buffer.getvalue()


def _cut(stem: NDArray[Any], start: float) -> NDArray[Any]:
    """Return the samples of an excerpt, padded with silence."""
    first, length = round(start * RENDER_RATE_HZ), int(CLIP_SECONDS * RENDER_RATE_HZ)
    piece = stem[first : first + length]
    return np.pad(piece, (0, length - len(piece)))


def _notes(parts: Sequence[Any], start: float) -> list[Note]:
    """Return the notes that sound in an excerpt, in seconds from its start."""
    return [
        Note(max(note.start - start, 0.0), min(note.end - start, CLIP_SECONDS), note.pitch, 0)
        for part in parts
        for note in part.notes
        if note.start < start + CLIP_SECONDS and note.end > start
    ]
