"""All signatures of a SavedModel: values, rejected inputs, and files next to the graph."""

import io
import json

import keras
import numpy as np
import pytest
import soundfile
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

import zoo
from rfkeras.audio.io import AudioFormat, read_audio, to_channels
from rfkeras.export import saved_model
from rfkeras.export.audio_graph import convert_channels
from rfkeras.export.saved_model import MAX_REQUESTS, WARMUP_FILE
from rfkeras.inference import frame_times
from tests.helpers.processes import ROOT, run
from tests.helpers.small_models import noise, small
from tests.helpers.taggers import custom_tagger
from tests.robustness.odd_files.corpus import contents
from tests.robustness.odd_files.mutations import mutated
from tests.robustness.odd_files.sounds import sound


def wav(samples, rate_hz=22050, **format):
    buffer = io.BytesIO()
    soundfile.write(
        buffer, samples, rate_hz, **{"format": "WAV", "subtype": "PCM_16", **format}
    )
    return buffer.getvalue()


@pytest.fixture(scope="module")
def model():
    return small()


@pytest.fixture(scope="module")
def path(model, tmp_path_factory):
    return saved_model(model, tmp_path_factory.mktemp("export") / "1", card="# A card")


@pytest.fixture(scope="module")
def loaded(path):
    return tf.saved_model.load(str(path))


@pytest.fixture(scope="module")
def stereo(tmp_path_factory):
    model = small(input_channels=2, head="frames")
    folder = saved_model(model, tmp_path_factory.mktemp("stereo") / "1")
    return model, tf.saved_model.load(str(folder))


def test_frames_and_their_times_match_the_model(model, loaded):
    batch = noise(2, 50000)
    out = loaded.signatures["frames"](waveform=tf.constant(batch))
    expected = model.scores(batch, per="frame").numpy()
    assert 0.1 < expected.mean() < 0.9
    np.testing.assert_allclose(out["frame_scores"], expected, atol=1e-5)
    times_s = frame_times(model).centres_ms(expected.shape[1]) / 1000
    np.testing.assert_allclose(out["frame_times_s"], np.tile(times_s, (2, 1)), rtol=1e-6)


def test_embeddings_match_the_model(model, loaded):
    batch = noise(2, 50000)
    out = loaded.signatures["embed"](waveform=tf.constant(batch))
    for name, per in (("embedding", "clip"), ("frame_embeddings", "frame")):
        expected = model.embed(batch, per=per).numpy()
        np.testing.assert_allclose(out[name], expected, rtol=1e-4, atol=1e-4)


def test_files_of_any_rate_and_length_are_scored_separately(model, loaded):
    files = [
        wav(noise(30000)),
        wav(noise(60000, 2), 44100),
        wav(noise(9000, 5), 8000),
        wav(noise(70001, 2), 96000),
        wav(noise(20), 44056),
    ]
    serve = loaded.signatures["audio_bytes"]
    together = serve(audio=tf.constant(files))["scores"].numpy()
    for file, scores in zip(files, together, strict=True):
        np.testing.assert_array_equal(serve(audio=tf.constant([file]))["scores"][0], scores)
        read = read_audio(file, AudioFormat(22050))
        expected = model.scores(read[None]).numpy()[0]
        np.testing.assert_allclose(scores, expected, atol=1e-2)  # soxr has another roll-off
    at_its_rate = model.scores(read_audio(files[0], AudioFormat(22050))[None])[0]
    np.testing.assert_allclose(together[0], at_its_rate, atol=1e-5)


def test_a_stereo_model_uses_both_channels_and_pools_frames(stereo):
    model, loaded = stereo
    file = wav(noise(40000, 2))
    scores = loaded.signatures["audio_bytes"](audio=tf.constant([file]))["scores"]
    decoded = read_audio(file, AudioFormat(22050, 2))[None]
    assert decoded.shape == (1, 40000, 2)
    np.testing.assert_allclose(scores, model.scores(decoded), atol=1e-5)
    out = loaded.signatures["serving_default"](waveform=tf.constant(decoded))["scores"]
    np.testing.assert_allclose(out, model.scores(decoded, per="frame"), atol=1e-5)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("in_file", [1, 2, 3, 6])
def test_channels_are_mixed_like_the_file_reader(channels, in_file):
    samples = noise(50, in_file)
    expected = to_channels(samples, channels).reshape(50, channels)
    np.testing.assert_allclose(
        convert_channels(tf.constant(samples), channels), expected, atol=1e-7
    )


BROKEN = {
    "nothing": b"",
    "text": b"this is no sound file, and longer than a header of 44 bytes",
    "cut": wav(noise(1000))[:1500],
    "header only": wav(noise(1000))[:44],
    "24 bit": wav(noise(1000), subtype="PCM_24"),
    "float": wav(noise(1000), subtype="FLOAT"),
    "extensible": wav(noise(1000), format="WAVEX"),
    "flac": wav(noise(1000), format="FLAC"),
    "slow": wav(noise(1000), 4000),
    "fast": wav(noise(1000), 384000),
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_other_files_are_rejected_with_their_row_and_the_accepted_format(loaded, content):
    with pytest.raises(
        tf.errors.InvalidArgumentError,
        match=r"audio\[1\] is not a 16-bit PCM WAV.*8000 to 192000",
    ):
        loaded.signatures["audio_bytes"](audio=tf.constant([wav(noise(9000)), content]))


def test_damaged_files_are_rejected_or_give_finite_scores(loaded):
    nasty = [data for data, _ in contents().values()]
    whole = [sound("pcm16.wav"), wav(noise(3000)), sound("adpcm.wav")]
    serve, rejected = loaded.signatures["audio_bytes"], 0
    for content in [*nasty, *(mutated(whole, number)[2] for number in range(200))]:
        try:
            scores = serve(audio=tf.constant([content]))["scores"].numpy()
        except tf.errors.InvalidArgumentError:
            rejected += 1
        else:
            assert np.isfinite(scores).all()
    assert 100 < rejected < 200 + len(nasty) - 20


def test_a_file_without_samples_is_rejected(loaded):
    with pytest.raises(tf.errors.InvalidArgumentError, match="contains no samples"):
        loaded.signatures["audio_bytes"](audio=tf.constant([wav(np.zeros(0))]))


@pytest.mark.parametrize("name", ["serving_default", "frames", "embed", "audio_bytes"])
def test_an_empty_batch_is_rejected_and_short_audio_is_not(loaded, name):
    serve = loaded.signatures[name]
    if name == "audio_bytes":
        empty, short = {"audio": tf.constant([], tf.string)}, {"audio": [wav(noise(3))]}
    else:
        empty, short = {"waveform": tf.zeros((0, 9000))}, {"waveform": noise(1, 3)}
    with pytest.raises(tf.errors.InvalidArgumentError, match="Empty batch"):
        serve(**empty)
    for value in serve(**{key: tf.constant(value) for key, value in short.items()}).values():
        assert np.isfinite(value).all()


def test_the_card_describes_the_signatures(model, loaded, path):
    card = json.loads((path / "assets/model.json").read_text())
    for name, serve in loaded.signatures.items():
        described = card["signatures"].pop(name)
        specs = serve.structured_input_signature[1]
        assert described["inputs"] == {
            key: {"dtype": spec.dtype.name, "shape": spec.shape.as_list()}
            for key, spec in specs.items()
        }
        assert set(described["outputs"]) == set(serve.structured_outputs)
    assert card["signatures"] == card["signatures_missing"] == {}
    assert card["embedding_size"] == model.embed(noise(1, 9000)).shape[-1]
    times = frame_times(model)
    assert (card["frame_stride_ms"], card["receptive_field_ms"]) == (
        times.stride_ms,
        times.window_ms,
    )
    assert (path / "assets/model_card.md").read_text() == "# A card\n"


def test_all_operations_belong_to_tensorflow(path):
    proto = saved_model_pb2.SavedModel()
    proto.ParseFromString((path / "saved_model.pb").read_bytes())
    (graph,) = proto.meta_graphs
    nodes = list(graph.graph_def.node)
    for function in graph.graph_def.library.function:
        nodes += function.node_def
    functions = {f.signature.name for f in graph.graph_def.library.function}
    names = {node.op for node in nodes} - functions
    # The registry may contain operations of other loaded libraries, so check the names first.
    assert not [name for name in names if ">" in name or "PyFunc" in name]
    for name in names:
        assert hasattr(tf.raw_ops, name), name
    assert {"DecodeWav", "Conv2D"} <= names


def test_warm_up_requests_run(path, loaded):
    prediction_log_pb2 = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2")

    records = list(tf.data.TFRecordDataset(str(path / WARMUP_FILE)).as_numpy_iterator())
    assert len(records) <= MAX_REQUESTS
    seen = set()
    for record in records:
        request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
        inputs = {name: tf.make_ndarray(proto) for name, proto in request.inputs.items()}
        name = request.model_spec.signature_name
        loaded.signatures[name](**{key: tf.constant(v) for key, v in inputs.items()})
        seen.add((name, *(value.shape for value in inputs.values())))
    assert {name for name, _ in seen} == set(loaded.signatures)
    assert ("serving_default", (1, 220500)) in seen
    assert sum(len(record) for record in records) < 200_000


def test_no_warm_up_without_the_serving_package(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tensorflow_serving.apis", None)
    folder = saved_model(custom_tagger(lambda spectrogram: spectrogram), tmp_path / "1")
    assert not (folder / WARMUP_FILE).exists()
    assert (folder / "saved_model.pb").is_file()


def test_spectrogram_models_have_frames_without_seconds(tmp_path):
    model = small_spectrogram()
    folder = saved_model(model, tmp_path / "1")
    loaded = tf.saved_model.load(str(folder))
    assert set(loaded.signatures) == {"serving_default", "frames", "embed"}
    batch = noise(2, 70, 64, 1)
    out = loaded.signatures["frames"](spectrogram=tf.constant(batch))
    assert set(out) == {"frame_scores"}
    expected = model.scores(batch, per="frame")
    np.testing.assert_allclose(out["frame_scores"], expected, atol=1e-5)
    card = json.loads((folder / "assets/model.json").read_text())
    assert "waveform" in card["signatures_missing"]["audio_bytes"]
    assert not (folder / WARMUP_FILE).exists()


def small_spectrogram():
    return zoo.create_model("resnet_rf_tiny", 3, width=4, rho=1, frontend=None)


def test_a_model_without_a_head_has_one_signature_and_a_reason(tmp_path):
    inputs = keras.Input((3,), name="spectrogram")
    network = keras.Model(inputs, keras.layers.Activation("linear")(inputs))
    folder = saved_model(network, tmp_path / "1")
    assert set(tf.saved_model.load(str(folder)).signatures) == {"serving_default"}
    card = json.loads((folder / "assets/model.json").read_text())
    assert "ClipLogits" in card["signatures_missing"]["frames"]


@pytest.mark.slow
def test_the_tensorflow_command_shows_and_runs_it(path, tmp_path):
    audio = tmp_path / "audio.npy"
    np.save(audio, np.zeros((1, 30000), "float32"))
    code = f"""
import sys
from tensorflow.python.tools import saved_model_cli

def call(*arguments):
    sys.argv = ["saved_model_cli", *arguments]
    try:
        saved_model_cli.main()  # exits
    except SystemExit as end:
        assert not end.code, end

call("show", "--dir", {str(path)!r}, "--all")
call("run", "--dir", {str(path)!r}, "--tag_set", "serve", "--signature_def", "frames",
     "--inputs", "waveform={audio}", "--outdir", {str(tmp_path)!r})
"""
    status, out, err = run("-c", code, cwd=ROOT)
    assert status == 0, err
    for name in ("serving_default", "frames", "embed", "audio_bytes"):
        assert f"signature_def['{name}']" in out
    assert np.load(tmp_path / "frame_scores.npy").shape[2] == 4
