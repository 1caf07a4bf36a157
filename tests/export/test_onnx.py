"""ONNX files: their content, and agreement with the model."""

import json
import sys

import numpy as np
import pytest

from rfkeras.errors import ConfigError
from rfkeras.export import ExportError, onnx
from rfkeras.export.onnx import OnnxRunner
from rfkeras.export.portable import PortableModel
from tests.helpers.small_models import (
    LABELS,
    VARIANT,
    compare_outputs,
    music,
    noise,
    small,
    trials,
)


@pytest.fixture(scope="module")
def model():
    return small(**VARIANT)


@pytest.fixture(scope="module")
def written(model, tmp_path_factory):
    """Return files with all precisions, by precision, from one conversion."""
    import onnx as onnx_package

    folder = tmp_path_factory.mktemp("onnx")
    audio = [music(24000, 2, seed=seed)[None] for seed in range(6)]
    module = sys.modules[onnx.__module__]
    portable = PortableModel(model)
    content = module.convert(portable.serve, portable.card["name"]).SerializeToString()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "PortableModel", lambda *_: portable)
        patch.setattr(module, "convert", lambda *_: onnx_package.ModelProto.FromString(content))
        return {
            precision: onnx(
                model, folder / f"{precision}.onnx", precision=precision, calibration=audio
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
    assert exported.agreement.score <= tolerance
    run = OnnxRunner(exported.path.read_bytes())
    compare_outputs(run, expected, precision, tolerance)


def test_only_standard_operators_are_used(written):
    import onnx as onnx_package

    for exported in written.values():
        proto = onnx_package.load(exported.path)
        onnx_package.checker.check_model(proto, full_check=True)
        assert {node.domain for node in proto.graph.node} <= {"", "ai.onnx"}
        assert [each.version for each in proto.opset_import if each.domain == ""] == [17]
    assert "BatchNormalization" not in written["float32"].operations  # folded
    assert written["int8"].operations["QuantizeLinear"] > 5


def test_the_file_contains_metadata(written):
    import onnx as onnx_package

    for exported in written.values():
        props = onnx_package.load(exported.path).metadata_props
        card = {each.key: json.loads(each.value) for each in props}
        assert card["labels"] == list(LABELS)
        assert (card["sample_rate_hz"], card["channels"]) == (32000, 2)
        assert card["thresholds"] == [0.5] * 4


def test_a_recurrent_network_converts(tmp_path):
    network = small("crnn", width=2, units=2, frontend=None)
    exported = onnx(network, tmp_path / "m.onnx")
    assert exported.agreement.score <= 1e-5
    batch = noise(2, 90, 50, 1)
    outputs = OnnxRunner(exported.path.read_bytes())(batch)
    np.testing.assert_allclose(outputs["scores"], network.scores(batch), atol=1e-5)


def test_a_wrong_result_is_detected_and_not_written(tmp_path, monkeypatch):
    network = small(frontend=None)
    module = sys.modules[onnx.__module__]
    convert = module.convert

    def broken(function, name):
        proto = convert(function, name)
        beta = network.get_layer("classifier_bn").beta
        beta.assign(beta.numpy() + 0.1)
        return proto

    monkeypatch.setattr(module, "convert", broken)
    with pytest.raises(ExportError, match=r"differs from its source by 0\.\d+ in a score"):
        onnx(network, tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def test_the_error_for_a_missing_package_names_its_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    with pytest.raises(ConfigError, match=r"package tf2onnx.*'rfkeras\[onnx\]'"):
        onnx(small(frontend=None), tmp_path / "m.onnx")
