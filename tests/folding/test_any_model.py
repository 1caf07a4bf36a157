"""Folding of custom models: what is folded, and that outputs stay the same."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import rfkeras
from rfkeras.errors import ConfigError
from rfkeras.folding import Convolution, chain_of, cheapest, fold_if_possible
from rfkeras.layers import DampedConv2D, DecomposedConv2D
from tests.helpers.weights import largest_difference, scatter

TOLERANCE = 1e-5


def normalizations(model):
    return sum(
        isinstance(layer, layers.BatchNormalization) for layer in model._flatten_layers()
    )


def check(inputs, outputs, left, shape=(2, 9, 8, 4)):
    """Check that folding keeps outputs, and leaves `left` normalisations unfolded."""
    model = scatter(keras.Model(inputs, outputs))
    folded = rfkeras.fold(model)
    batch = np.random.default_rng(2).normal(size=shape).astype("float32")
    got, expected = keras.tree.flatten(folded(batch)), keras.tree.flatten(model(batch))
    for one, other in zip(got, expected, strict=True):
        assert largest_difference(one, other) < TOLERANCE
    assert normalizations(folded) == left
    return folded


@pytest.fixture
def x():
    return keras.Input((None, 8, 4))


def twice(layer, x):
    return ops.add(layer(x), layer(ops.flip(x, 1)))


FOLDED = {
    "bias": layers.Conv2D(5, 3, padding="same"),
    "strides": layers.Conv2D(5, (2, 3), strides=(2, 1), padding="valid"),
    "dilation": layers.Conv2D(5, 3, dilation_rate=(1, 2), padding="same"),
    "groups": layers.Conv2D(6, 3, groups=2, padding="same"),
    "damped": DampedConv2D(5, (3, 5), 0.1, damp_time=True, strides=2),
    "decomposed": DecomposedConv2D(6, (3, 3), 3),
}


@pytest.mark.parametrize("conv", FOLDED.values(), ids=FOLDED)
@pytest.mark.parametrize(("scale", "center"), [(True, True), (False, False)])
def test_normalisation_after_a_convolution_is_folded(x, conv, scale, center):
    conv = type(conv).from_config(conv.get_config())
    bn = layers.BatchNormalization(scale=scale, center=center, epsilon=0.1)
    folded = check(x, ops.elu(bn(conv(x))), left=0)
    own = [layer for layer in folded.layers if isinstance(layer, layers.Conv2D)]
    assert {type(layer) for layer in own} == {layers.Conv2D}


def test_activations_keep_their_place(x):
    y = DampedConv2D(5, 3, 0.1, activation="tanh", name="damped")(x)
    y = layers.BatchNormalization()(y)  # of the activation, not of the convolution
    folded = check(x, layers.Conv2D(3, 1, activation="relu")(y), left=1)
    assert type(folded.get_layer("damped")) is layers.Conv2D


def test_outputs_with_several_readers_are_not_folded(x):
    conv = layers.Conv2D(4, 3, padding="same")(x)
    check(x, ops.add(conv, layers.BatchNormalization()(conv)), left=1)
    check(x, [conv, layers.BatchNormalization()(conv)], left=1)


def test_layers_used_twice_stay_one_layer(x):
    conv, bn = layers.Conv2D(4, 3, padding="same"), layers.BatchNormalization()
    folded = check(x, layers.BatchNormalization()(twice(conv, x)), left=1)
    assert sum(isinstance(layer, layers.Conv2D) for layer in folded.layers) == 1
    check(x, bn(ops.relu(bn(conv(x)))), left=1)
    block = rfkeras.layers.ResidualBlock(4, branches=2)
    check(x, block(block(x)), left=4)


def test_normalisation_by_batch_statistics_is_not_folded(x):
    conv = layers.Conv2D(4, 3, padding="same")
    check(x, layers.BatchNormalization()(conv(x), training=True), left=1)
    block = rfkeras.layers.ResidualBlock(4)
    check(x, block(x, training=True), left=2)


def test_other_axes_and_custom_classes_are_not_folded(x):
    @keras.saving.register_keras_serializable("tests_folding")
    class Doubled(layers.Conv2D):
        def convolution_op(self, inputs, kernel):
            return 2 * super().convolution_op(inputs, kernel)

    check(x, layers.BatchNormalization()(Doubled(4, 3)(x)), left=1)
    check(x, layers.BatchNormalization(axis=2)(layers.Conv2D(4, 3)(x)), left=1)


def test_nested_models_are_folded_once(x):
    a = keras.Input((None, 8, 4))
    conv = layers.Conv2D(4, 3, padding="same", name="conv")
    inner = keras.Model(a, ops.relu(layers.BatchNormalization()(conv(a))), name="inner")
    row = keras.Sequential(
        [layers.Conv2D(4, 1, name="conv"), layers.BatchNormalization()], name="row"
    )
    folded = check(x, {"out": row(twice(inner, x))}, left=0)
    assert [layer.name for layer in folded.layers if isinstance(layer, keras.Model)] == [
        "inner",
        "row",
    ]


def test_existing_layer_names_are_kept(x):
    block = rfkeras.layers.ResidualBlock(4, name="block")
    y = layers.ReLU(name="block_relu")(layers.ReLU(name="block_branch_conv1")(block(x)))
    names = [layer.name for layer in check(x, y, left=0).layers]
    assert len(set(names)) == len(names)
    assert {"block_relu", "block_branch_conv1", "block_branch_conv1_2"} <= set(names)


def test_layers_with_derived_state_are_copied_completely(x):
    normal = layers.Normalization()
    normal.adapt(np.random.default_rng(0).normal(3, 2, (50, 9, 8, 4)))
    y = layers.Lambda(lambda z: z[:, 1:])(normal(x))
    y = layers.Reshape((-1, 32))(layers.BatchNormalization()(layers.Conv2D(4, 1)(y)))
    y = layers.Bidirectional(layers.GRU(3, return_sequences=True, use_cudnn=False))(y)
    inputs, model = x, keras.Model(x, y)
    batch = np.random.default_rng(2).normal(3, 2, (2, 9, 8, 4)).astype("float32")
    assert largest_difference(rfkeras.fold(model)(batch), model(batch)) < TOLERANCE
    assert normalizations(rfkeras.fold(keras.Sequential([inputs, normal]))) == 0


def test_decomposed_convolution_is_merged_if_that_saves_work():
    def sizes(kernel, factor):
        layer = DecomposedConv2D(12, kernel, factor)
        layer.build((None, None, None, 12))
        return [conv.kernel.shape for conv in chain_of(layer)]

    assert sizes((3, 3), 4) == [(1, 1, 12, 3), (3, 3, 3, 3), (1, 1, 3, 12)]
    assert sizes((1, 1), 4) == [(1, 1, 12, 3), (1, 1, 3, 12)]
    assert sizes((1, 1), 1) == [(1, 1, 12, 12)]
    assert sizes((3, 3), 1) == [(3, 3, 12, 12)]


def test_cheapest_way_to_merge_is_chosen():
    rng = np.random.default_rng(0)
    shapes = [(1, 1, 9, 2), (3, 3, 2, 2), (1, 1, 2, 1)]
    chain = [Convolution(rng.normal(size=shape)) for shape in shapes]
    merged = cheapest(chain)
    # 18 + 36 + 2, 162 + 2, 18 + 18, 81
    assert [conv.kernel.shape for conv in merged] == [(1, 1, 9, 2), (3, 3, 2, 1)]
    expected = np.einsum("tfij,jo->tfio", chain[1].kernel, chain[2].kernel[0, 0])
    np.testing.assert_allclose(merged[1].kernel, expected, rtol=1e-12)


class Bare(layers.Layer):
    """A layer that cannot be created from its config."""

    def __init__(self, function, **kwargs):
        super().__init__(**kwargs)
        self.function = function

    def call(self, inputs):
        return self.function(inputs)


def test_error_names_a_layer_that_cannot_be_copied(x, caplog):
    model = keras.Model(x, Bare(lambda z: 2 * z, name="bare")(x))
    with pytest.raises(ConfigError, match="layer 'bare' cannot be copied.*class Bare a get_c"):
        rfkeras.fold(model)
    assert fold_if_possible(model) is model
    assert "'bare' cannot be copied" in caplog.text


def test_subclassed_model_is_rejected():
    class Coded(keras.Model):
        def call(self, inputs):
            return inputs

    with pytest.raises(ConfigError, match="must be a functional or Sequential model"):
        rfkeras.fold(Coded())
