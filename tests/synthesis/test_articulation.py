"""Articulation of performed notes: timing of strums and rolls, vibrato, slides, MIDI."""

from __future__ import annotations

import itertools
import math
import random

import numpy as np
import pytest

from rfkeras.synthesis.articulation import (
    articulate,
    ghosts,
    habits,
    legato,
    roll,
    scoop,
    slide,
    staccato,
    strum,
    swell,
    vibrato,
)
from rfkeras.synthesis.curves import BEND_RANGE_CENTS, Expression, value_at
from rfkeras.synthesis.ensemble import BACKGROUND
from rfkeras.synthesis.mapping import INSTRUMENTS
from rfkeras.synthesis.song import Note


def _line(*pitches: int, length: float = 0.5, gap: float = 0.05) -> list[Note]:
    return [
        Note(number * length, (number + 1) * length - gap, pitch, 80)
        for number, pitch in enumerate(pitches)
    ]


def _values(curve: list[tuple[float, float]], times: np.ndarray) -> np.ndarray:
    return value_at(np.array(curve), times)


def _articulated(name: str, notes: list[Note], count: int = 200) -> list[Expression]:
    return [articulate(random.Random(seed), notes, INSTRUMENTS[name]) for seed in range(count)]


def test_legato_notes_overlap_by_10_to_40_ms_within_phrases() -> None:
    notes = [*_line(60, 62, 62, 64), Note(4.0, 4.5, 65, 80)]
    played = legato(random.Random(0), notes)
    overlaps = [a.end - b.start for a, b in itertools.pairwise(played)]
    assert 0.010 <= overlaps[0] <= 0.040
    # A repeated pitch touches; after the pause, a new phrase begins.
    assert overlaps[1] == pytest.approx(0)
    assert 0.010 <= overlaps[2] <= 0.040
    assert played[3:] == notes[3:]
    assert [(n.start, n.pitch) for n in played] == [(n.start, n.pitch) for n in notes]


def test_staccato_keeps_a_quarter_to_a_half() -> None:
    notes = [Note(0, 1, 60, 80), Note(1, 1.1, 60, 80), Note(2, 2.04, 60, 80)]
    lengths = [note.end - note.start for note in staccato(random.Random(3), notes)]
    assert 0.25 <= lengths[0] <= 0.5
    assert lengths[1:] == pytest.approx([0.06, 0.04])


@pytest.mark.parametrize("seed", range(20))
def test_strums_spread_strings_by_10_to_40_ms_down_and_up(seed: int) -> None:
    pitches = (52, 59, 64, 68)
    chords = [
        Note(beat * 0.3 + offset, beat * 0.3 + 0.28, pitch, 80)
        for beat in range(12)
        for offset, pitch in zip((0.002, 0, 0.003, 0.001), pitches, strict=True)
    ]
    notes = sorted(chords, key=lambda note: note.start)
    played = strum(random.Random(seed), notes)
    directions = []
    for beat in range(12):
        chord = played[4 * beat : 4 * beat + 4]
        assert chord[0].start == pytest.approx(beat * 0.3)
        gaps = np.diff([note.start for note in chord])
        assert gaps.min() >= 0.010
        assert gaps.max() <= 0.040
        order = [note.pitch for note in chord]
        assert order in (list(pitches), list(reversed(pitches)))
        down = order == list(pitches)
        assert all(note.velocity == (80 if down else 72) for note in chord)
        directions.append(down)
    assert directions[0]
    assert 2 <= directions.count(False) <= 6
    # An up-stroke follows a down-stroke only.
    assert all(a or b for a, b in itertools.pairwise(directions))


def test_chords_too_close_for_a_strum_and_single_notes_stay() -> None:
    close = [Note(start, start + 0.07, p, 80) for start in (0, 0.07) for p in range(60, 66)]
    assert strum(random.Random(0), close) == close
    arpeggio = _line(60, 64, 67, 72, length=0.125, gap=0)
    assert strum(random.Random(0), arpeggio) == arpeggio
    # Fast runs are no chords, but they are lines.
    run = _line(*range(60, 72), length=0.058, gap=0.01)
    assert strum(random.Random(0), run) == run
    assert strum(random.Random(0), run[:3]) == run[:3]
    assert any(len(e.bend_cents) for e in _articulated("saxophone", run, 20))


def test_rolls_have_12_to_18_strokes_per_second_and_fill_the_note() -> None:
    notes = [Note(0, 1.5, 60, 90), Note(1.5, 1.8, 62, 90)]
    for seed in range(30):
        played = roll(random.Random(seed), notes, 1.0)
        strokes, short = played[:-1], played[-1]
        assert short == notes[1]
        assert 12 * 1.5 - 1 <= len(strokes) <= 18 * 1.5 + 1
        assert strokes[0].start == 0
        assert strokes[-1].end == pytest.approx(1.5, abs=0.02)
        assert {note.pitch for note in strokes} == {60}
        # It grows louder, fades or stays.
        change = np.mean([n.velocity for n in strokes[-4:]]) - np.mean(
            [n.velocity for n in strokes[:4]]
        )
        assert min(abs(change - expected) for expected in (20, 0, -17)) < 8
    assert roll(random.Random(0), notes, 0.0) == notes


def test_snare_rolls_last_until_the_next_snare_hit() -> None:
    hits = [Note(0, 0.1, 36, 90), Note(0.5, 0.6, 38, 90), Note(1, 1.1, 36, 90)]
    notes = [*hits, Note(1.5, 1.6, 38, 90)]
    played = roll(random.Random(0), notes, 1.0, kit=True)
    snare = [note for note in played if note.pitch == 38]
    assert [note for note in played if note.pitch == 36] == [hits[0], hits[2]]
    assert 12 <= len(snare) - 1 <= 19
    assert max(np.diff([note.start for note in snare])) < 1 / 11


def test_ghost_notes_are_short_soft_and_before_a_note() -> None:
    notes = _line(40, 43, 40, length=0.6)
    played = ghosts(random.Random(0), notes, 1.0)
    added = [note for note in played if note.velocity < 80]
    assert [note.pitch for note in added] == [40, 43]
    for ghost, following, before in zip(added, notes[1:], played[::2], strict=False):
        assert 0.1 <= following.start - ghost.start <= 0.18
        assert 0.04 <= ghost.end - ghost.start <= 0.06
        assert 24 <= ghost.velocity <= 40
        assert before.end < ghost.start
    hits = [Note(0, 0.1, 38, 90), Note(0.3, 0.4, 42, 90), Note(1, 1.1, 38, 90)]
    drums = ghosts(random.Random(0), hits, 1.0, kit=True)
    assert [note.pitch for note in drums] == [38, 42, 38, 38]
    assert [note for note in drums if note.velocity == 90] == hits


@pytest.mark.parametrize(("depth", "rate", "base"), [(20, 5.0, 0), (50, 6.5, -100)])
def test_vibrato_has_its_depth_and_rate_after_a_delay(
    depth: float, rate: float, base: float
) -> None:
    times = np.arange(1, 4, 0.001)
    cents = _values(vibrato(1.0, 4.0, depth, rate, 0.3, base), times) - base
    assert np.abs(cents[times < 1.29]).max() == 0
    steady = cents[(times > 1.6) & (times < 3.9)]
    assert steady.max() == pytest.approx(depth, rel=0.03)
    assert steady.min() == pytest.approx(-depth, rel=0.03)
    crossings = np.flatnonzero((steady[:-1] < 0) & (steady[1:] >= 0))
    assert 1000 / np.diff(crossings).mean() == pytest.approx(rate, rel=0.01)
    assert cents[-1] == pytest.approx(0, abs=depth * 0.05)
    # A short note has it after a third of its length.
    short = _values(vibrato(0, 0.6, depth, rate, 0.3), times - 1)
    assert np.abs(short[times - 1 < 0.2]).max() == 0
    assert np.abs(short[(times - 1 > 0.2) & (times - 1 < 0.3)]).max() > depth / 3


def test_slide_and_scoop_reach_the_pitch() -> None:
    times = np.array([0, 0.39, 0.4, 0.45, 0.5, 0.8])
    cents = _values(slide(0, 0.5, 200, 0.1), times)
    assert cents == pytest.approx([0, 0, 0, 100, 200, 200])
    risen = _values(scoop(1, 150, 0.1), np.array([0.9, 1.0, 1.05, 1.1, 2]))
    assert risen == pytest.approx([0, -150, -75, 0, 0])


def test_slides_join_notes_and_reach_the_next_pitch() -> None:
    # Seven steps of one or two semitones and one leap, which cannot be a slide.
    notes = _line(60, 62, 64, 65, 67, 65, 64, 71, 72)
    joined = 0
    for expression in _articulated("trombone", notes):
        for number, original in enumerate(notes):
            middle = original.start + 0.22
            sounding = [n for n in expression.notes if n.start <= middle < n.end]
            if not sounding:
                continue  # staccato
            (note,) = sounding
            steady = np.linspace(original.start + 0.17, original.start + 0.35, 20)
            cents = value_at(expression.bend_cents, steady)
            pitches = 100 * note.pitch + cents
            # The next slide may begin 0.12 s before the next note, at 0.38 s; vibrato is at
            # most 25 cents.
            assert np.abs(pitches - 100 * original.pitch).max() <= 25.1, number
            joined += note.start < original.start - 0.1
    assert joined > 100


def test_bend_returns_before_the_note_after_a_slide() -> None:
    notes = _line(60, 62, 60)
    seen = 0
    for expression in _articulated("trombone", notes, 400):
        if len(expression.notes) == 2 and expression.notes[0].end > 0.6:
            first, second = expression.notes
            before, after = value_at(expression.bend_cents, np.array([0.99, 1.17]))
            assert first.end <= second.start - 0.03 + 1e-9
            assert before == pytest.approx(200, abs=1)
            assert abs(after) < 26
            seen += 1
    assert seen > 20


def test_curves_are_in_order_and_within_the_range() -> None:
    notes = _line(60, 62, 64, 65, 64, 62, 60, 59, 60, length=0.55)
    for name in ("violin", "voice", "saxophone", "guitar", "bass", "synthesizer", "flute"):
        for expression in _articulated(name, notes):
            times, cents = expression.bend_cents.T
            assert (np.diff(times) >= 0).all()
            assert np.abs(cents).max(initial=0) <= BEND_RANGE_CENTS
            times, level = expression.level_db.T
            assert (np.diff(times) > 0).all()
            assert level.max(initial=0) <= 0
            assert level.min(initial=0) >= -10
            assert all(note.start < note.end for note in expression.notes)


def test_articulations_occur_as_often_as_the_habits_say() -> None:
    notes = _line(60, 64, 67, 72, 67, 64, 60, 55, length=1.0)
    count = 1000
    violins = _articulated("violin", notes, count)
    manner = habits(INSTRUMENTS["violin"])
    with_legato = sum(e.notes[0].end > 1.0 for e in violins)
    with_swell = sum(len(e.level_db) > 0 for e in violins)
    short = sum(e.notes[0].end < 0.6 for e in violins)
    long_lines = [e for e in violins if e.notes[0].end >= 0.6]
    with_vibrato = sum(len(e.bend_cents) > 0 for e in long_lines)
    for found, share, of in (
        (with_legato, manner.legato, count),
        (with_swell, manner.swell, count),
        (short, manner.staccato, count),
        (with_vibrato, manner.vibrato, len(long_lines)),
    ):
        assert abs(found - of * share) < 4 * math.sqrt(of * share * (1 - share))
    pianos = _articulated("piano", notes, 200)
    assert all(len(e.bend_cents) == 0 for e in pianos)
    assert all(e.notes[0].end <= 1.0 for e in pianos)


def test_chords_are_not_bent_and_kits_and_mandolins_keep_their_strokes() -> None:
    chord = [Note(0, 2, pitch, 80) for pitch in (60, 64, 67)]
    for name in ("violin", "guitar", "voice"):
        assert all(len(e.bend_cents) == 0 for e in _articulated(name, chord, 50))
    strokes = _line(60, 60, 60, length=0.08, gap=0)
    assert all(e.notes == tuple(strokes) for e in _articulated("mandolin", strokes, 50))
    assert all(e.notes == tuple(strokes) for e in _articulated("cymbals", strokes, 50))
    (timpani,) = [instrument for instrument in BACKGROUND if instrument.name == "timpani"]
    rolled = [articulate(random.Random(s), chord[:1], timpani) for s in range(50)]
    assert 20 <= sum(len(e.notes) > 20 for e in rolled) <= 40


def test_articulation_is_determined_by_the_random_stream() -> None:
    def content(seed: int) -> tuple[object, ...]:
        expression = articulate(random.Random(seed), _line(60, 62, 64), INSTRUMENTS["voice"])
        return (
            expression.notes,
            expression.bend_cents.tolist(),
            expression.level_db.tolist(),
        )

    assert content(4) == content(4)
    assert len({str(content(seed)) for seed in range(20)}) == 20
    nothing = articulate(random.Random(0), [], INSTRUMENTS["voice"])
    assert nothing.notes == ()
    assert len(nothing.bend_cents) == 0


def test_swells_last_as_long_as_the_part() -> None:
    for seed in range(20):
        times, level = swell(random.Random(seed), 1.0, 10.0).T
        assert times[0] == 1
        assert times[-1] >= 10
        assert 1 <= np.diff(times).min() <= np.diff(times).max() <= 4
        # It rises and falls in turn.
        assert (np.diff(level)[1:-1] * np.diff(level)[2:] < 0).all()
