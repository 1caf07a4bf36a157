"""training_batches and evaluation_batches with audio files."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
import tensorflow as tf

from rfkeras.audio.io import AudioFile, AudioFormat, read_audio
from rfkeras.datasets.base import Split
from rfkeras.datasets.excerpts import (
    EvaluationPlan,
    WaveformCache,
    default_steps_per_epoch,
    window_starts,
)
from rfkeras.datasets.pipeline import evaluation_batches, training_batches
from rfkeras.errors import AudioError, ConfigError, DatasetError
from tests.datasets.conftest import RATE, break_file, log, music, ramp, where

AUDIO = AudioFormat(RATE)


def train(split, **options):
    arguments = {
        "excerpt_seconds": 0.1,
        "batch_size": 4,
        "seed": 3,
        "steps_per_epoch": 3,
        "total_steps": 9,
        "bad_files": log(),
        **options,
    }
    return training_batches(split, arguments.pop("audio", AUDIO), **arguments)


def listing(dataset) -> list[list[tuple[int, int]]]:
    """Return the clip and the position of every excerpt, batch by batch."""
    return [[where(waveform) for waveform in batch[0]] for batch in dataset.as_numpy_iterator()]


def flat(batches) -> list[tuple[int, int]]:
    return [excerpt for batch in batches for excerpt in batch]


def test_batches_have_static_shapes_and_exact_cardinality(ramps):
    split = ramps(13).splits["train"]
    for start in (0, 4, 9):
        dataset = train(split, start_step=start)
        assert int(dataset.cardinality()) == 9 - start
        assert [spec.shape.as_list() for spec in dataset.element_spec] == [
            [4, 100],
            [4, 3],
            [4, 3],
        ]
        assert len(list(dataset)) == 9 - start
    stereo = train(split, audio=AudioFormat(RATE, 2))
    assert stereo.element_spec[0].shape.as_list() == [4, 100, 2]


def test_excerpts_are_contiguous_samples_of_their_clip_with_its_labels(ramps):
    split = ramps(13).splits["train"]
    for waveforms, labels, mask in train(split).as_numpy_iterator():
        for waveform, label, known in zip(waveforms, labels, mask, strict=True):
            clip, place = where(waveform)
            np.testing.assert_array_equal(waveform, ramp(clip, 800)[place : place + 100])
            np.testing.assert_array_equal(label, split.labels[clip])
            np.testing.assert_array_equal(known, split.mask[clip])


def test_every_clip_comes_at_most_once_per_epoch_and_epochs_differ(ramps):
    batches = listing(train(ramps(12).splits["train"]))
    epochs = [flat(batches[i : i + 3]) for i in (0, 3, 6)]
    for epoch in epochs:
        assert sorted(clip for clip, _ in epoch) == list(range(12))
    assert len({tuple(clip for clip, _ in epoch) for epoch in epochs}) == 3
    places = [dict(epoch) for epoch in epochs]
    assert all(len({place[clip] for place in places}) > 1 for clip in range(12))


def test_the_seed_determines_the_batches(ramps):
    split = ramps(13).splits["train"]
    assert listing(train(split)) == listing(train(split))
    assert listing(train(split)) != listing(train(split, seed=4))


@pytest.mark.parametrize("cache_bytes", [0, 10**6])
@pytest.mark.parametrize("start", [1, 3, 5, 8])
def test_a_run_resumed_at_any_step_sees_the_same_batches(ramps, start, cache_bytes):
    split = ramps(13).splits["train"]
    whole = list(train(split).as_numpy_iterator())
    resumed = train(split, start_step=start, cache_bytes=cache_bytes).as_numpy_iterator()
    for one, other in zip(whole[start:], resumed, strict=True):
        for expected, received in zip(one, other, strict=True):
            np.testing.assert_array_equal(expected, received)


def test_excerpts_reach_both_ends_of_the_clip(ramps):
    split = ramps(4, samples=104).splits["train"]
    places = {place for batch in listing(train(split, total_steps=60)) for _, place in batch}
    assert places == {0, 1, 2, 3, 4}


def test_fewer_clips_than_a_batch_wrap_around(ramps):
    split = ramps(3).splits["train"]
    assert default_steps_per_epoch(3, 8) == 1
    assert default_steps_per_epoch(17, 8) == 2
    batches = listing(train(split, batch_size=8, steps_per_epoch=1, total_steps=4))
    for batch in batches:
        clips = [clip for clip, _ in batch]
        assert sorted(clips[:3]) == [0, 1, 2]
        assert clips[3:6] == clips[:3]
        assert len(set(batch)) == 8  # the same clip again, at another position


def test_a_clip_shorter_than_the_excerpt_is_repeated_circularly(ramps):
    split = ramps(2, samples=[30, 30]).splits["train"]
    waveform = next(train(split, batch_size=1).as_numpy_iterator())[0][0]
    clip, place = where(waveform)
    assert place == 0
    np.testing.assert_array_equal(waveform, np.resize(ramp(clip, 30), 100))


def test_resampled_excerpts_equal_slices_of_the_resampled_file(tmp_path):
    path = tmp_path / "a.flac"
    soundfile.write(path, music(2.0, 44100), 44100)
    split = Split(("a",), (path,), np.ones((1, 1), np.float32), np.ones((1, 1), np.float32))
    audio = AudioFormat(22050)
    whole = read_audio(path, audio)
    options = {"audio": audio, "excerpt_seconds": 0.3, "batch_size": 2, "total_steps": 3}
    plain = list(train(split, **options).as_numpy_iterator())
    cached = list(train(split, cache_bytes=10**7, **options).as_numpy_iterator())
    for (waveforms, _, _), (from_cache, _, _) in zip(plain, cached, strict=True):
        np.testing.assert_allclose(waveforms, from_cache, atol=1e-6)
        for waveform in from_cache:
            starts = np.flatnonzero(np.isclose(whole, waveform[0], atol=1e-7))
            assert any(np.array_equal(whole[at : at + 6615], waveform) for at in starts)


def test_the_cache_skips_decoding_and_stays_under_its_limit(ramps, monkeypatch):
    split = ramps(12).splits["train"]
    opened = []
    from rfkeras.audio import decode

    class Counting(decode.AudioFile):
        def __init__(self, path, *rest):
            opened.append(path)
            super().__init__(path, *rest)

    monkeypatch.setattr(decode, "AudioFile", Counting)
    # Of several readers, two may decode a clip that is not in the cache yet.
    monkeypatch.setattr("rfkeras.datasets.pipeline.parallel_reads", lambda: 1)
    expected = listing(train(split))
    assert len(opened) == 36
    opened.clear()
    cache = WaveformCache(12 * 3200)
    assert listing(train(split, cache=cache)) == expected
    assert len(opened) == 12
    assert cache.used_bytes == 12 * 3200
    opened.clear()
    small = WaveformCache(5 * 3200 + 100)
    assert listing(train(split, cache=small)) == expected
    assert small.used_bytes == 5 * 3200
    assert len(opened) == 12 + 7 + 7


def test_a_bad_file_is_recorded_and_the_next_clip_takes_its_place(ramps):
    split = ramps(12).splits["train"]
    whole = listing(train(split))
    break_file(split, 5)
    bad = log(limit=0.1)
    repaired = listing(train(split, bad_files=bad))
    assert [file.path for file in bad.files] == [str(split.paths[5])]
    assert bad.files[0].stage == "training"
    for before, after in zip(flat(whole), flat(repaired), strict=True):
        assert (before == after) if before[0] != 5 else (after[0] != 5)
    first_epoch = [clip for clip, _ in flat(whole[:3])]
    substitute = [clip for clip, _ in flat(repaired[:3])][first_epoch.index(5)]
    assert substitute == first_epoch[(first_epoch.index(5) + 1) % 12]
    # It is the same after resuming, when the list of bad files is still empty.
    assert listing(train(split, start_step=4, bad_files=log(limit=0.1))) == repaired[4:]


def test_substitutes_carry_their_own_labels(ramps):
    split = ramps(12).splits["train"]
    break_file(split, 5)
    for waveforms, labels, _ in train(split, bad_files=log(limit=0.1)).as_numpy_iterator():
        assert [where(waveform)[0] / 64 for waveform in waveforms] == list(labels[:, 2])


def test_too_many_bad_files_raise_a_data_set_error(ramps):
    split = ramps(12).splits["train"]
    for row in (2, 7):
        break_file(split, row)
    bad = log(limit=0.01)
    with pytest.raises(tf.errors.OpError):
        list(train(split, bad_files=bad))
    with pytest.raises(DatasetError, match=r"2 of 100 audio files cannot be used"):
        bad.raise_if_stopped()


def test_no_readable_clip_is_an_error_even_with_a_loose_limit(ramps):
    split = ramps(2).splits["train"]
    for row in (0, 1):
        break_file(split, row)
    bad = log(limit=1.0)
    with pytest.raises(tf.errors.OpError):
        list(train(split, bad_files=bad))
    with pytest.raises(DatasetError, match="clips in a row cannot be read"):
        bad.raise_if_stopped()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"steps_per_epoch": 0}, "steps_per_epoch"),
        ({"start_step": 10}, "start_step must be from 0 to total_steps"),
        ({"seed": -1}, "seed must be from 0"),
        ({"seed": 2**31}, "seed must be from 0"),
        ({"excerpt_seconds": 0.0}, "at least one sample"),
        ({"decoder": "ffmpeg"}, "Unknown decoder 'ffmpeg'"),
        ({"decoder": "tfio"}, "only reads packed shards"),
        ({"cache_bytes": 1, "cache": WaveformCache(1)}, "not both"),
    ],
)
def test_invalid_arguments_are_rejected(ramps, change, message):
    with pytest.raises(ConfigError, match=message):
        train(ramps(4).splits["train"], **change)


def test_an_empty_split_is_rejected(ramps):
    with pytest.raises(DatasetError, match="no clips"):
        train(ramps(4).splits["train"].select([]))


def evaluate(split, **options):
    arguments = {"window_seconds": 0.1, "batch_size": 4, "bad_files": log(), **options}
    return evaluation_batches(split, AUDIO, **arguments)


@pytest.mark.parametrize(
    ("length", "starts"),
    [(1, [0]), (100, [0]), (101, [0, 1]), (200, [0, 100]), (250, [0, 100, 150])],
)
def test_windows_cover_a_clip_and_end_with_it(length, starts):
    np.testing.assert_array_equal(window_starts(length, 100), starts)


@pytest.mark.parametrize("cache", [None, WaveformCache(10**6)])
def test_evaluation_covers_every_clip_in_full_batches(ramps, cache):
    split = ramps(3, samples=[250, 100, 30]).splits["train"]
    dataset, plan = evaluate(split, cache=cache)
    assert int(dataset.cardinality()) == plan.batches == 2
    assert dataset.element_spec.shape.as_list() == [4, 100]
    np.testing.assert_array_equal(plan.rows, [0, 0, 0, 1, 2])
    windows = np.concatenate(list(dataset.as_numpy_iterator()))
    expected = [ramp(0, 250)[at : at + 100] for at in (0, 100, 150)]
    expected += [ramp(1, 100), np.resize(ramp(2, 30), 100)]
    np.testing.assert_array_equal(windows[:5], expected)
    np.testing.assert_array_equal(windows[5:], expected[:3])  # padding
    np.testing.assert_array_equal(windows, np.concatenate(list(dataset.as_numpy_iterator())))


def test_plan_averages_windows_and_drops_padding():
    plan = EvaluationPlan.from_lengths([250, 100, None, 30], 100, 4)
    scores = np.array([[1.0], [2.0], [6.0], [5.0], [7.0], [99.0], [99.0], [99.0]])
    np.testing.assert_array_equal(plan.kept_rows, [0, 1, 3])
    np.testing.assert_allclose(plan.average(scores), [[3.0], [5.0], [7.0]])
    np.testing.assert_allclose(plan.average(scores[:5]), [[3.0], [5.0], [7.0]])
    with pytest.raises(ConfigError, match="5 windows"):
        plan.average(scores[:6])


def test_plan_of_clips_in_one_pass():
    lengths = [250, 100, None, 70, 70, 100, 900, 900, 900]
    plan = EvaluationPlan.from_lengths(lengths, 30, 4, range(50, 500))
    assert plan.window in (70, 100)
    plan = EvaluationPlan.from_lengths(lengths, 100, 4, range(50, 500))
    assert (plan.window, list(plan.rows), list(plan.starts)) == (100, [1, 5], [0, 0])
    assert list(plan.whole) == [0, 3, 4, 6, 7, 8]
    for batch_size, allowed in ((5, range(50, 500)), (1, range(300, 500)), (1, range(0))):
        plan = EvaluationPlan.from_lengths(lengths, 100, batch_size, allowed)
        assert plan.windows == 0
        assert list(plan.whole) == list(plan.kept_rows) == [0, 1, 3, 4, 5, 6, 7, 8]


def test_unreadable_clips_are_reported_and_left_out_of_the_average(ramps, tmp_path):
    split = ramps(4, samples=[250, 100, 150, 100]).splits["train"]
    break_file(split, 1)
    bad = log(limit=0.1)
    dataset, plan = evaluate(split, bad_files=bad)
    # The third clip is damaged after the plan was made.
    break_file(split, 2)
    means = [batch.mean(axis=1, keepdims=True) for batch in dataset.as_numpy_iterator()]
    np.testing.assert_array_equal(plan.kept_rows, [0, 3])
    assert {(file.path, file.stage) for file in bad.files} == {
        (str(split.paths[row]), "evaluation") for row in (1, 2)
    }
    windows = [ramp(0, 250)[at : at + 100].mean() for at in (0, 100, 150)]
    expected = [[np.mean(windows)], [ramp(3, 100).mean()]]
    np.testing.assert_allclose(plan.average(np.concatenate(means)), expected, rtol=1e-6)


def test_evaluation_without_a_readable_clip_is_an_error(ramps):
    split = ramps(2).splits["train"]
    for row in (0, 1):
        break_file(split, row)
    with pytest.raises(DatasetError, match="None of the 2 clips can be read"):
        evaluate(split, bad_files=log(limit=1.0))


def test_evaluation_raises_an_error_at_the_limit(ramps):
    split = ramps(4).splits["train"]
    break_file(split, 1)
    with pytest.raises(DatasetError, match="1 of 100"):
        evaluate(split)


def test_a_file_that_ends_early_is_an_error(ramps):
    split = ramps(1, samples=[250]).splits["train"]
    path = split.paths[0]
    with AudioFile(path, AUDIO) as file:
        path.write_bytes(path.read_bytes()[:600])
        with pytest.raises(AudioError, match="truncated"):
            file.read()
