"""Folded zoo models have the same outputs and receptive fields."""

import keras
import numpy as np
import pytest

import rfkeras
import zoo
from rfkeras.folding import in_float32
from rfkeras.layers import ClipLogits
from tests.helpers.weights import largest_difference, scatter

BLOCKS = {"width": 6, "rho": 15, "blocks": (1, 1, 1), "allow_rf_change": True}
SMALL = {"width": 6, "rho": 2}
NETWORKS = {
    "plain": ("resnet_rf", BLOCKS),
    "shake": ("resnet_rf", {**BLOCKS, "shake": True}),
    "shake, frequency-aware": ("resnet_rf", {**BLOCKS, "shake": True, "frequency_aware": True}),
    "mean of 3, damped on both axes": (
        "resnet_rf",
        {**BLOCKS, "branches": 3, "damping": 0.1, "damp_time": True},
    ),
    "decomposed by 3": ("resnet_rf", {**BLOCKS, "decomposition": 3, "damping": 0.01}),
    "shake, decomposed by 3": (
        "resnet_rf",
        {**BLOCKS, "decomposition": 3, "shake": True, "frequency_aware": True},
    ),
    "shake, decomposed by 1": ("resnet_rf", {**BLOCKS, "decomposition": 1, "shake": True}),
    "attention": ("resnet_rf", {**BLOCKS, "head": "attention"}),
    "frames": ("resnet_rf", {**BLOCKS, "head": "frames", "input_channels": 2}),
    "vgg": ("vgg_rf", SMALL),
    "vgg, all options": (
        "vgg_rf",
        {**SMALL, "frequency_aware": True, "damping": 0.1, "decomposition": 2},
    ),
    "densenet, all options": (
        "densenet_rf",
        {**SMALL, "frequency_aware": True, "damping": 0.1, "decomposition": 2},
    ),
    "crnn": ("crnn", {"width": 4, "units": 5}),
}
TOLERANCE = 1e-5  # relative to the largest value; at most 2e-6 was measured


def network(name, **options):
    return scatter(zoo.create_model(name, 3, initialization="he", **options))


def spectrograms(*shape):
    return np.random.default_rng(1).normal(size=shape).astype("float32")


@pytest.mark.parametrize(("name", "options"), NETWORKS.values(), ids=NETWORKS)
def test_outputs_and_receptive_field_stay_the_same(name, options):
    model = network(name, frontend=None, **options)
    before = [variable.numpy() for variable in model.variables]
    folded = rfkeras.fold(model)
    batch = spectrograms(2, 45, 40, options.get("input_channels", 1))
    got, expected = folded.read(batch), model.read(batch)
    for part in ("logits", "frame_logits", "embedding", "frame_embeddings"):
        difference = largest_difference(getattr(got, part), getattr(expected, part))
        assert difference < TOLERANCE, part
    assert largest_difference(folded(batch), model(batch)) < TOLERANCE
    field, own = rfkeras.receptive_field(folded), rfkeras.receptive_field(model)
    assert (field.time, field.frequency) == (own.time, own.frequency)
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)
    assert not {id(v) for v in folded.variables} & {id(v) for v in model.variables}


def test_folded_block_has_two_convolutions_and_one_for_its_shortcut():
    options = {"shake": True, "damping": 0.1}
    folded = rfkeras.fold(network("resnet_rf", frontend=None, **BLOCKS, **options))
    kinds = {type(layer) for layer in folded.layers} - {ClipLogits}
    assert all(kind.__module__.startswith("keras.") for kind in kinds)
    assert keras.layers.BatchNormalization not in kinds
    convolutions = {
        layer.name: (layer.kernel_size, layer.filters)
        for layer in folded.layers
        if isinstance(layer, keras.layers.Conv2D)
    }
    assert convolutions == {
        "stem_conv": ((5, 5), 6),
        "stage1_block1_branch_conv1": ((3, 3), 12),
        "stage1_block1_branch_conv2": ((1, 1), 6),
        "stage2_block1_branch_conv1": ((3, 3), 24),
        "stage2_block1_branch_conv2": ((3, 3), 12),
        "stage2_block1_shortcut": ((1, 1), 12),
        "stage3_block1_branch_conv1": ((3, 3), 48),
        "stage3_block1_branch_conv2": ((1, 1), 24),
        "stage3_block1_shortcut": ((1, 1), 24),
        "classifier_conv": ((1, 1), 3),
    }


def test_with_a_front_end_and_after_saving(tmp_path):
    model = network("resnet_rf", frontend="mel_32k", **BLOCKS)
    frontend = model.get_layer("frontend")
    frontend.std_db.assign(np.linspace(5, 20, frontend.n_mels))
    model.head.thresholds = (0.1, 0.2, 0.3)
    folded = rfkeras.fold(model)
    assert (type(folded), folded.name) == (rfkeras.Tagger, model.name)
    assert folded.head.thresholds == (0.1, 0.2, 0.3)
    batch = 0.1 * spectrograms(2, 16000)
    expected = model(batch)
    assert largest_difference(folded(batch), expected) < TOLERANCE
    folded.save(tmp_path / "folded.keras")
    loaded = rfkeras.load_model(tmp_path / "folded.keras")
    np.testing.assert_allclose(loaded(batch), folded(batch), rtol=1e-6)


def test_folded_copy_does_not_change_with_the_model():
    model = network("resnet_rf", frontend=None, **BLOCKS)
    batch = spectrograms(1, 45, 40, 1)
    folded = rfkeras.fold(model)
    before = np.asarray(folded(batch))
    scatter(model, seed=1)
    np.testing.assert_array_equal(folded(batch), before)
    assert largest_difference(model(batch), before) > 0.1


def test_folded_model_computes_in_float32():
    default = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy("mixed_bfloat16")
        model = network("resnet_rf", frontend=None, **BLOCKS)
    finally:
        keras.config.set_dtype_policy(default)
    batch = spectrograms(2, 45, 40, 1)
    folded = rfkeras.fold(model)
    assert {layer.compute_dtype for layer in folded.layers} == {"float32"}
    assert largest_difference(folded(batch), in_float32(model)(batch)) < TOLERANCE
