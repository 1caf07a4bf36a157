"""Composed clips: determinism, statistics, labels, and how written notes are performed."""

from __future__ import annotations

import hashlib
import random
from collections import Counter, defaultdict

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from rfkeras.synthesis.compose import (
    LABEL_RATE,
    VERSION,
    Composition,
    Hand,
    compose,
    excerpt,
    featured_class,
    is_heard,
    perform,
    rests,
    swung,
    tremolo,
)
from rfkeras.synthesis.generate import DEFAULT_SIZE, FIRST_TEST_INDEX, MAX_SIZE, clip_indices
from rfkeras.synthesis.mapping import CLASSES, INSTRUMENTS
from rfkeras.synthesis.song import CLIP_SECONDS, LEAD_SECONDS, SCALES, Note

Clips = dict[str, list[Composition]]
MELODIC = [name for name in CLASSES if INSTRUMENTS[name].family != "kit"]


def _labels(clips: list[Composition]) -> np.ndarray:
    return np.array([clip.labels for clip in clips])


def _mask(clips: list[Composition]) -> np.ndarray:
    return np.array([clip.mask for clip in clips])


def _digest(clip: Composition) -> str:
    """Hash a clip's notes and labels, rounded to be independent of the platform's libm."""
    parts = [
        (
            part.casting.instrument.name,
            part.casting.program,
            round(part.level_db, 5),
            part.reverb,
            part.vibrato,
            [(round(n.start, 5), round(n.end, 5), n.pitch, n.velocity) for n in part.notes],
        )
        for part in clip.parts
    ]
    whole = (clip.kit, round(clip.tuning_cents, 5), round(clip.jitter_db, 5), parts)
    return hashlib.sha256(repr((whole, clip.labels, clip.mask)).encode()).hexdigest()


def test_music_of_the_current_version_is_unchanged() -> None:
    together = "".join(_digest(compose(0, index)) for index in range(60))
    assert (VERSION, hashlib.sha256(together.encode()).hexdigest()[:16]) == (
        1,
        "1230a964d1610a80",
    )


def test_clip_is_determined_by_seed_and_index() -> None:
    assert compose(0, 7) == compose(0, 7)
    digests = [_digest(compose(seed, index)) for seed in (0, 1) for index in range(20)]
    assert len(set(digests)) == 40


def test_splits_share_no_clip(many_clips: Clips) -> None:
    train, test = clip_indices(MAX_SIZE)
    assert train.stop <= test.start
    digests = {split: {_digest(c) for c in clips} for split, clips in many_clips.items()}
    assert len(digests["train"]) == 1300
    assert len(digests["test"]) == 300
    assert not digests["train"] & digests["test"]


@pytest.mark.parametrize("split", ["train", "test"])
def test_every_class_has_known_positives_and_negatives(split: str, many_clips: Clips) -> None:
    train, test = clip_indices(DEFAULT_SIZE)
    clips = many_clips[split][: len({"train": train, "test": test}[split])]
    labels, mask = _labels(clips), _mask(clips)
    least = {"train": 60, "test": 12}[split]
    assert ((labels == 1) & mask).sum(axis=0).min() >= least
    assert ((labels == 0) & mask).sum(axis=0).min() >= least


def test_each_block_of_twenty_clips_features_all_classes() -> None:
    assert {featured_class(3, index) for index in range(40, 60)} == set(CLASSES)
    start = FIRST_TEST_INDEX
    assert {featured_class(3, index) for index in range(start, start + 20)} == set(CLASSES)


def test_labels_are_known_at_the_same_rate_for_both_values(many_clips: Clips) -> None:
    clips = many_clips["train"]
    # Without sounds of unknown class, only the random draw hides labels.
    plain = [c for c in clips if not any(p.casting.instrument.resembles for p in c.parts)]
    labels, mask = _labels(plain), _mask(plain)
    assert len(plain) > 900
    assert mask[labels == 0].mean() == pytest.approx(LABEL_RATE, abs=0.01)
    assert mask[labels == 1].mean() == pytest.approx(LABEL_RATE, abs=0.03)
    assert _mask(clips).mean(axis=0).min() > 0.6


def test_classes_that_an_unknown_sound_resembles_are_not_annotated(many_clips: Clips) -> None:
    seen = 0
    for clip in many_clips["train"]:
        for part in clip.parts:
            for name in part.casting.instrument.resembles:
                column = CLASSES.index(name)
                assert clip.labels[column] == 1 or not clip.mask[column]
                seen += 1
    assert seen > 200


def test_clips_have_one_to_five_instruments_and_every_class_has_solos(
    many_clips: Clips,
) -> None:
    clips = many_clips["train"]
    counts = Counter(len(clip.parts) for clip in clips)
    assert set(counts) == {1, 2, 3, 4, 5}
    assert min(counts.values()) > 60
    solos = {clip.parts[0].casting.instrument.name for clip in clips if len(clip.parts) == 1}
    assert solos == set(CLASSES)
    assert not any(c.parts[0].casting.role == "counter" for c in clips if len(c.parts) == 1)
    for clip in clips:
        names = [part.casting.instrument.name for part in clip.parts]
        assert len(set(names)) == len(names)


def test_known_positive_is_heard_in_the_clip(many_clips: Clips) -> None:
    for clip in many_clips["test"] + many_clips["train"]:
        heard = {
            part.casting.instrument.name
            for part in clip.parts
            if is_heard(part.notes, CLIP_SECONDS)
        }
        playing = {part.casting.instrument.name for part in clip.parts}
        for name, label, known in zip(CLASSES, clip.labels, clip.mask, strict=True):
            assert label == (name in heard)
            if known:
                assert (name in heard) == (name in playing)


def test_most_parts_are_heard(many_clips: Clips) -> None:
    heard = [part.heard for clip in many_clips["train"] for part in clip.parts]
    assert np.mean(heard) > 0.98


def test_notes_are_within_time_range_and_register(many_clips: Clips) -> None:
    for clip in many_clips["test"]:
        for part in clip.parts:
            for note in part.notes:
                assert -LEAD_SECONDS <= note.start < note.end <= CLIP_SECONDS
                assert part.casting.low <= note.pitch <= part.casting.high
                assert 20 <= note.velocity <= 127


def test_tonal_parts_are_in_key(many_clips: Clips) -> None:
    inside = total = 0
    for clip in many_clips["test"]:
        scale = {(clip.song.key + step) % 12 for step in SCALES[clip.song.mode]}
        for part in clip.parts:
            if part.casting.role != "kit":
                inside += sum(note.pitch % 12 in scale for note in part.notes)
                total += len(part.notes)
    assert inside / total > 0.96
    # Only the leading tone of the minor dominant is outside the scale.
    assert inside < total


def test_chord_tones_dominate_the_accompaniment(many_clips: Clips) -> None:
    inside = total = 0
    for clip in many_clips["test"]:
        for part in clip.parts:
            if part.casting.role in ("chords", "bass"):
                for note in part.notes:
                    beat = (note.start + clip.song.excerpt_s) * clip.song.tempo_bpm / 60 + 0.1
                    inside += note.pitch % 12 in clip.song.chord_at(beat).classes
                    total += 1
    assert inside / total > 0.85


def test_keys_tempi_metres_and_starts_vary(many_clips: Clips) -> None:
    songs = [clip.song for clip in many_clips["train"]]
    assert {song.key for song in songs} == set(range(12))
    assert {song.mode for song in songs} == set(SCALES)
    tempi = [song.tempo_bpm for song in songs]
    assert 60 <= min(tempi) < 70
    assert 170 < max(tempi) <= 190
    assert {song.beats_per_bar for song in songs} == {3, 4}
    assert 0.3 < np.mean([song.excerpt_s < 0 for song in songs]) < 0.4


def test_roles_do_not_reveal_the_class(many_clips: Clips) -> None:
    roles: dict[str, Counter[str]] = defaultdict(Counter)
    for clip in many_clips["train"]:
        for part in clip.parts:
            roles[part.casting.instrument.name][part.casting.role] += 1
    for name in MELODIC:
        assert {"melody", "counter", "chords"} <= set(roles[name]), name
        assert max(roles[name].values()) < 0.8 * sum(roles[name].values()), name
    bass_players = [name for name in MELODIC if roles[name]["bass"] > 5]
    assert len(bass_players) >= 7


def test_tempo_key_level_and_number_of_notes_do_not_reveal_the_class(many_clips: Clips) -> None:
    clips = many_clips["train"] + many_clips["test"]
    labels = _labels(clips)
    features = {
        "tempo": [clip.song.tempo_bpm for clip in clips],
        "key": [clip.song.key for clip in clips],
        "level": [clip.jitter_db for clip in clips],
    }
    for feature, values in features.items():
        for column, name in enumerate(CLASSES):
            area = roc_auc_score(labels[:, column], values)
            # Three standard errors with about 190 positives among 1600 clips.
            assert abs(area - 0.5) < 0.075, (feature, name, area)
    notes = [sum(len(part.notes) for part in clip.parts) for clip in clips]
    for name in MELODIC:
        # The mandolin's tremolo has many strokes per note and is part of its sound.
        if name != "mandolin":
            assert 0.3 < roc_auc_score(labels[:, CLASSES.index(name)], notes) < 0.7, name


def test_bass_lines_are_below_e3_and_the_bass_class_below_c4(many_clips: Clips) -> None:
    for clip in many_clips["test"]:
        for part in clip.parts:
            pitches = [note.pitch for note in part.notes]
            if part.casting.role == "bass":
                assert max(pitches) <= 52
            if part.casting.instrument.name == "bass":
                assert min(pitches) >= 28
                assert max(pitches) <= 60


def test_drum_parts_have_fills_and_several_patterns(many_clips: Clips) -> None:
    drums = [
        part
        for clip in many_clips["train"]
        for part in clip.parts
        if part.casting.instrument.name == "drums"
    ]
    toms = {41, 43, 45, 47, 48, 50}
    with_toms = np.mean([any(note.pitch in toms for note in part.notes) for part in drums])
    assert 0.4 < with_toms < 0.95
    grooves = {clip.song.groove for clip in many_clips["train"]}
    assert len(grooves) == 13


@pytest.mark.parametrize(
    ("beat", "expected"), [(0, 0), (0.5, 2 / 3), (3.25, 3 + 1 / 3), (4, 4)]
)
def test_swing_moves_only_the_off_beat(beat: float, expected: float) -> None:
    assert swung(beat, 2 / 3) == pytest.approx(expected)
    assert swung(beat, 0.5) == pytest.approx(beat)


def test_perform_converts_beats_to_seconds_with_accents() -> None:
    hand = Hand(velocity=80, dynamics=0, accent=10, timing_s=0, lag_s=0.01, gate=0.5)
    written = [Note(0, 1, 60, 0), Note(1, 2, 62, 0), Note(1.5, 2, 64, -5)]
    played = perform(random.Random(0), written, hand, tempo_bpm=120, swing=0.5, beats_per_bar=4)
    assert [round(note.start, 6) for note in played] == [0.01, 0.51, 0.76]
    assert [round(note.end - note.start, 6) for note in played] == [0.25, 0.25, 0.125]
    assert [note.velocity for note in played] == [90, 85, 75]


def test_long_note_is_shortened_by_at_most_half_a_beat() -> None:
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


def test_excerpt_keeps_ringing_notes_and_drops_the_others() -> None:
    notes = [Note(0, 1, 1, 9), Note(3, 6, 2, 9), Note(4.5, 4.6, 3, 9), Note(7, 20, 4, 9)]
    assert excerpt(notes, start=5, length=10, lead=1) == (
        Note(-1, 1, 2, 9),
        Note(-0.5, pytest.approx(-0.4), 3, 9),  # type: ignore[arg-type]
        Note(2, 10, 4, 9),
    )
    assert excerpt([Note(16, 17, 1, 9)], start=5, length=10, lead=1) == ()


def test_heard_part_has_onsets_seconds_of_sound_and_short_rests() -> None:
    steady = [Note(t, t + 0.1, 60, 80) for t in range(10)]
    assert is_heard(steady, 10)
    assert not is_heard(steady[:3], 10)  # too few onsets
    assert not is_heard(steady[:6], 10)  # then four seconds of silence
    assert not is_heard([Note(t / 50, t / 50 + 0.1, 60, 80) for t in range(20)], 10)
    assert rests([Note(1, 2, 60, 80), Note(1.5, 3, 60, 80)], 10) == [1, 7]
