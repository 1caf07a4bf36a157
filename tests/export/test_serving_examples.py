"""The clients of examples/serving against local servers, and the serving page."""

import base64
import json
import re
import sys
import threading
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
import keras
import numpy as np
import pytest
import soundfile
import tensorflow as tf
import yaml
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    predict_pb2,
    prediction_service_pb2_grpc,
)

import zoo
from rfkeras.audio.io import AudioFormat, read_audio
from rfkeras.export import saved_model
from tests.helpers.processes import ROOT

EXAMPLES = ROOT / "examples/serving"
LABELS = ("flute", "voice", "organ")


@pytest.fixture(scope="module", autouse=True)
def clients():
    sys.path.insert(0, str(EXAMPLES))
    yield
    sys.path.remove(str(EXAMPLES))


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """Return (model, folder of its export, the loaded export, an audio file)."""
    keras.utils.set_random_seed(0)
    model = zoo.create_model(
        "resnet_rf_tiny", label_names=LABELS, width=4, rho=1, initialization="he"
    )
    rng = np.random.default_rng(0)
    for _ in range(20):
        model(rng.normal(0, 0.1, (2, 11025)).astype("float32"), training=True)
    root = tmp_path_factory.mktemp("served")
    folder = saved_model(model, root / "1", warmup=False)
    song = root / "song.ogg"
    soundfile.write(song, rng.normal(0, 0.1, (60000, 2)), 44100)
    return model, folder, tf.saved_model.load(str(folder)), song


def printed_scores(text):
    """Return {tag: score} from a client's output."""
    lines = [line.split() for line in text.splitlines()[1:]]
    return {name: float(score) for score, name in lines}


def check_printed_scores(text, model, song):
    scores = np.asarray(model.scores(read_audio(song, AudioFormat(22050))[None]))[0]
    for name, score in zip(LABELS, scores, strict=True):
        assert printed_scores(text)[name] == pytest.approx(score, abs=1e-2)


class Service(prediction_service_pb2_grpc.PredictionServiceServicer):
    """TensorFlow Serving's gRPC interface to one loaded model."""

    def __init__(self, folder, loaded):
        self.loaded = loaded
        proto = saved_model_pb2.SavedModel()
        proto.ParseFromString((folder / "saved_model.pb").read_bytes())
        self.definitions = proto.meta_graphs[0].signature_def

    def Predict(self, request, context):
        serve = self.loaded.signatures[request.model_spec.signature_name]
        inputs = {n: tf.constant(tf.make_ndarray(p)) for n, p in request.inputs.items()}
        declared = serve.structured_input_signature[1]
        assert set(inputs) == set(declared)
        assert all(declared[n].is_compatible_with(value) for n, value in inputs.items())
        try:
            outputs = serve(**inputs)
        except tf.errors.InvalidArgumentError as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        response = predict_pb2.PredictResponse()
        for name, value in outputs.items():
            response.outputs[name].CopyFrom(tf.make_tensor_proto(value))
        return response

    def GetModelMetadata(self, request, context):
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        definitions = get_model_metadata_pb2.SignatureDefMap()
        for name, definition in self.definitions.items():
            definitions.signature_def[name].CopyFrom(definition)
        response.metadata["signature_def"].Pack(definitions)
        return response


@pytest.fixture(scope="module")
def grpc_server(served):
    _, folder, loaded, _ = served
    server = grpc.server(futures.ThreadPoolExecutor(2), options=[("grpc.so_reuseport", 0)])
    service = Service(folder, loaded)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


def rows_of(request, serve):
    """Return the inputs that TensorFlow Serving builds from a JSON body in row format."""
    ((name, spec),) = serve.structured_input_signature[1].items()
    rows = request["instances"]
    if spec.dtype == tf.string:
        assert all(set(row) == {"b64"} for row in rows)
        rows = [base64.b64decode(row["b64"], validate=True) for row in rows]
    return {name: tf.constant(rows, spec.dtype)}, len(rows)


@pytest.fixture(scope="module")
def rest_server(served):
    """Serve TensorFlow Serving's REST interface: metadata, and predict in row format."""
    loaded = served[2]

    class Handler(BaseHTTPRequestHandler):
        def answer(self, status, body):
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def do_GET(self):
            assert self.path == "/v1/models/tagger/metadata"
            names = {name: {} for name in loaded.signatures}
            self.answer(200, {"metadata": {"signature_def": {"signature_def": names}}})

        def do_POST(self):
            assert self.path == "/v1/models/tagger:predict"
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            serve = loaded.signatures[request["signature_name"]]
            inputs, rows = rows_of(request, serve)
            try:
                outputs = serve(**inputs)
            except tf.errors.InvalidArgumentError as error:
                self.answer(400, {"error": str(error)})
                return
            lists = {name: value.numpy().tolist() for name, value in outputs.items()}
            assert all(len(values) == rows for values in lists.values())
            row_wise = [
                next(iter(lists.values()))[i]
                if len(lists) == 1
                else {name: values[i] for name, values in lists.items()}
                for i in range(rows)
            ]
            self.answer(200, {"predictions": row_wise})

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("signature", [None, "serving_default"])
def test_the_grpc_client_prints_the_models_scores(served, grpc_server, signature, capsys):
    import grpc_client

    model, folder, _, song = served
    extra = ["--signature", signature] if signature else []
    assets = str(folder / "assets")
    grpc_client.main([str(song), "--server", grpc_server, "--assets", assets, *extra])
    check_printed_scores(capsys.readouterr().out, model, song)


@pytest.mark.parametrize("signature", [None, "serving_default"])
def test_the_rest_client_prints_the_models_scores(served, rest_server, signature, capsys):
    import rest_client

    model, folder, _, song = served
    extra = ["--signature", signature] if signature else []
    assets = str(folder / "assets")
    rest_client.main([str(song), "--server", rest_server, "--assets", assets, *extra])
    check_printed_scores(capsys.readouterr().out, model, song)


def test_several_outputs_pass_in_row_format(served, rest_server):
    import rest_client

    url = f"{rest_server}/v1/models/tagger:predict"
    rows = np.random.default_rng(0).normal(0, 0.1, (3, 30000)).tolist()
    body = {"signature_name": "frames", "instances": rows}
    answer = rest_client.call(url, body, 60)["predictions"]
    assert [set(row) for row in answer] == [{"frame_scores", "frame_times_s"}] * 3
    assert all(len(row["frame_scores"]) == len(row["frame_times_s"]) for row in answer)


def test_both_clients_show_the_servers_error(served, rest_server, grpc_server, monkeypatch):
    import clips
    import grpc_client
    import rest_client

    monkeypatch.setattr(clips, "as_wav", lambda path: b"no sound")
    song = str(served[3])
    with pytest.raises(clips.ClientError, match="answered 400: .*not a 16-bit PCM WAV file"):
        rest_client.main([song, "--server", rest_server])
    with pytest.raises(
        clips.ClientError, match="INVALID_ARGUMENT: (?s:.*)not a 16-bit PCM WAV"
    ):
        grpc_client.main([song, "--server", grpc_server])


def test_clients_explain_what_is_missing(served, rest_server, tmp_path):
    import clips
    import rest_client

    _, folder, _, song = served
    (tmp_path / "a.wav").write_bytes(b"no sound")
    with pytest.raises(clips.ClientError, match="cannot be read"):
        rest_client.main([str(tmp_path / "a.wav"), "--server", rest_server])
    with pytest.raises(clips.ClientError, match="--assets"):
        rest_client.main([str(song), "--server", rest_server, "--signature", "serving_default"])
    with pytest.raises(clips.ClientError, match="cannot be reached"):
        rest_client.main([str(song), "--server", "http://127.0.0.1:9"])
    with pytest.raises(clips.ClientError, match="It has: serving_default"):
        clips.choose_signature("audio_bytes", {"serving_default"})
    card = json.loads((folder / "assets/model.json").read_text())
    expected = read_audio(song, AudioFormat(22050))[None]
    np.testing.assert_allclose(clips.as_waveform(song, card), expected, atol=1e-5)


def test_compose_and_batching_files_are_consistent():
    compose = yaml.safe_load((EXAMPLES / "docker-compose.yml").read_text())
    service = compose["services"]["tagger"]
    assert service["environment"]["MODEL_NAME"] == "tagger"
    mounts = [volume.rsplit(":", 2)[-2:] for volume in service["volumes"]]
    assert ["/models/tagger", "ro"] in mounts
    (config,) = (c for c in service["command"] if c.startswith("--batching_parameters_file="))
    assert [config.partition("=")[2], "ro"] in mounts
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert "AVAILABLE" in service["healthcheck"]["test"][-1]
    settings = (EXAMPLES / "batching.config").read_text()
    lines = [line for line in settings.splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z_]+ \{ value: \d+ \}", line) for line in lines)
    assert not any("pad_variable" in line for line in lines)


def test_the_serving_page_examples_print_the_stated_output(tmp_path, monkeypatch, capsys):
    text = (ROOT / "docs/serving.md").read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"```python\n(.*?)```", text, flags=re.S))
    monkeypatch.chdir(tmp_path)

    exec(compile(code, "docs/serving.md", "exec"), {})
    printed = capsys.readouterr().out.splitlines()
    stated = re.findall(r"^print\(.*\)  # (.+)$", code, flags=re.M)
    assert stated
    assert printed == stated
