"""Magnitude pruning: which weights are pruned, when, and how many remain."""

import json
import math

import keras
import numpy as np
import pytest

from rfkeras.config.train_config import TrainConfig
from rfkeras.errors import ConfigError
from rfkeras.training.pruning import (
    Pruner,
    empty_kernels,
    final_share,
    magnitude_masks,
    ramp,
    write_counts,
)
from tests.helpers.small_tagger import fit, small_tagger, training_model


def pruned(epoch=5, **options):
    tagger = small_tagger()
    model = training_model(tagger, prune=True)
    config = TrainConfig(**{"epochs": 10, "prune_epochs": 4, **options})
    pruner = Pruner(model, config)
    fit(model, steps=2)
    before = [kernel.numpy() for kernel, _ in model.masks]
    pruner.prune_for(epoch)
    return model, before


def test_ramps():
    assert [ramp("linear", e, 50) for e in (0, 25, 50, 80)] == [0.0, 0.5, 1.0, 1.0]
    assert ramp("exponential", 0, 50) == pytest.approx(math.exp(-1))
    assert ramp("exponential", 25, 50) == pytest.approx(math.exp(-0.125))
    assert ramp("exponential", 80, 50) == 1.0


def test_global_masks_remove_the_smallest_weights_of_all_kernels():
    rng = np.random.default_rng(0)
    kernels = [rng.normal(size=(3, 3, 2, 4)), 10 * rng.normal(size=(1, 1, 4, 5))]
    masks = magnitude_masks(kernels, 0.5, "global")
    magnitudes = np.concatenate([np.abs(k).ravel() for k in kernels])
    kept = np.concatenate([m.ravel() for m in masks]) == 1
    assert (~kept).sum() == 46
    assert magnitudes[~kept].max() < magnitudes[kept].min()
    assert [m.shape for m in masks] == [k.shape for k in kernels]
    assert masks[1].mean() > masks[0].mean()


def test_layer_masks_remove_the_share_of_each_kernel():
    rng = np.random.default_rng(0)
    kernels = [rng.normal(size=(3, 3, 2, 4)), 10 * rng.normal(size=(1, 1, 4, 5))]
    for kernel, mask in zip(kernels, magnitude_masks(kernels, 0.25, "layer"), strict=True):
        assert (mask == 0).sum() == kernel.size // 4
        assert np.abs(kernel)[mask == 0].max() < np.abs(kernel)[mask == 1].min()


@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("share", [0.0, 1e-9])
def test_a_share_of_zero_prunes_nothing(share, scope):
    assert all(mask.all() for mask in magnitude_masks([np.ones((2, 3))], share, scope))


@pytest.mark.parametrize(
    ("size", "share", "zeros"), [(10, 0.41, 5), (10, 0.4, 4), (100, 0.55, 55)]
)
def test_layer_masks_round_up_to_whole_weights(size, share, zeros):
    (mask,) = magnitude_masks([np.arange(1.0, size + 1)], share, "layer")
    np.testing.assert_array_equal(mask, np.arange(size) >= zeros)


def test_the_biases_of_a_gru_are_not_pruned(tmp_path):
    inputs = keras.Input((5, 3))
    outputs = keras.layers.Dense(2)(keras.layers.GRU(4, bias_initializer="normal")(inputs))
    model = training_model(keras.Model(inputs, outputs), prune=True)
    assert [v.shape for v, _ in model.masks] == [(3, 12), (4, 12), (4, 2)]
    Pruner(model, TrainConfig(prune_share=0.5)).prune_for(200)
    left = write_counts(model.tagger, tmp_path / "pruning.json")
    assert left == (36 + 48 + 8) // 2 + 24 + 2
    biases = [v for v in model.tagger.trainable_variables if v.path.endswith("gru_cell/bias")]
    assert np.count_nonzero(biases[0].numpy()) == 24


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_the_share_grows_over_the_epochs(scope):
    model, before = pruned(epoch=2, prune_share=0.8, prune_scope=scope)
    weights = sum(k.size for k in before)

    def zeros():
        return sum(int((k.numpy() == 0).sum()) for k, _ in model.masks)

    assert zeros() == pytest.approx(0.4 * weights, abs=1)
    fit(model, steps=3)
    assert zeros() == pytest.approx(0.4 * weights, abs=1)
    kept = [k.numpy() != 0 for k, _ in model.masks]
    Pruner(model, TrainConfig(epochs=10, prune_epochs=4, prune_share=0.8)).prune_for(4)
    assert zeros() == round(0.8 * weights)
    for (kernel, _), earlier in zip(model.masks, kept, strict=True):
        assert not (kernel.numpy() != 0)[~earlier].any()  # pruned weights stay pruned


@pytest.mark.parametrize("target", [12, 40])
def test_a_target_count_is_met_exactly_and_recorded(tmp_path, target):
    model, _ = pruned(prune_to_parameters=target)
    left = write_counts(model.tagger, tmp_path / "pruning.json")
    counts = json.loads((tmp_path / "pruning.json").read_text())
    assert left == counts["nonzero"] == target
    assert counts["parameters"] == sum(
        int(np.prod(v.shape)) for v in model.tagger.trainable_variables
    )
    assert counts["kernels"]["conv/kernel"]["weights"] == 36
    nonzero = np.count_nonzero(model.tagger.get_layer("conv").kernel.numpy())
    assert counts["kernels"]["conv/kernel"]["nonzero"] == nonzero


def test_in_layer_scope_at_most_the_target_remains():
    rng = np.random.default_rng(0)
    shapes = [(3, 3, 1, 4), (10,), (10, 1), (5, 2), (2, 5), (7, 3), (1, 1, 13, 1)]
    variables = [keras.Variable(rng.normal(size=shape), name="kernel") for shape in shapes]
    kernels = [v.numpy() for v in variables if len(v.shape) > 1]
    for target in range(11, 111):  # of 100 in six kernels, and 10 others
        config = TrainConfig(prune_to_parameters=target)
        masks = magnitude_masks(kernels, final_share(config, variables), "layer")
        left = 10 + sum(int(mask.sum()) for mask in masks)
        assert target - len(kernels) < left <= target


def test_impossible_targets_are_errors():
    variables = small_tagger().trainable_variables  # 36 + 12 in kernels, 8 + 3 others
    for target in (11, 60):
        with pytest.raises(ConfigError, match="must be from 12 .* to the 59 parameters"):
            final_share(TrainConfig(prune_to_parameters=target), variables)
    assert final_share(TrainConfig(prune_to_parameters=35), variables) == 0.5


def test_kernels_that_are_all_zero_are_listed():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2), keras.layers.Dense(1)])
    assert empty_kernels(model) == []
    model.layers[1].kernel.assign(np.zeros((2, 1)))
    assert empty_kernels(model) == [model.layers[1].kernel.path]
