"""The score of a clip is the one that `rfkeras tag` gives for the whole file."""

import csv

import keras
import numpy as np
import pytest
import soundfile

from rfkeras.audio.io import AudioFormat, read_audio
from rfkeras.config.resolve import merge_options
from rfkeras.datasets.excerpts import WorkerPart
from rfkeras.datasets.pack import pack
from rfkeras.errors import DatasetError
from rfkeras.inference import StreamTagger
from rfkeras.layers import ClipLogits
from rfkeras.training.clip_scores import ClipScorer
from rfkeras.training.data import open_dataset, open_inputs
from rfkeras.training.scoring import score_clips
from tests.helpers.taggers import RATE_HZ, music, randomized, small_frontend, zoo_tagger

AUDIO = AudioFormat(RATE_HZ)
# A window is 1 s. The last clip is read in several chunks.
SECONDS = (0.3, 0.7, 1.0, 1.0, 1.25, 2.0, 2.9, 3.0, 0.05, 65.0)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Write a table of clips of mixed lengths, all but four in the test split."""
    root = tmp_path_factory.mktemp("mixed")
    with (root / "clips.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "labels", "split"])
        for i, seconds in enumerate((*SECONDS, 1, 1, 1, 1)):
            samples = music(round(seconds * RATE_HZ), seed=i)
            soundfile.write(root / f"{i:02d}.wav", samples, RATE_HZ)
            split = "test" if i < len(SECONDS) else ("train", "validation")[i % 2]
            rows.writerow([f"{i:02d}.wav", "abc"[i % 3], split])
    return root / "clips.csv"


def tagger_of(**options):
    """Return a small tagger whose logits are magnified, so that the scores of clips differ."""
    keras.utils.set_random_seed(0)
    # A model of its own: that of the cache would be magnified once more by each call.
    model = zoo_tagger.__wrapped__("resnet_rf_tiny", rho=1, width=4, **options)
    logits = np.array([model(music(RATE_HZ, seed=i)[None])[0] for i in range(8)])
    # A logit that hardly varies would be magnified 2,757-fold, and its float32 rounding too.
    norm, deviation = model.get_layer("classifier_bn"), np.maximum(logits.std(axis=0), 1e-3)
    norm.beta.assign((norm.beta - logits.mean(axis=0)) / deviation)
    norm.gamma.assign(norm.gamma / deviation)
    return model


def inputs_of(path, dataset="folder", **options):
    flags = {"dataset": dataset, "data_dir": str(path), "window_seconds": 1.0}
    return open_inputs(
        merge_options({**flags, "batch_size": 2, **options}), AUDIO, None, ("test",)
    )


def tagged(model, inputs):
    """Return the scores that `rfkeras tag` gives for the files."""
    tagger = StreamTagger(model)
    return [tagger.run_file(path).scores for path in inputs.dataset.split("test").paths]


POOLINGS = ("average", "max", "log_mean_exp", "attention")


@pytest.mark.parametrize(
    ("pooling", "task", "exact"),
    [(pooling, "multi_label", True) for pooling in POOLINGS]
    + [("average", "single_label", True), ("average", "multi_label", False)],
)
def test_clips_of_all_lengths_have_the_score_of_their_file(table, pooling, task, exact):
    model = tagger_of(head=pooling, task=task, frontend=small_frontend(fixed_floor=exact))
    inputs = inputs_of(table)
    expected = np.array(tagged(model, inputs))
    assert expected.std(axis=0).max() > 0.003, "scores that are all alike show nothing"
    scores, labels, _, keys = score_clips(model, inputs, "test")
    assert len(keys) == len(labels) == len(SECONDS)
    np.testing.assert_allclose(scores, expected, atol=5e-4)
    live = ClipScorer(model, inputs, "test", live=True).scores()[1]
    np.testing.assert_allclose(live, expected, atol=5e-4)


@pytest.mark.parametrize("activation", [None, "sigmoid", "softmax"])
def test_custom_heads(table, activation):
    waveform = keras.Input((None,))
    x = keras.layers.Conv2D(4, 3, padding="same")(small_frontend()(waveform))
    x = keras.layers.GlobalAveragePooling2D()(x)
    outputs = keras.layers.Dense(3, activation=activation)(x)
    model = randomized(keras.Model(waveform, outputs))
    inputs = inputs_of(table)
    values = np.concatenate(
        [
            np.array(model(read_audio(path, AUDIO)[None]))
            for path in inputs.dataset.split("test").paths
        ]
    )
    expected = values if activation else 1 / (1 + np.exp(-values))
    np.testing.assert_allclose(score_clips(model, inputs, "test")[0], expected, atol=5e-4)


def test_a_head_that_returns_frames(table):
    model = tagger_of()
    frames = ClipLogits(frames=True)(model.layers[-1].input)
    inputs = inputs_of(table)
    scores = score_clips(keras.Model(model.inputs, frames), inputs, "test")[0]
    np.testing.assert_allclose(scores, tagged(model, inputs), atol=5e-4)


def test_packed_shards_and_parts_of_the_clips(table, tmp_path):
    model = tagger_of()
    inputs = inputs_of(table)
    expected = np.array(tagged(model, inputs))
    folder = tmp_path / "shards"
    pack(open_dataset(inputs.config), AUDIO, folder, shard_mb=0.03, progress=False)
    packed = inputs_of(folder, "packed")
    assert len(packed.dataset.split("test").shards) > 2
    np.testing.assert_allclose(score_clips(model, packed, "test")[0], expected, atol=5e-4)
    for source in (inputs, packed):
        parts = [
            ClipScorer(model, source, "test", WorkerPart(i, 2), live=True).scores()[1]
            for i in range(2)
        ]
        np.testing.assert_allclose(np.concatenate(parts), expected, atol=5e-4)


def test_only_long_or_only_short_clips_and_the_cache(table):
    model = tagger_of()
    for window in (0.5, 10.0):  # no clip has this length
        # Two clips of 1 s do not fill half of a batch.
        inputs = inputs_of(table, window_seconds=window, cache_gb=0.1, batch_size=8)
        scorer = ClipScorer(model, inputs, "test")
        for _ in range(2):
            rows, scores = scorer.scores()
            np.testing.assert_allclose(scores, tagged(model, inputs), atol=5e-4)
        assert list(rows) == list(range(len(SECONDS)))


def test_the_commonest_length_is_computed_in_batches(table, monkeypatch):
    model = tagger_of()
    inputs = inputs_of(table, window_seconds=0.5, batch_size=4)
    expected = np.array(tagged(model, inputs))
    scorer = ClipScorer(model, inputs, "test")
    single = []
    run = StreamTagger.run
    monkeypatch.setattr(
        StreamTagger, "run", lambda self, blocks: single.append(1) or run(self, blocks)
    )
    np.testing.assert_allclose(scorer.scores()[1], expected, atol=5e-4)
    assert len(single) == len(SECONDS) - 2  # without the clips of 1 s


def test_changed_weights_are_followed_during_training(table):
    model = tagger_of()
    inputs = inputs_of(table)
    scorer = ClipScorer(model, inputs, "test", live=True)
    before = scorer.scores()[1]
    gamma = model.get_layer("classifier_bn").gamma
    kept = gamma.numpy()
    gamma.assign(3 * kept)
    after = scorer.scores()[1]
    expected = tagged(model, inputs)
    gamma.assign(kept)
    np.testing.assert_allclose(after, expected, atol=5e-4)
    assert np.abs(before - after).max() > 0.05


def test_a_model_of_one_length_averages_windows(table):
    waveform = keras.Input((RATE_HZ,))
    x = keras.layers.GlobalAveragePooling2D()(small_frontend()(waveform))
    model = keras.Model(waveform, keras.layers.Dense(3)(x))
    inputs = inputs_of(table)
    scores = score_clips(model, inputs, "test")[0]
    clip = read_audio(inputs.dataset.split("test").paths[5], AUDIO)
    windows = 1 / (1 + np.exp(-np.array(model(clip.reshape(2, RATE_HZ)))))
    np.testing.assert_allclose(scores[5], windows.mean(axis=0), atol=5e-4)


def test_unreadable_clips_are_left_out(table, tmp_path):
    model = tagger_of()
    for path in table.parent.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    inputs = inputs_of(tmp_path / "clips.csv", max_bad_share=0.3)
    scorer = ClipScorer(model, inputs, "test")
    paths = inputs.dataset.split("test").paths
    paths[4].write_bytes(b"")
    rows, scores = scorer.scores()
    assert list(rows) == [0, 1, 2, 3, 5, 6, 7, 8, 9]
    assert [file.path for file in inputs.bad_files.files] == [str(paths[4])]
    assert scores.shape == (9, 3)
    for path in paths[5:8]:
        path.write_bytes(b"")
    with pytest.raises(DatasetError, match="audio files cannot be used"):
        scorer.scores()
