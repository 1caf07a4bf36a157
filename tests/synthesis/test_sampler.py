from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from rfkeras.errors import ConfigError, DatasetError
from rfkeras.synthesis import sampler
from rfkeras.synthesis.mapping import CYMBAL_NOTES, DRUM_NOTES, INSTRUMENTS
from rfkeras.synthesis.recordings import load_recordings
from rfkeras.synthesis.sampler import (
    LEVEL,
    can_play,
    can_play_notes,
    one_pole_low_pass,
    play,
    reach,
)
from rfkeras.synthesis.song import Note
from tests.helpers.recorded_notes import hertz, tone, write_table

RATE = 48000


def instrument(folder, class_name, rows):
    """Return the one instrument of a table of (cells, samples)."""
    table = write_table(folder, [({"class": class_name, **row}, wave) for row, wave in rows])
    (group,) = load_recordings(table).groups(class_name)
    return group


def tones(folder, class_name="flute", pitches=(60, 64, 68, 72), **options):
    return instrument(
        folder,
        class_name,
        [({"midi_pitch": pitch}, tone(pitch, **options)) for pitch in pitches],
    )


def rendered(group, notes, seconds=2.0, seed=0):
    return play(group, notes, random.Random(seed), seconds, RATE)


def rms(samples):
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))


def measured_pitch(samples):
    """Return the MIDI pitch of the strongest partial."""
    spectrum = np.log(np.abs(np.fft.rfft(samples * np.hanning(len(samples)), 8 * RATE)) + 1e-12)
    peak = int(np.argmax(spectrum))
    left, middle, right = spectrum[peak - 1 : peak + 2]
    offset = (left - right) / (left - 2 * middle + right) / 2
    return 69 + 12 * np.log2((peak + offset) / 8 / 440)


def onset_s(samples):
    return float(np.argmax(np.abs(samples) > 0.2 * np.abs(samples).max()) / RATE)


def heard(group, monkeypatch, notes, seed=0):
    """Return the rows of the table that notes use, in order."""
    rows = []
    choose = sampler._Chooser.choose

    def recorded(self, note):
        found = choose(self, note)
        rows.append(found[0].row)
        return found

    monkeypatch.setattr(sampler._Chooser, "choose", recorded)
    rendered(group, notes, seed=seed)
    return rows


def steady(pitch, count=12, velocity=80):
    return [Note(n * 0.1, n * 0.1 + 0.08, pitch, velocity) for n in range(count)]


@pytest.mark.parametrize("pitch", range(57, 76))
def test_pitch_is_within_5_cents(tmp_path, pitch):
    wave = rendered(tones(tmp_path), [Note(0, 2, pitch, 100)])
    assert abs(measured_pitch(wave[4800:43200]) - pitch) < 0.05


def test_pitches_out_of_reach_move_by_octaves(tmp_path):
    group = tones(tmp_path)
    for pitch, played in ((48, 60), (50, 62), (81, 69), (100, 64)):
        wave = rendered(group, [Note(0, 1, pitch, 100)])
        assert abs(measured_pitch(wave[4800:43200]) - played) < 0.05
    with pytest.raises(ConfigError, match=r"pitch 66 in any octave\. Recorded pitches: 60\."):
        rendered(tones(tmp_path / "b", pitches=(60,)), [Note(0, 1, 66, 80)])


def test_reach(tmp_path):
    group = tones(tmp_path, pitches=(48, 60, 64, 69))
    assert reach(group) == (57, 72)
    assert can_play(group, 57, 72)
    assert can_play(group, 45, 51)
    assert not can_play(group, 51, 57)
    assert not can_play(group, 57, 73)
    assert can_play_notes(group, [Note(0, 1, 51, 80), Note(0, 1, 57, 80)])
    assert not can_play_notes(group, [Note(0, 1, 51, 80), Note(0, 1, 52, 80)])


@pytest.mark.parametrize("pitch", [57, 60, 61, 75])
def test_onsets_are_exact(tmp_path, pitch):
    group = tones(tmp_path, silence_s=0.2)
    for start in (0.0123, 0.5, 1.23456):
        wave = rendered(group, [Note(start, start + 0.5, pitch, 100)])
        assert abs(onset_s(wave) - start) < 1e-3


def test_notes_before_the_start_are_cut_and_late_ones_left_out(tmp_path):
    group = tones(tmp_path, seconds=3.0)
    notes = [Note(-0.5, 0.5, 60, 80), Note(-2, -1, 64, 80), Note(2.5, 3, 64, 80)]
    wave = rendered(group, notes)
    whole = rendered(group, [Note(0.5, 1.5, 60, 80)])
    assert wave.shape == (2 * RATE,)
    assert wave.dtype == np.float32
    assert rms(wave[:24000]) == pytest.approx(rms(whole[48000:72000]), rel=0.01)
    assert not wave[RATE:].any()


def test_level_follows_velocity(tmp_path):
    group = tones(tmp_path)
    levels = [
        20 * np.log10(rms(rendered(group, [Note(0, 1, 60, velocity)])[4800:43200]))
        for velocity in (30, 60, 80, 100, 120)
    ]
    assert levels[2] == pytest.approx(20 * np.log10(LEVEL / np.sqrt(2)), abs=0.3)
    steps = np.diff(levels) / np.diff((30, 60, 80, 100, 120))
    assert np.all((steps > 0.33) & (steps < 0.37)), steps


def test_soft_notes_are_duller(tmp_path):
    wave = sum(tone(60 + 12 * octave) for octave in range(5)) / 5
    group = instrument(tmp_path, "flute", [({"midi_pitch": 60}, wave)])

    def brightness_db(velocity):
        played = rendered(group, [Note(0, 1, 60, velocity)])[4800:43200]
        power = np.abs(np.fft.rfft(played * np.hanning(len(played)))) ** 2
        hz = np.fft.rfftfreq(len(played), 1 / RATE)
        return 10 * np.log10(power[hz > 3000].sum() / power[hz < 400].sum())

    soft, medium, hard = (brightness_db(velocity) for velocity in (25, 70, 110))
    assert hard == pytest.approx(0, abs=0.3)
    assert hard - 3 < medium < hard - 0.5
    assert hard - 10 < soft < hard - 4


def test_one_pole_low_pass_is_the_recursion():
    samples = np.random.default_rng(0).normal(size=3000).astype(np.float32)
    a = np.exp(-2 * np.pi * 0.04)
    expected, last = [], 0.0
    for sample in samples:
        last = (1 - a) * sample + a * last
        expected.append(last)
    assert np.allclose(one_pole_low_pass(samples, 0.04), expected, atol=1e-5)


@pytest.mark.parametrize("class_name", ["flute", "organ", "guitar", "piano"])
@pytest.mark.parametrize("held_s", [0.04, 0.31, 1.2, 1.9])
def test_no_clicks(tmp_path, class_name, held_s):
    pitch = 45
    group = tones(tmp_path, class_name, (pitch,), seconds=1.0)
    wave = rendered(group, [Note(0.05, 0.05 + held_s, pitch, 100)], 2.5)
    amplitude = LEVEL * 10 ** (0.35 * 20 / 20)
    # The attack of the test tone is a step, so what follows it counts.
    after = wave[round(0.052 * RATE) :]
    assert np.abs(np.diff(after)).max() < 1.1 * amplitude * 2 * np.pi * hertz(pitch) / RATE
    release_s = sampler.RELEASE_SECONDS[INSTRUMENTS[class_name].family]
    held = class_name in ("flute", "organ")
    end_s = 0.05 + (held_s if held else min(held_s, 1.0)) + release_s
    assert not wave[round(end_s * RATE) + 2 :].any()


def test_sustained_sounds_are_held_and_plucked_ones_ring_out(tmp_path):
    note = [Note(0, 4, 60, 80)]
    flute = rendered(tones(tmp_path / "a"), note, 4.5)
    frames = [rms(flute[start : start + 4800]) for start in range(4800, 4 * RATE - 4800, 4800)]
    assert max(frames) / min(frames) < 1.05
    guitar = rendered(tones(tmp_path / "b", "guitar"), note, 4.5)
    assert rms(guitar[: RATE // 2]) == pytest.approx(rms(flute[: RATE // 2]), rel=0.05)
    assert not guitar[round(1.01 * RATE) :].any()


def test_repeated_notes_alternate(tmp_path, monkeypatch):
    same = [({"midi_pitch": 60}, tone(60, seconds=0.2)) for _ in range(3)]
    rows = heard(instrument(tmp_path, "guitar", same), monkeypatch, steady(60, 60))
    assert all(first != second for first, second in pairwise(rows))
    assert set(rows) == {2, 3, 4}


def test_neighbours_help_where_a_pitch_has_one_sound(tmp_path, monkeypatch):
    group = tones(tmp_path, "guitar", (60, 61, 70), seconds=0.2)
    rows = heard(group, monkeypatch, steady(60))
    assert rows == [2, 3] * 6
    # Alone in its reach, a sound is repeated.
    assert set(heard(group, monkeypatch, steady(71))) == {4}


def test_a_pitch_does_not_repeat_its_sound_after_another_pitch(tmp_path, monkeypatch):
    group = tones(tmp_path, "guitar", (60, 61, 67), seconds=0.2)
    notes = [Note(n / 10, n / 10, (60, 67)[n % 2], 80) for n in range(12)]
    assert heard(group, monkeypatch, notes)[::2] == [2, 3] * 3


def test_noise_in_front_of_the_onset_fades_in(tmp_path):
    wave = np.concatenate((np.full(3200, 0.009, np.float32), tone(60, silence_s=0)))
    group = instrument(tmp_path, "guitar", [({"midi_pitch": 60}, wave)])
    played = rendered(group, [Note(0.5, 1, 60, 80)])
    start = int(np.argmax(np.abs(played) > 1e-7))
    assert np.abs(np.diff(played[: start + 20])).max() < 0.2 * LEVEL * 0.009 / 0.5


def test_hard_notes_take_hard_sounds(tmp_path, monkeypatch):
    layers = [
        ({"midi_pitch": 60, "peak_before": peak}, tone(60, seconds=0.1))
        for peak in (0.1, 0.1, 0.9, 0.9)
    ]
    group = instrument(tmp_path, "piano", layers)
    soft = Counter(heard(group, monkeypatch, steady(60, 100, 25)))
    hard = Counter(heard(group, monkeypatch, steady(60, 100, 125)))
    assert soft[2] + soft[3] > 70
    assert hard[4] + hard[5] > 70


def test_long_notes_take_long_sounds(tmp_path, monkeypatch):
    rows = [
        ({"midi_pitch": pitch, "seconds": seconds}, tone(pitch, seconds=seconds))
        for pitch, seconds in ((60, 0.3), (60, 1.5), (62, 0.3), (66, 0.3))
    ]
    flute = instrument(tmp_path / "a", "flute", rows)
    assert set(heard(flute, monkeypatch, steady(62))) == {4}
    long = [Note(n / 10, n / 10 + 0.8, 62, 80) for n in range(6)]
    assert set(heard(flute, monkeypatch, long)) == {3}
    # Only a short sound is in reach.
    assert heard(flute, monkeypatch, [Note(0, 0.8, 66, 80)]) == [5]
    # Plucked strings end by themselves.
    guitar = instrument(tmp_path / "b", "guitar", rows)
    assert set(heard(guitar, monkeypatch, long)) == {4}


def test_pitches_keep_their_balance_within_limits(tmp_path):
    peaks = {60: 0.4, 64: 0.8, 68: 0.4, 72: 0.001}
    rows = [({"midi_pitch": p, "peak_before": peak}, tone(p)) for p, peak in peaks.items()]
    group = instrument(tmp_path, "organ", rows)
    levels = {
        pitch: 20 * np.log10(rms(rendered(group, [Note(0, 1, pitch, 100)])[4800:43200]))
        for pitch in peaks
    }
    differences = [levels[pitch] - levels[60] for pitch in (64, 68, 72)]
    assert differences == pytest.approx([6, 0, -6], abs=0.15)


def hits(folder, kinds, class_name="drums", seconds=0.4):
    rows = [
        ({"articulation": kind}, tone(pitch, seconds=seconds, decay_s=1.0))
        for kind, pitch in kinds.items()
    ]
    return instrument(folder, class_name, rows)


def test_hits_are_chosen_by_kind(tmp_path):
    group = hits(tmp_path, {"kick": 40, "snare": 60, "low_tom": 50})
    for pitch, sound in ((35, 40), (36, 40), (38, 60), (45, 50), (37, 60), (48, 50)):
        wave = rendered(group, [Note(0, 0.05, pitch, 100)])
        assert abs(measured_pitch(wave[: RATE // 3]) - sound) < 0.1
        # A hit rings on after its note.
        assert rms(wave[12000:15000]) > 0.5 * rms(wave[1000:4000])
    assert can_play(group, 35, 50)
    assert not can_play(hits(tmp_path / "b", {"kick": 40}), 35, 38)
    with pytest.raises(ConfigError, match=r"pitch 38 \(snare\)\. It has: kick\."):
        rendered(hits(tmp_path / "c", {"kick": 40}), [Note(0, 1, 38, 80)])
    with pytest.raises(ConfigError, match="can_play_notes"):
        reach(group)


def test_a_hit_rings_on_below_the_next(tmp_path):
    group = hits(tmp_path, {"ride": 60}, "cymbals", seconds=3.0)
    span = slice(round(0.6 * RATE), RATE)
    hard, soft = Note(0, 0.1, 51, 127), [Note(n / 10, n / 10, 51, 20) for n in (2, 3, 4)]
    alone = rms(rendered(group, [hard])[span])
    assert rms(rendered(group, [hard, *soft[:2]])[span]) > 0.9 * alone
    assert rms(rendered(group, [hard, *soft])[span]) < 0.1 * alone


def test_a_closed_hi_hat_damps_the_open_one(tmp_path):
    group = hits(tmp_path, {"open_hat": 60, "closed_hat": 90}, "cymbals", seconds=2.0)
    opened = [Note(0, 0.1, 46, 100)]
    wave = rendered(group, [*opened, Note(0.5, 0.6, 42, 100)])[round(0.65 * RATE) : RATE]
    power = np.abs(np.fft.rfft(wave * np.hanning(len(wave)))) ** 2
    hz = np.fft.rfftfreq(len(wave), 1 / RATE)
    assert power[hz < 500].sum() < 1e-4 * power[hz > 500].sum()
    assert rms(rendered(group, opened)[round(0.65 * RATE) : RATE]) > 0.1 * LEVEL


def test_same_seed_same_samples(tmp_path):
    group = tones(tmp_path)
    notes = [Note(n / 5, n / 5 + 0.3, 57 + n, 40 + 5 * n) for n in range(10)]
    first = rendered(group, notes, seed=1)
    again = load_recordings(group.table).groups("flute")[0]
    assert np.array_equal(rendered(again, notes, seed=1), first)
    assert not np.array_equal(rendered(again, notes, seed=2), first)
    assert np.array_equal(rendered(group, notes[::-1], seed=1), first)


def test_unreadable_sound_is_named(tmp_path):
    group = tones(tmp_path)
    (tmp_path / "000.wav").write_bytes(b"no audio")
    with pytest.raises(DatasetError, match=r"notes\.csv, row 2, column path: .*000\.wav"):
        rendered(group, [Note(0, 1, 60, 80)])


@pytest.fixture(scope="module")
def real(shared_folder):
    table = shared_folder / "recordings" / "notes.csv"
    if not table.is_file():
        pytest.skip(f"this test needs {table}")
    return load_recordings(table)


def test_real_classes_can_be_played_in_their_register(real):
    for name in real.classes:
        groups = real.groups(name)
        if name == "other":
            continue
        if groups[0].is_kit:
            table = DRUM_NOTES if name == "drums" else CYMBAL_NOTES
            pitches = {pitch for pitches in table.values() for pitch in pitches}
            assert any(can_play(group, min(pitches), max(pitches)) for group in groups), name
            continue
        low = min(patch.low for patch in INSTRUMENTS[name].patches)
        high = max(patch.high for patch in INSTRUMENTS[name].patches)
        recorded = {pitch for g in groups for pitch in range(reach(g)[0], reach(g)[1] + 1)}
        missing = set(range(low, high + 1)) - recorded
        assert len(missing) <= {"banjo": 10, "flute": 1}.get(name, 0), (name, missing)


def test_real_instruments_sound(real):
    for name in real.classes:
        group = real.groups(name)[0]
        if group.is_kit:
            notes = [Note(0.2, 0.3, 36 if name == "drums" else 51, 80)]
        else:
            middle = sum(reach(group)) // 2
            notes = [Note(0.2, 1.5, middle, 80), Note(1.5, 2, middle, 80)]
        wave = rendered(group, notes)
        assert 0.02 < np.abs(wave).max() < 0.8, name
        assert rms(wave[: round(0.198 * RATE)]) == 0, name
        assert rms(wave[round(0.2 * RATE) : round(0.5 * RATE)]) > 1e-3, name


def test_bends_and_tuning_move_the_pitch(tmp_path):
    group = tones(tmp_path)
    note = Note(0.2, 1.8, 64, 80)

    def part(**options):
        return play(group, [note], random.Random(0), 2.0, RATE, **options)

    plain = measured_pitch(part()[int(0.4 * RATE) : int(1.6 * RATE)])
    tuned = measured_pitch(part(tuning_cents=30)[int(0.4 * RATE) : int(1.6 * RATE)])
    assert tuned - plain == pytest.approx(0.3, abs=0.01)
    slide = np.array([[0.9, 0.0], [1.0, 200.0]])
    bent = part(bend_cents=slide)
    before, after = (
        bent[int(0.3 * RATE) : int(0.85 * RATE)],
        bent[int(1.1 * RATE) : int(1.7 * RATE)],
    )
    assert measured_pitch(before) == pytest.approx(plain, abs=0.01)
    assert measured_pitch(after) == pytest.approx(plain + 2, abs=0.01)
    # A bend upwards uses more of the sound, which must not end early.
    assert rms(bent[int(1.6 * RATE) : int(1.75 * RATE)]) > 0.8 * rms(before)


def test_kits_are_neither_bent_nor_tuned(tmp_path):
    kit = instrument(tmp_path, "drums", [({"articulation": "kick"}, tone(40, decay_s=0.2))])
    notes = [Note(0.2, 0.4, 36, 80)]
    plain = play(kit, notes, random.Random(0), 1.0, RATE)
    bend = np.array([[0.0, 150.0]])
    moved = play(kit, notes, random.Random(0), 1.0, RATE, bend_cents=bend, tuning_cents=50)
    np.testing.assert_array_equal(moved, plain)
