"""evaluation_batches over files, and the plan that averages windows."""

from __future__ import annotations

import numpy as np
import pytest

from rfkeras.data.audio import AudioFile, AudioFormat
from rfkeras.data.cache import WaveformCache
from rfkeras.data.pipeline import evaluation_batches
from rfkeras.data.windows import EvaluationPlan, window_starts
from rfkeras.errors import AudioError, ConfigError, DatasetError
from tests.data.conftest import RATE, break_file, log, ramp

AUDIO = AudioFormat(RATE)


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


def test_unreadable_clips_are_reported_and_left_out_of_the_average(ramps, tmp_path):
    split = ramps(4, samples=[250, 100, 150, 100]).splits["train"]
    break_file(split, 1)
    bad = log(limit=0.1)
    dataset, plan = evaluate(split, bad_files=bad)
    # The third clip breaks after the plan was made.
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


def test_evaluation_stops_at_the_limit(ramps):
    split = ramps(4).splits["train"]
    break_file(split, 1)
    with pytest.raises(DatasetError, match="1 of 100"):
        evaluate(split)


def test_a_file_that_ends_early_is_an_error_not_silence(ramps):
    split = ramps(1, samples=[250]).splits["train"]
    path = split.paths[0]
    with AudioFile(path, AUDIO) as file:
        path.write_bytes(path.read_bytes()[:600])
        with pytest.raises(AudioError, match="truncated"):
            file.read()
