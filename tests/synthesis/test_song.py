from __future__ import annotations

import random

import pytest

from rfkeras.synthesis import song
from rfkeras.synthesis.song import (
    Hand,
    Note,
    cut,
    parse_rhythm,
    perform,
    rests,
    sounds,
    swung,
    tremolo,
)


def test_chords_are_thirds_on_the_scale() -> None:
    assert song.chord_on(0, "major", 0, seventh=False) == (0, 4, 7)
    assert song.chord_on(0, "major", 1, seventh=True) == (2, 5, 9, 0)
    assert song.chord_on(7, "mixolydian", 6, seventh=False) == (5, 9, 0)


def test_the_minor_dominant_has_the_leading_tone() -> None:
    assert song.chord_on(9, "minor", 4, seventh=True) == (4, 8, 11, 2)
    assert song.chord_on(9, "dorian", 4, seventh=False) == (4, 7, 11)


@pytest.mark.parametrize("mode", song.SCALES)
def test_voices_move_little_and_stay_in_range(mode: str) -> None:
    low, high = 50, 74
    for progression in song.PROGRESSIONS[mode]:
        previous: tuple[int, ...] = ()
        for degree in progression * 2:
            classes = song.chord_on(3, mode, degree, seventh=False)
            pitches = song.voicing(classes, low, high, 4, previous)
            assert len(pitches) == 4
            assert {pitch % 12 for pitch in pitches} == set(classes)
            assert low <= pitches[0]
            assert pitches[-1] <= high
            for before, after in zip(previous, pitches, strict=False):
                assert abs(before - after) <= 5
            previous = pitches


def test_a_narrow_range_gives_fewer_voices() -> None:
    assert song.voicing((0, 4, 7), 60, 65, 4) == (60, 64)
    assert song.voicing((0, 4, 7), 61, 63, 4) == ()


def test_every_progression_uses_degrees_of_its_mode() -> None:
    assert set(song.PROGRESSIONS) == set(song.SCALES)
    degrees = {d for group in song.PROGRESSIONS.values() for p in group for d in p}
    assert degrees <= set(range(7))


def test_parse_rhythm_reads_holds_rests_and_symbols() -> None:
    assert parse_rhythm("--r-..5---x.") == [(2, 2, "r"), (6, 4, "5"), (10, 1, "x")]


@pytest.mark.parametrize(
    ("beat", "expected"), [(0, 0), (0.5, 2 / 3), (3.25, 3 + 1 / 3), (4, 4)]
)
def test_swing_moves_the_off_beat_only(beat: float, expected: float) -> None:
    assert swung(beat, 2 / 3) == pytest.approx(expected)
    assert swung(beat, 0.5) == pytest.approx(beat)


def test_perform_turns_beats_into_seconds_with_accents() -> None:
    hand = Hand(velocity=80, dynamics=0, accent=10, timing_s=0, lag_s=0.01, gate=0.5)
    written = [Note(0, 1, 60, 0), Note(1, 2, 62, 0), Note(1.5, 2, 64, -5)]
    played = perform(random.Random(0), written, hand, tempo_bpm=120, swing=0.5, beats_per_bar=4)
    assert [round(note.start, 6) for note in played] == [0.01, 0.51, 0.76]
    assert [round(note.end - note.start, 6) for note in played] == [0.25, 0.25, 0.125]
    assert [note.velocity for note in played] == [90, 85, 75]


def test_a_long_note_loses_at_most_half_a_beat() -> None:
    hand = Hand(velocity=80, dynamics=0, accent=0, timing_s=0, lag_s=0, gate=0.5)
    played = perform(
        random.Random(0), [Note(0, 4, 60, 0)], hand, tempo_bpm=60, swing=0.5, beats_per_bar=4
    )
    assert played[0].end == pytest.approx(3.5)


def test_humanised_timing_varies_by_milliseconds() -> None:
    hand = Hand(velocity=80, dynamics=5, accent=0, timing_s=0.01, lag_s=0, gate=1)
    written = [Note(beat, beat + 1, 60, 0) for beat in range(200)]
    played = perform(random.Random(1), written, hand, tempo_bpm=60, swing=0.5, beats_per_bar=4)
    offsets = [note.start - number for number, note in enumerate(played)]
    assert 0.008 < (sum(x * x for x in offsets) / 200) ** 0.5 < 0.012
    assert len({note.velocity for note in played}) > 10


def test_tremolo_repeats_long_notes_and_keeps_short_ones() -> None:
    strokes = tremolo(random.Random(0), [Note(0, 1, 60, 80), Note(1, 1.05, 62, 80)], 12)
    assert [note.pitch for note in strokes] == [60] * 12 + [62]
    assert max(note.end for note in strokes[:12]) < 1.02


def test_cut_keeps_what_rings_and_drops_the_rest() -> None:
    notes = [Note(0, 1, 1, 9), Note(3, 6, 2, 9), Note(4.5, 4.6, 3, 9), Note(7, 20, 4, 9)]
    assert cut(notes, start=5, length=10, lead=1) == (
        Note(-1, 1, 2, 9),
        Note(-0.5, pytest.approx(-0.4), 3, 9),  # type: ignore[arg-type]
        Note(2, 10, 4, 9),
    )
    assert cut([Note(16, 17, 1, 9)], start=5, length=10, lead=1) == ()


def test_a_part_is_heard_by_onsets_seconds_and_short_rests() -> None:
    steady = [Note(t, t + 0.1, 60, 80) for t in range(10)]
    assert sounds(steady, 10)
    assert not sounds(steady[:3], 10)  # too few onsets
    assert not sounds(steady[:6], 10)  # then silent for four seconds
    assert not sounds([Note(t / 50, t / 50 + 0.1, 60, 80) for t in range(20)], 10)
    assert rests([Note(1, 2, 60, 80), Note(1.5, 3, 60, 80)], 10) == [1, 7]
