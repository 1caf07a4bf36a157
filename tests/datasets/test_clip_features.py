"""Spectrograms of whole clips: their values, excerpts of them, and their files."""

import json
import threading
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import tensorflow as tf

from rfkeras.audio.decode import open_audio
from rfkeras.audio.io import AudioFormat
from rfkeras.datasets import clip_features as module
from rfkeras.datasets.clip_features import mel_db_of_clip, open_features
from rfkeras.datasets.excerpts import ClipReader
from rfkeras.datasets.pipeline import training_batches
from rfkeras.errors import ConfigError, DatasetError
from rfkeras.frontend import create_frontend
from tests.datasets.conftest import break_file, log, music, split_of

RATE = 22050
AUDIO = AudioFormat(RATE)
SECONDS = 0.5
SAMPLES = round(SECONDS * RATE)
HALF_FLOAT = 2**-11  # relative rounding of float16


@pytest.fixture
def clips(tmp_path):
    """Return a split of five clips of music; the third is shorter than an excerpt."""
    split = split_of(np.eye(5, 3), folder=tmp_path / "clips")
    (tmp_path / "clips").mkdir()
    for row, path in enumerate(split.paths):
        seconds = 0.3 if row == 2 else 1.0 + 0.1 * row
        soundfile.write(path, music(seconds, RATE, 1, seed=row), RATE, subtype="FLOAT")
    return split


def frontend(**options):
    layer = create_frontend("perceptual_mel_22k", fixed_floor=True, **options)
    layer.build((None, None))
    return layer


def opened(split, folder, layer=None, **options):
    arguments = {"excerpt_seconds": SECONDS, "bad_files": log(), **options}
    return open_features(folder / "features", split, layer or frontend(), AUDIO, **arguments)


def written(folder):
    """Return the time of change of all arrays by folder and name."""
    files = (folder / "features").glob("*/*.npy")
    return {(path.parent.name, path.name): path.stat().st_mtime_ns for path in files}


@pytest.mark.parametrize("fraction", [0.0, 0.37, 0.999])
def test_an_excerpt_equals_the_front_end_except_at_its_edges(clips, tmp_path, fraction):
    layer = frontend()
    features = opened(clips, tmp_path, layer)
    layer.adapt(
        [features.excerpt(row, 0.5, SAMPLES)[None] for row in (0, 1, 3)], are_features=True
    )
    edge = layer.window_samples // 2 // layer.hop_samples  # frames whose window is cut off
    for row in (0, 4):
        with open_audio(clips.paths[row], AUDIO) as file:
            whole = file.read()
        place = int(fraction * (len(whole) - SAMPLES + 1))
        start = place // layer.hop_samples * layer.hop_samples
        excerpt = layer(whole[None, start : start + SAMPLES])[0]
        cut = layer.standardise(features.excerpt(row, fraction, SAMPLES)[None])[0]
        assert cut.shape == excerpt.shape == features.excerpt_shape(SAMPLES)
        difference = np.abs(cut - excerpt)
        assert difference[edge:-edge].max() < 0.01  # deviations, because of float16
        # At the start of a clip both see its reflection, elsewhere only the front-end does.
        assert (difference[:edge].max() > 0.1) == (start > 0)
        assert difference[-edge:].max() > 0.1


def test_a_long_clip_is_computed_in_blocks_with_the_same_values(monkeypatch):
    monkeypatch.setattr(module, "_BLOCK_FRAMES", 16)
    layer = frontend(min_frames=9)
    spec = tf.TensorSpec([1, None, 2], tf.float32)
    mel_db = tf.function(layer.mel_db, input_signature=[spec])
    for samples in (layer.min_samples, 16 * 512 - 1, 16 * 512, 3 * RATE + 77):
        waveform = music(samples / RATE, RATE, 2)
        whole = layer.mel_db(waveform[None])[0].numpy()
        blocks = mel_db_of_clip(layer, waveform, mel_db)
        assert blocks.dtype == np.float16
        assert blocks.shape == whole.shape
        np.testing.assert_allclose(blocks, whole, rtol=HALF_FLOAT, atol=1e-4)


def test_batches_have_the_excerpts_and_labels_of_the_same_clips_as_waveforms(clips, tmp_path):
    features = opened(clips, tmp_path)
    layer = frontend()
    options = {
        "excerpt_seconds": SECONDS,
        "batch_size": 2,
        "seed": 3,
        "steps_per_epoch": 2,
        "total_steps": 4,
    }
    waves = training_batches(clips, AUDIO, bad_files=log(), **options)
    cut = training_batches(clips, AUDIO, bad_files=log(), features=features, **options)
    assert cut.element_spec[0].shape.as_list() == [2, *features.excerpt_shape(SAMPLES)]
    resumed = training_batches(
        clips, AUDIO, bad_files=log(), features=features, start_step=2, **options
    )
    batches = list(cut.as_numpy_iterator())
    for (wave, *labels), (features_, *same) in zip(
        waves.as_numpy_iterator(), batches, strict=True
    ):
        for one, other in zip(labels, same, strict=True):
            np.testing.assert_array_equal(one, other)
        # The excerpts start up to one hop earlier, so the clips are alike, not equal.
        mel = layer.mel_db(wave).numpy()
        for row, cut_row in zip(mel, features_, strict=True):
            distances = [np.abs(other - cut_row)[3:-3].mean() for other in mel]
            assert np.argmin(distances) == [np.array_equal(row, other) for other in mel].index(
                True
            )
    for batch, again in zip(batches[2:], resumed.as_numpy_iterator(), strict=True):
        for one, other in zip(batch, again, strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_clip_shorter_than_an_excerpt_is_repeated(clips, tmp_path):
    excerpt = opened(clips, tmp_path).excerpt(2, 0.9, SAMPLES)
    waveform = ClipReader(AUDIO).excerpt(clips.paths[2], 0.9, SAMPLES)
    expected = frontend().mel_db(waveform[None])[0].numpy()
    np.testing.assert_allclose(excerpt, expected, rtol=HALF_FLOAT, atol=1e-4)


def test_unusable_files_are_recorded_by_every_run_and_replaced(clips, tmp_path):
    break_file(clips, 1)
    for _ in range(2):  # computed, then opened
        bad = log(limit=0.1)
        features = opened(clips, tmp_path, bad_files=bad)
        (file,) = bad.files
        assert file.path == str(clips.paths[1])
        batches = training_batches(
            *(clips, AUDIO),
            **{"excerpt_seconds": SECONDS, "batch_size": 5, "seed": 0},
            **{"steps_per_epoch": 1, "total_steps": 1, "bad_files": bad, "features": features},
        )
        (labels,) = (batch[1] for batch in batches.as_numpy_iterator())
        assert sorted(labels.argmax(1)) != sorted(clips.labels.argmax(1))
    with pytest.raises(DatasetError, match="clip1"):
        opened(clips, tmp_path, bad_files=log(limit=0.001))


def test_missing_and_damaged_parts_are_computed_and_others_kept(clips, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_PART_CLIPS", 2)
    whole = opened(clips, tmp_path)
    before = written(tmp_path)
    ((folder, _), *_) = before
    folder = tmp_path / "features" / folder
    assert len(before) == 3
    assert written(tmp_path) == before
    (folder / "part-00001.json").unlink()  # killed before the table was written
    array = folder / "part-00002.npy"
    array.write_bytes(array.read_bytes()[:-100])
    (folder / ".part-00000.npy.1.partial").touch()
    again = opened(clips, tmp_path)
    after = written(tmp_path)
    kept = {name for (_, name), changed in after.items() if changed in before.values()}
    assert kept == {"part-00000.npy"}
    assert not list(folder.glob(".*partial*"))
    for row in range(5):
        one, other = (features.excerpt(row, 0.3, SAMPLES) for features in (whole, again))
        np.testing.assert_array_equal(one, other)


def test_several_processes_compute_a_part_once(clips, tmp_path, monkeypatch):
    calls = []
    write = module._Writer.write

    def spy(self, first):
        calls.append(first)
        return write(self, first)

    monkeypatch.setattr(module._Writer, "write", spy)
    threads = [threading.Thread(target=opened, args=(clips, tmp_path)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls == [0]


def test_other_clips_and_other_front_ends_have_other_files(clips, tmp_path):
    opened(clips, tmp_path)
    opened(clips, tmp_path, frontend(min_frames=5))  # another model, same spectrograms
    assert len(written(tmp_path)) == 1
    opened(clips, tmp_path, frontend(dynamic_range_db=60.0))
    assert len(written(tmp_path)) == 2
    opened(clips, tmp_path, excerpt_seconds=0.6)
    assert len(written(tmp_path)) == 3
    soundfile.write(clips.paths[0], music(1.0, RATE, 1, seed=9), RATE, subtype="FLOAT")
    opened(clips, tmp_path)
    assert len(written(tmp_path)) == 4
    opened(replace(clips, keys=("other", *clips.keys[1:])), tmp_path)
    assert len(written(tmp_path)) == 5


def test_excerpts_too_short_for_the_model_are_rejected(clips, tmp_path):
    with pytest.raises(ConfigError, match=r"at least 51200 samples.*0.5, which is 11025"):
        opened(clips, tmp_path, frontend(min_frames=101))


def test_the_table_says_what_is_in_the_part(clips, tmp_path):
    opened(clips, tmp_path)
    (table,) = (tmp_path / "features").glob("*/*.json")
    content = json.loads(table.read_text())
    assert content == {"samples": [22050, 24255, SAMPLES, 28665, 30870], "bad": {}}
