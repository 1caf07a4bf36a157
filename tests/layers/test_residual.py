"""The residual block, and Shake-Shake forward and backward."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import zoo
from rfkeras.errors import ConfigError
from rfkeras.layers import ResidualBlock, ShakeShake
from tests.helpers.written_out import bn, conv

POLICIES = {"float32": 1e-6, "mixed_bfloat16": 0.02, "mixed_float16": 2e-3}


def branches(batch=64, seed=0):
    rng = np.random.default_rng(seed)
    shape = (batch, 3, 4, 2)
    return [tf.constant(rng.normal(size=shape), tf.float32) for _ in range(2)]


def shares(layer, first, second):
    """Return (alpha, beta) of each sample, from the output and the gradients."""
    upstream = tf.random.stateless_normal(first.shape, (1, 2))
    with tf.GradientTape() as tape:
        tape.watch([first, second])
        out = layer([first, second], training=True)
    back = tape.gradient(out, [first, second], tf.cast(upstream, out.dtype))
    difference = (first - second).numpy().reshape(len(first), -1)
    moved = np.asarray(tf.cast(out, tf.float32) - second).reshape(len(first), -1)
    alpha = (moved * difference).sum(1) / (difference**2).sum(1)
    norm = (upstream.numpy().reshape(len(first), -1) ** 2).sum(1)
    betas = [
        (g.numpy().reshape(len(first), -1) * upstream.numpy().reshape(len(first), -1)).sum(1)
        / norm
        for g in back
    ]
    # The whole gradient is a share of the upstream gradient, not only its projection.
    for gradient, beta in zip(back, betas, strict=True):
        np.testing.assert_allclose(
            gradient, beta[:, None, None, None] * upstream, atol=0.02 * np.abs(upstream).max()
        )
    return alpha, betas


@pytest.mark.parametrize(("policy", "tolerance"), POLICIES.items())
def test_shares_forward_and_backward(policy, tolerance):
    first, second = branches()
    alpha, (beta, rest) = shares(ShakeShake(seed=3, dtype=policy), first, second)
    np.testing.assert_allclose(beta + rest, 1.0, atol=tolerance * 2)
    for share in (alpha, beta):
        assert share.min() > -tolerance
        assert share.max() < 1 + tolerance
        assert np.std(share) == pytest.approx(12**-0.5, rel=0.25)  # uniform on [0, 1)
    assert abs(np.corrcoef(alpha, beta)[0, 1]) < 0.35  # 64 independent pairs


def test_mean_forward_output_is_the_average_of_the_branches():
    first, second = branches(batch=1)
    rows = 20_000
    many = [tf.repeat(x, rows, axis=0) for x in (first, second)]
    out = ShakeShake(seed=1)(many, training=True).numpy()
    spread = np.abs((first - second).numpy()) / np.sqrt(12 * rows)
    assert (np.abs(out.mean(0) - (first + second).numpy()[0] / 2) < 4.5 * spread[0]).all()


def test_inference_is_exactly_the_average():
    first, second = branches()
    np.testing.assert_array_equal(ShakeShake()([first, second]), (first + second) * 0.5)


def test_one_pair_of_shares_per_batch():
    alpha, (beta, _) = shares(ShakeShake(per="batch", seed=5), *branches())
    np.testing.assert_allclose(alpha, alpha[0], atol=1e-5)
    np.testing.assert_allclose(beta, beta[0], atol=1e-5)
    assert abs(alpha[0] - beta[0]) > 1e-3


def test_same_seed_same_draws_and_next_call_different_draws():
    one, two, other = ShakeShake(seed=7), ShakeShake(seed=7), ShakeShake(seed=8)
    inputs = branches()
    first = one(inputs, training=True).numpy()
    np.testing.assert_array_equal(first, two(inputs, training=True))
    assert np.abs(first - other(inputs, training=True)).max() > 0.1
    assert np.abs(first - one(inputs, training=True)).max() > 0.1


def test_global_seed_applies_without_a_seed_argument():
    inputs = branches()
    outputs = []
    for _ in range(2):
        keras.utils.set_random_seed(4)
        outputs.append(ShakeShake()(inputs, training=True).numpy())
    np.testing.assert_array_equal(*outputs)


def test_compiled_by_xla():
    """Check XLA's generator: its draws are also uniform, independent and repeatable."""
    inputs = branches()
    upstream = tf.ones_like(inputs[0])

    def run(layer):
        @tf.function(jit_compile=True)
        def step(first, second):
            out = layer([first, second], training=True)
            return out, tf.gradients(out, [first, second], upstream)

        return step(*inputs), step(*inputs)

    (out, (beta, rest)), (later, _) = run(ShakeShake(seed=2))
    np.testing.assert_array_equal(out, run(ShakeShake(seed=2))[0][0])
    assert np.abs(out - later).max() > 0.1
    np.testing.assert_allclose(beta + rest, 1.0, atol=1e-6)
    difference = inputs[0] - inputs[1]
    alpha = tf.reduce_sum((out - inputs[1]) * difference, (1, 2, 3))
    alpha /= tf.reduce_sum(difference**2, (1, 2, 3))
    beta = beta.numpy()[:, 0, 0, 0]
    for share in (alpha.numpy(), beta):
        assert 0 <= share.min() < 0.2 < 0.8 < share.max() <= 1
    assert abs(np.corrcoef(alpha, beta)[0, 1]) < 0.35


def test_unknown_batch_size_and_round_trip(tmp_path):
    inputs = [keras.Input((None, 4, 2)) for _ in range(2)]
    layer = ShakeShake(per="batch", seed=9, name="mix")
    model = keras.Model(inputs, layer(inputs))
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert loaded.get_layer("mix").get_config() == layer.get_config()
    x = branches(batch=5)
    np.testing.assert_array_equal(loaded(x, training=True), model(x, training=True))


def test_blocks_of_a_network_draw_differently():
    inputs = keras.Input((6, 4, 3))
    blocks = [ResidualBlock(3, branches=2, initialization="he") for _ in range(2)]
    keras.Model(inputs, blocks[1](blocks[0](inputs)))
    seeds = [block.mix.seed_generator.state.numpy()[0] for block in blocks]
    assert seeds[0] != seeds[1]


def test_block_without_shake_takes_the_mean_of_its_branches():
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(2, 6, 5, 3)).astype("float32")
    shaken = ResidualBlock(3, branches=2, initialization="he")
    mean = ResidualBlock(3, branches=2, shake=False, initialization="he")
    shaken.build(x.shape)
    mean.build(x.shape)
    for ours, theirs in zip(mean.trainable_variables, shaken.trainable_variables, strict=True):
        ours.assign(theirs)
    np.testing.assert_allclose(mean(x), shaken(x), atol=1e-6)
    by_hand = np.maximum(x + sum(branch(x) for branch in shaken.residuals) / 2, 0)
    np.testing.assert_allclose(shaken(x), by_hand, atol=1e-6)


def test_options_mean_the_same_in_block_and_network():
    for options in ({"shake": True}, {"branches": 2}, {"shake": True, "branches": 2}):
        assert isinstance(ResidualBlock(3, **options).mix, ShakeShake)
        model = zoo.create_model("resnet_rf", 2, width=4, frontend=None, **options)
        assert isinstance(model.get_layer("stage1_block1").mix, ShakeShake)
    for options in ({}, {"shake": False}, {"branches": 1}):
        assert ResidualBlock(3, **options).mix is None
    assert isinstance(ResidualBlock(3, branches=2, shake=False).mix, keras.layers.Average)


def test_wrong_arguments():
    with pytest.raises(ConfigError, match="sample"):
        ShakeShake(per="step")
    with pytest.raises(ConfigError, match="two tensors of the same shape"):
        ShakeShake().build([(None, 3), (None, 4)])
    with pytest.raises(ConfigError, match="branches=2"):
        ResidualBlock(3, branches=3, shake=True)


def test_block_initially_passes_on_its_shortcut():
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
