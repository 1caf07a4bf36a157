"""StreamTagger: blocks, files, memory, and clear errors."""

import resource
import tracemalloc
from pathlib import Path

import keras
import numpy as np
import pytest
import soundfile
from keras import layers

import zoo
from rfkeras.audio.io import AudioFormat, read_audio
from rfkeras.errors import AudioError, ConfigError
from rfkeras.inference import StreamTagger
from rfkeras.inference.stream import RunningMean, RunningPool
from rfkeras.layers import ClipLogits
from rfkeras.layers.head import POOLINGS, pool
from tests.helpers.taggers import (
    CLASSES,
    RATE_HZ,
    custom_tagger,
    music,
    small_frontend,
    split_randomly,
    zoo_tagger,
)


def light(x):
    return layers.Conv2D(2, (9, 3), strides=(16, 2), activation="relu")(x)


@pytest.fixture(scope="module")
def tagger():
    return StreamTagger(custom_tagger(light), 2.0)


@pytest.fixture(scope="module")
def waveform():
    return music(21 * RATE_HZ + 17)


def equal(one, other):
    for name, value in vars(one).items():
        np.testing.assert_array_equal(value, getattr(other, name), err_msg=name)


def test_block_sizes_do_not_matter(tagger, waveform):
    whole = tagger.run([waveform], frames=True, embeddings=True)
    assert len(whole.frame_scores) == len(whole.frame_embeddings) > 50
    for pieces in (2, 7, 300):
        blocks = split_randomly(waveform, pieces, seed=pieces)
        equal(tagger.run(iter(blocks), frames=True, embeddings=True), whole)
    equal(tagger.run([waveform.astype(np.float64)], frames=True, embeddings=True), whole)
    plain = tagger.run([waveform])
    assert plain.frame_scores is None
    assert plain.frame_embeddings is None
    np.testing.assert_array_equal(plain.logits, whole.logits)
    assert tagger.chunk_seconds == 2.0
    assert tagger._read.experimental_get_tracing_count() == 1


def test_frames_arrive_as_soon_as_their_audio(tagger, waveform):
    fed = 0

    def blocks():
        nonlocal fed
        for block in np.array_split(waveform, 200):
            fed += len(block)
            yield block

    lag = tagger.plan.reserve_samples + len(waveform) // 200 + 1
    for piece in tagger.stream(blocks()):
        assert fed - piece.seconds * RATE_HZ <= lag
    assert piece.seconds == len(waveform) / RATE_HZ


def test_progress_reaches_the_end(tagger, waveform):
    seconds = []
    tagger.run(split_randomly(waveform, 9), on_progress=seconds.append)
    assert seconds == sorted(seconds)
    assert len(seconds) > 8
    assert seconds[-1] == len(waveform) / RATE_HZ


def test_an_hour_needs_no_more_memory_than_two_minutes(tagger):
    tagger = StreamTagger(tagger.model, 30.0)
    block = music(10 * RATE_HZ)

    def peak(blocks):
        tracemalloc.start()
        resident = _resident_bytes()
        result = tagger.run(block for _ in range(blocks))
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert result.seconds == 10 * blocks
        return most, _resident_bytes() - resident

    two_minutes, _ = peak(12)
    hour, grown = peak(360)
    # TensorFlow itself keeps a few hundred bytes per call.
    assert hour < two_minutes + 500_000
    assert grown < 20_000_000  # the hour itself is 58 MB


def _resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def test_files(tagger, tmp_path):
    path = tmp_path / "a.flac"
    # 44.1 kHz stereo; the model takes 4 kHz mono.
    stereo = music(44100 * 23, channels=2)
    soundfile.write(path, stereo, 44100)
    mono = read_audio(path, AudioFormat(RATE_HZ))
    whole = tagger.run([mono], frames=True)
    by_path = tagger.run_file(path, frames=True)
    # Blocks of a resampled file are within 1e-6 of the whole, and the floor is far lower.
    np.testing.assert_allclose(by_path.frame_scores, whole.frame_scores, atol=1e-3)
    assert by_path.seconds == whole.seconds == 23.0
    equal(tagger.run_file(path.read_bytes(), frames=True), by_path)

    same_rate = tmp_path / "b.wav"
    soundfile.write(same_rate, mono, RATE_HZ, subtype="FLOAT")
    equal(tagger.run_file(same_rate, frames=True), whole)
    data = path.read_bytes()
    half = tagger.run_file(data[: len(data) // 2])  # what is left of it
    assert 5.0 < half.seconds < 20.0
    (tmp_path / "empty.wav").touch()
    with pytest.raises(AudioError, match="empty"):
        tagger.run_file(tmp_path / "empty.wav")
    mono[70000] = np.nan
    soundfile.write(same_rate, mono, RATE_HZ, subtype="FLOAT")
    with pytest.raises(AudioError, match="NaN"):
        tagger.run_file(same_rate)


def test_the_floor_of_each_clip(waveform):
    tagger = StreamTagger(custom_tagger(light, small_frontend(fixed_floor=False)), 2.0)
    assert not tagger.exact
    assert "fixed_floor=True" in tagger.reason_not_exact
    result = tagger.run([waveform], frames=True)
    assert len(result.frame_scores) == len(scores_of_frames(tagger.model, waveform[None]))
    short = waveform[: tagger.plan.reserve_samples]
    np.testing.assert_allclose(
        tagger.run([short]).logits, tagger.model(short[None])[0], rtol=1e-5, atol=1e-5
    )


def squeezed(x):
    return layers.Multiply()([light(x), layers.GlobalAveragePooling2D(keepdims=True)(x)])


@pytest.mark.parametrize("name", ["crnn", "squeeze"])
def test_models_with_unlimited_field_get_separate_chunks(name, waveform):
    if name == "crnn":
        model = zoo_tagger("crnn_tiny", width=4, units=8)
    else:
        model = custom_tagger(squeezed)
    tagger = StreamTagger(model, 3.0)
    assert not tagger.exact
    assert "depends on the whole input" in tagger.reason_not_exact
    result = tagger.run(split_randomly(waveform, 4), frames=True)
    n_frames = len(result.frame_scores)
    plan = tagger.plan
    whole = scores_of_frames(model, waveform[None])
    assert n_frames == len(whole)
    # The frames of the first and the last chunk depend only on the audio of that chunk.
    first = scores_of_frames(model, waveform[None, : plan.samples])
    np.testing.assert_allclose(result.frame_scores[: plan.stop], first[: plan.stop], atol=1e-5)
    chunks = 1 + (len(waveform) - plan.reserve_samples - 1) // plan.step_samples + 1
    rest = scores_of_frames(model, waveform[None, (chunks - 1) * plan.step_samples :])
    np.testing.assert_allclose(result.frame_scores[(chunks - 1) * plan.stop :], rest, atol=1e-5)
    assert plan.samples / RATE_HZ == pytest.approx(3.0, abs=0.4)


def scores_of_frames(model, waveform):
    """Return the frame scores of a whole waveform, (frames, classes)."""
    from zoo.tagger import Reader

    reader = Reader(model)
    return reader.head.scores(reader(waveform).frame_logits)[0].numpy()


def test_length_dependent_padding_is_reported(waveform):
    strided = custom_tagger(lambda x: layers.Conv2D(2, 5, strides=2, padding="same")(x))
    tagger = StreamTagger(strided, 2.0)
    assert not tagger.exact
    assert "ZeroPadding2D" in tagger.reason_not_exact
    n_frames = len(tagger.run([waveform], frames=True).frame_scores)
    assert n_frames == len(scores_of_frames(strided, waveform[None]))


def test_frames_finer_than_the_spectrogram_are_reported(waveform):
    finer = custom_tagger(lambda x: layers.UpSampling2D((2, 1), interpolation="bilinear")(x))
    tagger = StreamTagger(finer, 2.0)
    assert not tagger.exact
    assert "frames have windows of different sizes" in tagger.reason_not_exact
    n_frames = len(tagger.run([waveform], frames=True).frame_scores)
    assert n_frames == len(scores_of_frames(finer, waveform[None]))


def test_labels_and_thresholds():
    head = {"label_names": ("a", "b", "c")}
    model = zoo.create_model("resnet_rf_tiny", width=4, frontend=small_frontend(), **head)
    model.head.thresholds = (0.1, 0.2, 0.3)
    tagger = StreamTagger(model)
    assert tagger.label_names == ("a", "b", "c")
    np.testing.assert_array_equal(tagger.thresholds, [0.1, 0.2, 0.3])
    assert tagger.audio_format == AudioFormat(RATE_HZ, 1)
    assert (tagger.sample_rate_hz, tagger.channels) == (RATE_HZ, 1)
    assert tagger.plan.step_samples / RATE_HZ == pytest.approx(30.0, abs=0.2)


def test_errors_for_unsupported_models_and_audio(tagger):
    no_audio = zoo.create_model("resnet_rf_tiny", num_classes=2, width=4, frontend=None)
    with pytest.raises(ConfigError, match="takes spectrograms, not audio"):
        StreamTagger(no_audio)
    with pytest.raises(ConfigError, match="chunk_seconds must be a positive"):
        StreamTagger(tagger.model, 0)
    fixed = keras.Input((RATE_HZ,))
    logits = ClipLogits()(layers.Conv2D(CLASSES, 3)(small_frontend()(fixed)))
    with pytest.raises(ConfigError, match="4000 samples only"):
        StreamTagger(keras.Model(fixed, logits))
    samples = np.zeros(9000, np.float32)
    for blocks, words in (
        ([], "has no samples"),
        ([samples[:0]], "has no samples"),
        (samples, r"shape \(\), float32. Pass a whole waveform as one block: \[waveform\]"),
        ([samples, samples[:, None]], r"\(samples,\).*Received: ndarray of shape \(9000, 1\)"),
        ([samples.astype(np.int16)], "int16"),
        ([samples, np.where(np.arange(9000) == 3000, np.inf, samples)], "first at 3.000 s"),
        ([0.5], "no array"),
    ):
        with pytest.raises(ConfigError, match=words):
            tagger.run(blocks)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("scale", [1.0, 300.0])  # exp(300) overflows
def test_running_pools(pooling, scale):
    rng = np.random.default_rng(0)
    logits = rng.normal(0, scale, (500, 4)).astype(np.float32)
    weights = None
    if pooling == "attention":
        # Weights that grow and shrink a lot from one part to the next.
        drift = np.linspace(-scale, scale, 500)[:, None] * [1, -1, 0, 1]
        weights = (rng.normal(0, scale, (500, 4)) + drift).astype(np.float32)
    running = RunningPool(pooling)
    for part in np.split(np.arange(500), [1, 2, 90, 91, 300]):
        running.add(logits[part], None if weights is None else weights[part])
    whole = pool(logits[None], pooling, (1,), None if weights is None else weights[None])[0]
    np.testing.assert_allclose(running.result(), whole, rtol=1e-5, atol=1e-5 * scale)


def test_a_long_mean_does_not_drift():
    mean = RunningMean()
    for _ in range(1000):
        mean.add(np.full((1000, 1), 0.1, np.float32))
    assert mean.result() == pytest.approx(np.float32(0.1), rel=1e-12)
