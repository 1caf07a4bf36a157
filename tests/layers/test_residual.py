"""The residual block."""

import keras
import numpy as np
import pytest

from rfkeras.errors import ConfigError
from rfkeras.layers import ClipLogits, ResidualBlock, find_head
from tests.layers.written_out import bn, conv


def test_block_starts_as_its_shortcut():
    x = np.random.default_rng(0).normal(size=(2, 8, 6, 4)).astype("float32")
    np.testing.assert_allclose(ResidualBlock(4)(x), np.maximum(x, 0), atol=1e-6)


def test_block_computes_conv_bn_relu_conv_bn_add_relu():
    keras.utils.set_random_seed(0)
    block = ResidualBlock(5, kernel_size=((3, 1), (1, 3)))
    x = np.random.default_rng(0).normal(size=(2, 8, 6, 4)).astype("float32")
    block.build(x.shape)
    for weight in block.weights:
        shape = weight.shape
        weight.assign(np.random.default_rng(len(shape)).uniform(0.2, 1.0, shape))

    (branch,) = block.residuals
    inner = np.maximum(bn(conv(x, branch.conv1), branch.bn1), 0)
    inner = bn(conv(inner, branch.conv2), branch.bn2)
    shortcut = bn(conv(x, block.shortcut_conv), block.shortcut_bn)
    np.testing.assert_allclose(block(x), np.maximum(inner + shortcut, 0), rtol=1e-4, atol=1e-4)


def test_published_initialisation():
    keras.utils.set_random_seed(0)
    block = ResidualBlock(256, kernel_size=((3, 3), (3, 3)), depth=12)
    block.build((None, 8, 8, 128))
    expected = 12**-0.5 * np.sqrt(2 / (3 * 3 * 256))
    assert np.std(block.residuals[0].conv1.kernel.numpy()) == pytest.approx(expected, rel=0.01)
    assert not block.residuals[0].conv2.kernel.numpy().any()
    assert np.std(block.shortcut_conv.kernel.numpy()) == pytest.approx(
        np.sqrt(2 / 256), rel=0.02
    )


def test_map_keeps_its_size_and_unknown_sizes_work():
    block = ResidualBlock(6, kernel_size=((5, 3), (1, 1)))
    assert block.compute_output_shape((None, None, 7, 4)) == (None, None, 7, 6)
    assert block(np.zeros((1, 1, 7, 4), "float32")).shape == (1, 1, 7, 6)


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_config_and_file_round_trip(tmp_path, policy):
    inputs = keras.Input((None, 6, 3))
    block = ResidualBlock(4, ((3, 3), (1, 3)), depth=3, dtype=policy)
    model = keras.Model(inputs, block(inputs))
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(rng.uniform(0.1, 1.0, weight.shape))
    model.save(tmp_path / "block.keras")
    loaded = keras.models.load_model(tmp_path / "block.keras")
    x = rng.normal(size=(2, 5, 6, 3)).astype("float32")
    assert loaded.layers[1].get_config() == block.get_config()
    np.testing.assert_allclose(
        np.asarray(loaded(x), "float32"), np.asarray(model(x), "float32"), atol=1e-6
    )


@pytest.mark.parametrize(
    "kernel", [((3, 3),), ((2, 3), (1, 1)), ((3,), (1,)), ((0, 1), (1, 1))]
)
def test_wrong_kernels(kernel):
    with pytest.raises(ConfigError, match="odd"):
        ResidualBlock(4, kernel_size=kernel)


def test_wrong_filters():
    with pytest.raises(ConfigError, match="at least 1"):
        ResidualBlock(0)


def test_clip_logits_average_time_and_frequency_in_float32():
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype("float16")
    out = ClipLogits(dtype="float32")(x)
    assert out.dtype == "float32"
    np.testing.assert_allclose(out, x.astype("float32").mean((1, 2)), atol=1e-3)


def test_clip_logits_keep_label_names():
    layer = ClipLogits(label_names=["a", "b"])
    assert ClipLogits.from_config(layer.get_config()).label_names == ("a", "b")
    with pytest.raises(ConfigError, match="3 classes but 2 label names"):
        layer.build((None, 1, 1, 3))


def test_head_is_found_inside_of_a_model_too():
    inputs = keras.Input((4, 4, 3))
    inner = keras.Model(inputs, ClipLogits(task="single_label", name="logits")(inputs))
    outer = keras.Model(inputs, inner(keras.layers.ReLU()(inputs)))
    assert find_head(outer) is find_head(inner) is inner.get_layer("logits")
    assert find_head(keras.Model(inputs, keras.layers.ReLU()(inputs))) is None


def test_scores_of_either_task():
    logits = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    tags = ClipLogits().scores(logits)
    np.testing.assert_allclose(tags, 1 / (1 + np.exp(-logits)), atol=1e-6)
    classes = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(
        ClipLogits(task="single_label").scores(logits), classes, atol=1e-6
    )
    with pytest.raises(ConfigError, match="Did you mean 'multi_label'"):
        ClipLogits(task="multilabel")
    with pytest.raises(ConfigError, match="4 classes but 2 thresholds"):
        ClipLogits(thresholds=[0.5, 0.5]).build((None, 1, 1, 4))
