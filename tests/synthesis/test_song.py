"""Harmony, voice leading and the notation of rhythms."""

from __future__ import annotations

import pytest

from rfkeras.synthesis import song
from rfkeras.synthesis.song import parse_rhythm


def test_chords_are_thirds_on_the_scale() -> None:
    assert song.chord_on(0, "major", 0, seventh=False) == (0, 4, 7)
    assert song.chord_on(0, "major", 1, seventh=True) == (2, 5, 9, 0)
    assert song.chord_on(7, "mixolydian", 6, seventh=False) == (5, 9, 0)


def test_minor_dominant_has_leading_tone() -> None:
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
