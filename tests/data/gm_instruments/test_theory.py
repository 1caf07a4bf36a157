from __future__ import annotations

import pytest

from rfkeras.data.sources.gm_instruments import theory


def test_chords_are_thirds_on_the_scale() -> None:
    assert theory.chord_on(0, "major", 0, seventh=False) == (0, 4, 7)
    assert theory.chord_on(0, "major", 1, seventh=True) == (2, 5, 9, 0)
    assert theory.chord_on(7, "mixolydian", 6, seventh=False) == (5, 9, 0)


def test_the_minor_dominant_has_the_leading_tone() -> None:
    assert theory.chord_on(9, "minor", 4, seventh=True) == (4, 8, 11, 2)
    assert theory.chord_on(9, "dorian", 4, seventh=False) == (4, 7, 11)


@pytest.mark.parametrize("mode", theory.SCALES)
def test_voices_move_little_and_stay_in_range(mode: str) -> None:
    low, high = 50, 74
    for progression in theory.PROGRESSIONS[mode]:
        previous: tuple[int, ...] = ()
        for degree in progression * 2:
            classes = theory.chord_on(3, mode, degree, seventh=False)
            pitches = theory.voicing(classes, low, high, 4, previous)
            assert len(pitches) == 4
            assert {pitch % 12 for pitch in pitches} == set(classes)
            assert low <= pitches[0]
            assert pitches[-1] <= high
            for before, after in zip(previous, pitches, strict=False):
                assert abs(before - after) <= 5
            previous = pitches


def test_a_narrow_range_gives_fewer_voices() -> None:
    assert theory.voicing((0, 4, 7), 60, 65, 4) == (60, 64)
    assert theory.voicing((0, 4, 7), 61, 63, 4) == ()


def test_every_progression_uses_degrees_of_its_mode() -> None:
    assert set(theory.PROGRESSIONS) == set(theory.SCALES)
    degrees = {d for group in theory.PROGRESSIONS.values() for p in group for d in p}
    assert degrees <= set(range(7))
