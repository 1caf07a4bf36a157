"""Play notes with recorded sounds.

`play` renders one part with one `RecordedInstrument`. Each note takes a sound of the nearest
recorded pitch, resampled by at most 3 semitones. Its velocity sets level and brightness, and
its end a short release. Sustained sounds are held as long as the note; plucked and struck
ones ring out. Hits of a kit ring to their end. Repeated notes alternate between
sounds where there are several.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import groupby

import numpy as np
import soxr

from rfkeras.errors import ConfigError
from rfkeras.synthesis.curves import BEND_RANGE_CENTS, Points, apply_bend
from rfkeras.synthesis.mapping import CYMBAL_NOTES, DRUM_NOTES
from rfkeras.synthesis.recorded_sound import Samples, Sound
from rfkeras.synthesis.recordings import RecordedInstrument, RecordedNote
from rfkeras.synthesis.song import Note

MAX_SHIFT = 3.0
"""Largest transposition of a sound, in semitones."""

DECIBELS_PER_VELOCITY = 0.35
REFERENCE_VELOCITY = 80
LEVEL = 0.1
"""Amplitude of a note of velocity 80."""

RELEASE_SECONDS = {"plucked": 0.1, "struck": 0.14, "sustained": 0.08, "keys": 0.05, "kit": 0.12}

_HELD = ("sustained", "keys")

_Places = Mapping[float | str, tuple[RecordedNote, ...]]

# Sounds of one recording differ in level by their strength, but no note should get lost.
_BALANCE_DB = 6.0
_DETUNE_CENTS = 2.0
# Longer notes take sounds of this length, unless only shorter ones are in reach.
_LONG_SECONDS = 1.0
# How strongly the velocity chooses between soft and hard sounds of one pitch.
_STRENGTH_CHOICE = 4.0
_SOFTEST, _HARDEST = 20, 127
# Notes below this velocity become duller, the softest by this share of the dull sound.
_BRIGHT_VELOCITY = 95
_DULLEST = 0.8
_DULL_HZ = 2000.0

_KINDS = {
    pitch: kind
    for table in (DRUM_NOTES, CYMBAL_NOTES)
    for kind, pitches in table.items()
    for pitch in pitches
}
# What else may stand for a kind that a recorded kit lacks.
_STAND_INS = {
    "stick": ("snare",),
    "clap": ("snare", "stick"),
    "floor_tom": ("low_tom", "high_tom"),
    "low_tom": ("floor_tom", "high_tom"),
    "high_tom": ("low_tom", "floor_tom"),
    "closed_hat": ("pedal_hat",),
    "pedal_hat": ("closed_hat",),
    "open_hat": ("closed_hat",),
    "ride": ("bell", "crash"),
    "bell": ("ride",),
    "crash": ("splash", "china"),
    "splash": ("crash", "china"),
    "china": ("crash", "splash"),
}
_CLOSING = ("closed_hat", "pedal_hat")
_HITS_TOGETHER = 3


def can_play(instrument: RecordedInstrument, low: int, high: int) -> bool:
    """Return whether an instrument reaches all pitches of a range without octave shifts.

    Args:
        instrument: The instrument.
        low: Lowest MIDI pitch.
        high: Highest MIDI pitch, included. Of a kit, only the pitches between them that
            choose a drum (or a cymbal) count.
    """
    pitches: Collection[int] = range(low, high + 1)
    if instrument.is_kit:
        table = DRUM_NOTES if instrument.class_name == "drums" else CYMBAL_NOTES
        pitches = [pitch for pitch in pitches if _KINDS.get(pitch) in table]
    return all(_has(instrument, pitch) for pitch in pitches)


def can_play_notes(instrument: RecordedInstrument, notes: Sequence[Note]) -> bool:
    """Return whether an instrument reaches these notes without octave shifts."""
    return all(_has(instrument, pitch) for pitch in {note.pitch for note in notes})


def reach(instrument: RecordedInstrument) -> tuple[int, int]:
    """Return the lowest and highest pitch of the longest range that an instrument can play.

    Raises:
        ConfigError: The instrument is a kit.
    """
    if instrument.is_kit:
        raise ConfigError("A kit has kinds of hits instead of a range. Use can_play_notes.")
    playable = [pitch for pitch in range(128) if _has(instrument, pitch)]
    # In a range without gaps, the difference of pitch and position stays the same.
    ranges = groupby(enumerate(playable), key=lambda pair: pair[1] - pair[0])
    spans = [[pitch for _, pitch in group] for _, group in ranges]
    longest = max(spans, key=len)
    return longest[0], longest[-1]


def play(
    instrument: RecordedInstrument,
    notes: Sequence[Note],
    rng: random.Random,
    seconds: float,
    rate_hz: int,
    *,
    bend_cents: Points | None = None,
    tuning_cents: float = 0.0,
) -> Samples:
    """Render notes with recorded sounds.

    Args:
        instrument: The recorded instrument.
        notes: Performed notes: seconds, MIDI pitches, velocities 1 to 127. What sounds before
            0 is cut off. Of a kit, pitches are those of DRUM_NOTES and CYMBAL_NOTES. Other
            pitches out of reach are moved by octaves.
        rng: Chooses between sounds, and detunes them by a few cents.
        seconds: Length of the result.
        rate_hz: Its sampling rate.
        bend_cents: (n, 2) times and bends of all notes; see `curves.Expression`. Kits are
            neither bent nor tuned.
        tuning_cents: Tuning relative to 440 Hz.

    Returns:
        (round(seconds * rate_hz),) float32, mono. Notes of velocity 80 have an amplitude of
        about 0.1.

    Raises:
        ConfigError: A note cannot be played even when moved by octaves; `can_play` tells.
        DatasetError: A sound file cannot be decoded, or is silent.
    """
    length = round(seconds * rate_hz)
    bright, dull = np.zeros(length, np.float32), np.zeros(length, np.float32)
    chooser = _Chooser(instrument, rng)
    bend = None if bend_cents is None or instrument.is_kit else bend_cents
    tuning = 0.0 if instrument.is_kit else tuning_cents
    for note, end in _with_ends(instrument, notes):
        recorded, shift = chooser.choose(note)
        shift += (tuning + rng.uniform(-_DETUNE_CENTS, _DETUNE_CENTS)) / 100
        room_s = seconds - note.start
        if room_s <= 0:
            continue
        sound = instrument.sound(recorded)
        preroll_s, wave = _wave(
            sound, recorded.family, end - note.start, room_s, shift, rate_hz, note.start, bend
        )
        wave *= _level(sound, recorded.family, chooser.balance(recorded), note.velocity)
        begin = round((note.start - preroll_s) * rate_hz)
        wave = wave[max(0, -begin) : length - begin]
        span = slice(max(0, begin), max(0, begin) + len(wave))
        soft = wave * np.float32(_dullness(note.velocity))
        dull[span] += soft
        bright[span] += wave - soft
    return bright + one_pole_low_pass(dull, _DULL_HZ / rate_hz)


def one_pole_low_pass(samples: Samples, cutoff: float) -> Samples:
    """Filter with y[n] = (1 - a) x[n] + a y[n - 1], -3 dB near the cutoff.

    Args:
        samples: (n,).
        cutoff: Cutoff frequency as a fraction of the sampling rate.

    Returns:
        (n,) float32.
    """
    a = math.exp(-2 * math.pi * cutoff)
    filtered = samples * np.float32(1 - a)
    # The impulse response a^n is the product of the terms 1 + a^(2^k) z^-(2^k).
    delay = 1
    while delay < len(samples) and a**delay > 1e-6:
        echo = filtered[:-delay] * np.float32(a**delay)
        filtered[delay:] += echo
        delay *= 2
    return filtered


def _with_ends(
    instrument: RecordedInstrument, notes: Sequence[Note]
) -> Iterator[tuple[Note, float]]:
    """Yield notes in the order of their starts, each with the time when it is damped.

    Closing a hi-hat damps the open one. Otherwise a hit rings below the next three of its
    kind, which hide the rest.
    """
    ordered = sorted(notes, key=lambda note: (note.start, note.pitch))
    if not instrument.is_kit:
        yield from ((note, note.end) for note in ordered)
        return
    starts: dict[str, list[float]] = defaultdict(list)
    for note in ordered:
        starts[_KINDS.get(note.pitch, "")].append(note.start)
    closings = sorted(start for kind in _CLOSING for start in starts[kind])
    for note in ordered:
        kind = _KINDS.get(note.pitch, "")
        end = _after(starts[kind], note.start, _HITS_TOGETHER)
        if kind == "open_hat":
            end = min(end, _after(closings, note.start, 1))
        yield note, end


def _after(starts: Sequence[float], start: float, count: int) -> float:
    """Return the time of the hit so many hits after a time; infinity without one."""
    index = bisect_right(starts, start) + count - 1
    return starts[index] if index < len(starts) else math.inf


def _wave(
    sound: Sound,
    family: str,
    held_s: float,
    room_s: float,
    shift: float,
    rate_hz: int,
    start: float,
    bend_cents: Points | None,
) -> tuple[float, Samples]:
    """Return the seconds before the onset and one note at the sound's own level, faded.

    Args:
        sound: The sound.
        family: Family of the instrument.
        held_s: Time from the onset to the release, possibly infinite.
        room_s: Time after which nothing is heard.
        shift: Transposition in semitones.
        rate_hz: Sampling rate of the result.
        start: Time of the onset.
        bend_cents: Times and bends; None for none.
    """
    source_hz = sound.rate_hz * 2 ** (shift / 12)
    release_s = RELEASE_SECONDS[family]
    preroll_s = sound.preroll / source_hz
    total_s = preroll_s + max(held_s, 0.0) + release_s
    # Some more samples keep the resampler's edge out of what is heard.
    wanted = math.ceil(min(total_s, room_s + 2 * release_s) * source_hz) + 64
    if bend_cents is not None:
        wanted = math.ceil(wanted * 2 ** (BEND_RANGE_CENTS / 1200))
    source = sound.held(wanted) if family in _HELD else sound.first(wanted)
    wave = np.array(soxr.resample(source, source_hz, rate_hz, quality="MQ"), dtype=np.float32)
    if bend_cents is not None:
        wave = apply_bend(wave, bend_cents, rate_hz, start - preroll_s)
    wave = wave[: math.ceil(min(total_s, len(wave) / rate_hz) * rate_hz)]
    rise, fall = _ramp(preroll_s, rate_hz), _ramp(release_s, rate_hz)
    rise, fall = rise[: len(wave)], fall[-len(wave) :]
    wave[: len(rise)] *= rise
    wave[len(wave) - len(fall) :] *= fall[::-1]
    return preroll_s, wave


def _ramp(seconds: float, rate_hz: int) -> Samples:
    """Return a smooth rise from 0 to 1."""
    steps = max(2, round(seconds * rate_hz))
    return np.asarray(np.sin(np.linspace(0, np.pi / 2, steps)) ** 2, dtype=np.float32)


def _level(sound: Sound, family: str, balance_db: float, velocity: int) -> np.float32:
    """Return the gain of a note."""
    size = sound.loudness if family in _HELD else sound.peak
    velocity_db = DECIBELS_PER_VELOCITY * (velocity - REFERENCE_VELOCITY)
    return np.float32(LEVEL / size * 10 ** ((balance_db + velocity_db) / 20))


def _dullness(velocity: int) -> float:
    """Return the share of the dull sound in a note."""
    softness = (_BRIGHT_VELOCITY - velocity) / (_BRIGHT_VELOCITY - _SOFTEST)
    return _DULLEST * min(1.0, max(0.0, softness))


def _has(instrument: RecordedInstrument, pitch: int) -> bool:
    """Return whether an instrument reaches a pitch without an octave shift."""
    if instrument.is_kit:
        return _place_of_hit(instrument, pitch) is not None
    return _distance(instrument.places, pitch) <= MAX_SHIFT


def _place_of_hit(instrument: RecordedInstrument, pitch: int) -> str | None:
    """Return the kind that a kit plays for a pitch, or None."""
    kind = _KINDS.get(pitch, "")
    found = (name for name in (kind, *_STAND_INS.get(kind, ())) if name in instrument.places)
    return next(found, None)


def _distance(places: Iterable[float | str], pitch: float) -> float:
    """Return the distance to the nearest recorded pitch, in semitones."""
    return min(_gap(place, pitch) for place in places)


def _is_long(note: RecordedNote) -> bool:
    """Return whether a sound can fill a long note, or ends by itself anyway."""
    if note.family not in _HELD:
        return True
    return note.seconds is None or note.seconds >= _LONG_SECONDS


class _Chooser:
    """Choose the sound of each note of a part.

    Args:
        instrument: The recorded instrument.
        rng: Chooses between sounds of one pitch.
    """

    def __init__(self, instrument: RecordedInstrument, rng: random.Random) -> None:
        self._instrument = instrument
        self._rng = rng
        self._last: RecordedNote | None = None
        self._last_of: dict[int, RecordedNote] = {}
        self._long = {
            place: tuple(note for note in notes if _is_long(note))
            for place, notes in instrument.places.items()
            if any(_is_long(note) for note in notes)
        }
        # The hardest sound shows how loud a pitch or kind is.
        hardest = {place: notes[-1].peak for place, notes in instrument.places.items()}
        known = sorted(peak for peak in hardest.values() if peak is not None)
        middle = known[len(known) // 2] if known else 1.0
        self._balance = {
            place: _limited(20 * math.log10(peak / middle)) if peak is not None else 0.0
            for place, peak in hardest.items()
        }

    def balance(self, recorded: RecordedNote) -> float:
        """Return the level of a sound's pitch or kind among the others, in decibels."""
        return self._balance[recorded.place] if recorded.place is not None else 0.0

    def choose(self, note: Note) -> tuple[RecordedNote, float]:
        """Return the sound of a note and its transposition in semitones.

        Raises:
            ConfigError: The note cannot be played.
        """
        sounds, places, pitch = self._reachable(note)
        recent = (self._last, self._last_of.get(note.pitch))
        # A sound of the nearest pitch that was not just heard is best, then a neighbour.
        for nearby, avoided in (
            (places[:1], recent),
            (places, recent),
            (places[:1], recent[:1]),
            (places, recent[:1]),
            (places[:1], ()),
        ):
            choice = self._draw([sounds[place] for place in nearby], avoided, note.velocity)
            if choice is not None:
                break
        else:
            raise AssertionError("the last choice excludes no sound")
        self._last = self._last_of[note.pitch] = choice
        shift = 0.0 if choice.kind is not None else pitch - float(choice.pitch or 0.0)
        return choice, shift

    def _reachable(self, note: Note) -> tuple[_Places, list[float | str], float]:
        """Return sounds by place, the nearest places, and the pitch to play."""
        instrument = self._instrument
        if instrument.is_kit:
            kind = _place_of_hit(instrument, note.pitch)
            if kind is not None:
                return instrument.places, [kind], note.pitch
            kinds = ", ".join(str(place) for place in instrument.places)
            raise ConfigError(
                f"The kit {instrument.recording!r} cannot play pitch {note.pitch} "
                f"({_KINDS.get(note.pitch, 'no drum or cymbal')}). It has: {kinds}. Use "
                "can_play to find another one."
            )
        tables: list[_Places] = [instrument.places]
        if note.end - note.start > _LONG_SECONDS / 2 and self._long:
            tables.insert(0, self._long)
        for octave in sorted(range(-10, 11), key=lambda octave: (abs(octave), octave)):
            played = float(note.pitch + 12 * octave)
            for places in tables:
                distance = _distance(places, played)
                if distance <= MAX_SHIFT:
                    near = min(distance + 1, MAX_SHIFT)
                    found = [place for place in places if _gap(place, played) <= near]
                    return places, sorted(found, key=lambda place: _gap(place, played)), played
        raise ConfigError(
            f"{instrument.instrument!r} of recording {instrument.recording!r} cannot play "
            f"pitch {note.pitch} in any octave. Recorded pitches: "
            f"{', '.join(f'{place:g}' for place in instrument.places)}. Use can_play to find "
            "another one."
        )

    def _draw(
        self,
        places: Iterable[Sequence[RecordedNote]],
        avoided: Sequence[RecordedNote | None],
        velocity: int,
    ) -> RecordedNote | None:
        """Draw a sound whose strength fits the velocity; None if all are to be avoided."""
        strength = (velocity - _SOFTEST) / (_HARDEST - _SOFTEST)
        notes, chances = [], []
        for recorded in places:
            for rank, note in enumerate(recorded):
                if note in avoided:
                    continue
                known = note.peak is not None and len(recorded) > 1
                miss = abs(rank / (len(recorded) - 1) - strength) if known else 0.0
                notes.append(note)
                chances.append(math.exp(-_STRENGTH_CHOICE * miss))
        return self._rng.choices(notes, chances)[0] if notes else None


def _limited(decibels: float) -> float:
    return min(_BALANCE_DB, max(-_BALANCE_DB, decibels))


def _gap(place: float | str, pitch: float) -> float:
    return abs(float(place) - pitch)
