"""Frozen stays frozen: in every part of a layer, before and after build, saved and cloned."""

import json

import keras
import numpy as np
import pytest

import rfkeras
import zoo
from rfkeras.layers import ClipLogits, DecomposedConv2D, DenseLayer, ResidualBlock
from rfkeras.layers.composite import PARTS
from tests.helpers.configurations import combined_configurations, configurations, few_layers

COMPOSITES = {
    "residual": lambda **kw: ResidualBlock(8, **kw),
    "same_channels": lambda **kw: ResidualBlock(4, **kw),
    "shake": lambda **kw: ResidualBlock(8, shake=True, **kw),
    "aware_damped": lambda **kw: ResidualBlock(8, frequency_aware=True, damping=0.1, **kw),
    "decomposed_block": lambda **kw: ResidualBlock(8, branches=3, decomposition=2, **kw),
    "dense": lambda **kw: DenseLayer(4, **kw),
    "dense_decomposed": lambda **kw: DenseLayer(4, decomposition=2, damping=0.1, **kw),
    "decomposed": lambda **kw: DecomposedConv2D(8, 3, 2, damping=0.1, **kw),
    "head": lambda **kw: ClipLogits(pooling="attention", **kw),
}
SHAPE = (None, 8, 8, 4)
every_composite = pytest.mark.parametrize("make", COMPOSITES.values(), ids=COMPOSITES)


def trainable(model):
    """Return the paths of the variables that train, below the model's own name."""
    return sorted(v.path for v in model.trainable_variables)


def copies(model, folder):
    """Return the model saved and loaded, cloned, and made from its config."""
    model.save(folder / "m.keras")
    return {
        "loaded": keras.models.load_model(folder / "m.keras"),
        "cloned": keras.models.clone_model(model),
        "from_config": type(model).from_config(model.get_config()),
        "twice": keras.models.clone_model(type(model).from_config(model.get_config())),
    }


@every_composite
def test_a_layer_frozen_before_it_is_built_trains_nothing(make):
    layers = [make(), make(trainable=False), type(make()).from_config(make().get_config())]
    layers[0].trainable = False
    layers[2].trainable = False
    for layer in layers:
        layer.build(SHAPE)
        assert layer.weights
        assert not [v.path for v in layer.variables if v.trainable and "seed" not in v.path]
        assert not any(part.trainable for part in layer._flatten_layers())
        layer.trainable = True
        assert all(part.trainable for part in layer._flatten_layers())
        again = make()
        again.build(SHAPE)
        assert len(layer.trainable_variables) == len(again.trainable_variables) > 0


@every_composite
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_frozen_layer_stays_frozen_in_every_copy(make, when, tmp_path):
    inputs = keras.Input(SHAPE[1:])
    layer = make(name="under_test")
    layer.trainable = when != "before"
    x = keras.layers.Conv2D(4, 1, name="other")(inputs)
    model = keras.Model(inputs, layer(x))
    layer.trainable = False
    expected = ["other/bias", "other/kernel"]
    assert trainable(model) == expected
    for name, copy in copies(model, tmp_path).items():
        assert trainable(copy) == expected, name
        assert not copy.get_layer("under_test").trainable_variables
        copy.get_layer("under_test").trainable = True
        assert len(trainable(copy)) > 2


PARTS_TO_FREEZE = {
    "shortcut": lambda block: [block.shortcut_conv, block.shortcut_bn],
    "norms": lambda block: [
        part
        for part in block._flatten_layers()
        if isinstance(part, keras.layers.BatchNormalization)
    ],
    "one_branch": lambda block: [block.residuals[1]],
    "one_kernel": lambda block: [block.residuals[0].conv2.widen],
}


@pytest.mark.parametrize("choose", PARTS_TO_FREEZE.values(), ids=PARTS_TO_FREEZE)
def test_a_frozen_part_of_a_block_stays_frozen_in_every_copy(choose, tmp_path):
    inputs = keras.Input(SHAPE[1:])
    block = ResidualBlock(8, branches=2, decomposition=2, name="block")
    model = keras.Model(inputs, block(inputs))
    whole = trainable(model)
    assert PARTS not in block.get_config()
    for part in choose(block):
        part.trainable = False
    expected = trainable(model)
    assert 0 < len(expected) < len(whole)
    assert json.loads(json.dumps(block.get_config()[PARTS])) == block.get_config()[PARTS]
    for name, copy in copies(model, tmp_path).items():
        assert trainable(copy) == expected, name
        assert copy.get_layer("block").get_config() == block.get_config(), name
        # The same value again reaches the parts too.
        copy.get_layer("block").trainable = True
        assert trainable(copy) == whole, name


def test_a_part_that_trains_in_a_frozen_block_is_kept_too(tmp_path):
    inputs = keras.Input(SHAPE[1:])
    block = ResidualBlock(8, name="block")
    model = keras.Model(inputs, block(inputs))
    block.trainable = False
    block.shortcut_bn.trainable = True
    config = block.get_config()
    assert config[PARTS] == {"shortcut_bn": True}
    # The shortcut does not exist before build; until then the config still has it.
    assert ResidualBlock.from_config(config).get_config() == config
    for name, copy in copies(model, tmp_path).items():
        parts = copy.get_layer("block")
        assert parts.shortcut_bn.trainable, name
        assert not parts.shortcut_conv.trainable, name
        assert not parts.residuals[0].trainable, name


@pytest.mark.parametrize("name", configurations())
def test_freezing_all_but_the_classifier_in_every_model(name, tmp_path):
    with few_layers(name) as few:
        options = {"num_classes": 3, "head": "attention", **configurations()[name], **few}
        model = zoo.create_model(name, **options)
    plain = json.dumps(model.get_config())
    assert PARTS not in plain
    for layer in model.layers:
        layer.trainable = layer.name.startswith(("classifier", "logits"))
    expected = trainable(model)
    assert len(expected) == 4  # kernel, gamma, beta, attention
    for kind, copy in copies(model, tmp_path).items():
        assert trainable(copy) == expected, kind
        for layer in copy.layers:
            layer.trainable = layer.name.startswith(("classifier", "logits"))
        assert trainable(copy) == expected, kind  # also if nothing was to be changed


@pytest.mark.parametrize("name", combined_configurations())
def test_a_frozen_base_does_not_move(name):
    keras.utils.set_random_seed(0)
    with few_layers(name) as few:
        options = {"num_classes": 3, "initialization": "he", **configurations()[name], **few}
        model = zoo.create_model(name, **{**options, "frontend": None})
    model = type(model).from_config(model.get_config())
    for layer in model.layers:
        layer.trainable = layer.name.startswith("classifier")
    model = type(model).from_config(model.get_config())
    base = keras.Model(model.input, model.get_layer("classifier_conv").input)
    channels = model.input_shape[-1]
    x = np.random.default_rng(0).normal(2.0, 3.0, (4, 64, 64, channels)).astype("float32")
    before = np.asarray(base(x, training=False))
    kernel = model.get_layer("classifier_conv").kernel.numpy()
    model.compile(keras.optimizers.SGD(0.01), "mse", run_eagerly=True)
    model.fit(x, np.ones((4, 3), "float32"), epochs=2, verbose=0)
    assert np.abs(model.get_layer("classifier_conv").kernel.numpy() - kernel).max() > 0
    np.testing.assert_array_equal(base(x, training=False), before)


def test_frozen_statistics_of_a_loaded_block_do_not_move(tmp_path):
    inputs = keras.Input(SHAPE[1:])
    outputs = ResidualBlock(8, shake=True, name="block", trainable=False)(inputs)
    keras.Model(inputs, outputs).save(tmp_path / "m.keras")
    model = rfkeras.load_model(tmp_path / "m.keras")
    values = [v.numpy() for v in model.weights]
    model(np.full((2, 8, 8, 4), 5.0, "float32"), training=True)
    for before, variable in zip(values, model.weights, strict=True):
        if "seed" not in variable.path:
            np.testing.assert_array_equal(variable.numpy(), before, err_msg=variable.path)
