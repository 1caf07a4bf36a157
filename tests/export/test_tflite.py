"""TFLite files: their content, and agreement with the model."""

import sys
import zipfile

import numpy as np
import pytest

from rfkeras.errors import ConfigError
from rfkeras.export import ExportError, tflite
from rfkeras.export.portable import PortableModel
from rfkeras.export.tflite import TFLiteRunner, halve, read_card
from tests.helpers.small_models import (
    LABELS,
    SMALL,
    VARIANT,
    compare_outputs,
    music,
    noise,
    small,
    trials,
)

BUILTINS = {
    *"ADD AVERAGE_POOL_2D BATCH_MATMUL BROADCAST_TO CONCATENATION CONV_2D DELEGATE".split(),
    *"DEQUANTIZE EXPAND_DIMS FILL FLOOR_DIV FULLY_CONNECTED GATHER LOG LOGISTIC".split(),
    *"MAXIMUM MAX_POOL_2D MEAN MIRROR_PAD MUL PACK PAD QUANTIZE RANGE REDUCE_MAX".split(),
    *"RESHAPE SHAPE SQUARE STRIDED_SLICE SUB SUM TRANSPOSE".split(),
}


@pytest.fixture(scope="module")
def model():
    return small(**VARIANT)


@pytest.fixture(scope="module")
def audio():
    return [music(24000, 2, seed=seed)[None] for seed in range(6)]


@pytest.fixture(scope="module")
def written(model, audio, tmp_path_factory):
    """Return files with all precisions, by precision, from one `PortableModel`."""
    folder = tmp_path_factory.mktemp("tflite")
    portable = PortableModel(model)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules[tflite.__module__], "PortableModel", lambda *_: portable)
        return {
            precision: tflite(
                model, folder / f"{precision}.tflite", precision=precision, calibration=audio
            )
            for precision in ("float32", "float16", "int8")
        }


@pytest.fixture(scope="module")
def expected(model):
    return trials(model)


@pytest.mark.parametrize(
    ("precision", "tolerance"), [("float32", 1e-5), ("float16", 3e-3), ("int8", 0.1)]
)
def test_scores_at_any_length_and_batch_size(written, expected, precision, tolerance):
    exported = written[precision]
    assert exported.agreement.n_batches == 6
    assert exported.agreement.score <= tolerance
    assert exported.size == exported.path.stat().st_size
    run = TFLiteRunner(exported.path.read_bytes())
    compare_outputs(run, expected, precision, tolerance)


def test_only_builtin_operations_are_used(written):
    for exported in written.values():
        assert set(exported.operations) <= BUILTINS
    assert written["float32"].operations["CONV_2D"] == written["int8"].operations["CONV_2D"]


def tensor_types(content):
    """Yield (output name, type) of each convolution, dense layer and matrix product."""
    import tensorflow as tf

    interpreter = tf.lite.Interpreter(
        model_content=content,
        experimental_op_resolver_type=tf.lite.experimental.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    details = {each["index"]: each for each in interpreter.get_tensor_details()}
    for operation in interpreter._get_ops_details():
        if operation["op_name"] in ("CONV_2D", "FULLY_CONNECTED", "BATCH_MATMUL"):
            output = details[operation["outputs"][0]]
            yield output["name"], output["dtype"].__name__


def test_the_network_is_integer_and_the_front_end_is_not(written):
    types = dict(tensor_types(written["int8"].path.read_bytes()))
    network = [kind for name, kind in types.items() if "reader" in name]
    frontend = {kind for name, kind in types.items() if "frontend" in name}
    assert (network[0], set(network[1:]), frontend) == ("float32", {"int8"}, {"float32"})


def test_float16_weights_halve_the_size(tmp_path):
    large = small(**{**SMALL, "width": 16, "frontend": None})
    path = tflite(large, tmp_path / "m.tflite", trial=[noise(1, 40, 32, 1)]).path
    saved = path.stat().st_size - len(halve(path.read_bytes()))
    weights = sum(v.numpy().size for v in large.trainable_variables if len(v.shape) == 4)
    assert saved == pytest.approx(2 * weights, rel=0.1)


def test_the_file_contains_labels_and_sample_rate(model, written):
    for exported in written.values():
        with zipfile.ZipFile(exported.path) as archive:
            assert archive.read("labels.txt").decode().split() == list(LABELS)
        card = read_card(exported.path)
        assert (card["sample_rate_hz"], card["channels"]) == (32000, 2)
        assert card["labels"] == list(LABELS)
        assert card["frame_stride_ms"] == pytest.approx(40)
    (written["float32"].path.parent / "other").write_bytes(b"other")
    with pytest.raises(ExportError, match="contains no model.json"):
        read_card(written["float32"].path.parent / "other")


def test_a_model_without_a_front_end(tmp_path):
    network = small(frontend=None)
    exported = tflite(network, tmp_path / "m.tflite")
    assert exported.agreement.score <= 1e-5
    batch = noise(2, 50, 70, 1)
    outputs = TFLiteRunner(exported.path.read_bytes())(batch)
    np.testing.assert_allclose(outputs["scores"], network.scores(batch), atol=1e-5)


def test_a_wrong_result_is_detected_and_not_written(tmp_path, monkeypatch):
    network = small(frontend=None)
    module = sys.modules[tflite.__module__]
    convert = module._convert

    def broken(*arguments):
        content = convert(*arguments)
        kernel = network.get_layer("classifier_conv").kernel
        kernel.assign(kernel.numpy() * np.linspace(0.9, 1.1, kernel.shape[2])[:, None])
        return content

    monkeypatch.setattr(module, "_convert", broken)
    with pytest.raises(ExportError, match=r"differs from its source by 0\.\d+ in a score"):
        tflite(network, tmp_path / "m.tflite")
    assert list(tmp_path.iterdir()) == []


def test_a_recurrent_network_is_rejected_with_alternatives(tmp_path):
    network = small("crnn", width=2, units=2, frontend=None)
    with pytest.raises(ExportError, match=r"recurrent layers are the usual reason\. ONNX"):
        tflite(network, tmp_path / "m.tflite")
    assert list(tmp_path.iterdir()) == []


def test_wrong_arguments(tmp_path):
    network = small(frontend=None)
    with pytest.raises(ConfigError, match="Unknown precision 'float8'"):
        tflite(network, tmp_path / "m.tflite", precision="float8")
    with pytest.raises(ConfigError, match="needs calibration="):
        tflite(network, tmp_path / "m.tflite", precision="int8")
