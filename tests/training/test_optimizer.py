"""Optimizers: weight decay, gradient clipping and the learning-rate schedule."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from rfkeras.config.train_config import TrainConfig
from rfkeras.training.optimizer import HoldThenLinear, is_kernel, make_optimizer
from tests.helpers.small_tagger import small_tagger


def optimizer_for(tagger, steps_per_epoch=10, **options):
    config = TrainConfig(**{"epochs": 20, "hold_epochs": 5, **options})
    optimizer = make_optimizer(config, tagger.trainable_variables, steps_per_epoch)
    optimizer.build(tagger.trainable_variables)
    return optimizer


def step(optimizer, variables, gradients):
    """Apply gradients as a training step does; return the changes of the variables."""
    before = [v.numpy() for v in variables]
    strategy = tf.distribute.get_strategy()
    strategy.run(lambda: optimizer.apply_gradients(zip(gradients, variables, strict=True)))
    return [v.numpy() - old for v, old in zip(variables, before, strict=True)]


def test_weight_decay_is_decoupled_and_applies_only_to_kernels():
    tagger = small_tagger()
    variables = tagger.trainable_variables
    for variable in variables:
        variable.assign(np.full(variable.shape, 2.0))
    optimizer = optimizer_for(tagger, optimizer="adamw", weight_decay=0.3, learning_rate=0.1)
    changes = step(optimizer, variables, [tf.zeros(v.shape) for v in variables])
    names = {v.path.rpartition("/")[2] for v in variables}
    assert names == {"kernel", "bias", "gamma", "beta"}
    for variable, change in zip(variables, changes, strict=True):
        expected = -0.1 * 0.3 * 2.0 if variable.path.endswith("kernel") else 0.0
        np.testing.assert_allclose(change, expected, rtol=1e-5, atol=1e-7)


def test_the_biases_of_a_gru_are_not_a_kernel():
    gru = keras.layers.GRU(4)
    gru.build((None, None, 3))
    variables = gru.trainable_variables
    assert [v.shape for v in variables] == [(3, 12), (4, 12), (2, 12)]
    assert [is_kernel(v) for v in variables] == [True, True, False]
    for variable in variables:
        variable.assign(np.full(variable.shape, 2.0))
    config = TrainConfig(optimizer="adamw", weight_decay=0.3, learning_rate=0.1)
    optimizer = make_optimizer(config, variables, 10)
    optimizer.build(variables)
    changes = step(optimizer, variables, [tf.zeros(v.shape) for v in variables])
    for variable, change in zip(variables, changes, strict=True):
        expected = 0.0 if variable.path.endswith("bias") else -0.1 * 0.3 * 2.0
        np.testing.assert_allclose(change, expected, rtol=1e-5, atol=1e-7)


def test_adamw_has_a_default_decay_and_adam_none():
    tagger = small_tagger()
    assert optimizer_for(tagger, optimizer="adamw").weight_decay == 0.01
    assert optimizer_for(tagger).weight_decay is None


@pytest.mark.parametrize("scale", [1.0, 1e-4])
def test_gradients_are_clipped_by_their_common_norm(scale):
    tagger = small_tagger()
    variables = tagger.trainable_variables
    rng = np.random.default_rng(0)
    gradients = [rng.normal(size=v.shape).astype("float32") * scale for v in variables]
    norm = np.sqrt(sum((g**2).sum() for g in gradients))
    optimizer = optimizer_for(tagger, clip_norm=0.5, learning_rate=1e-3)
    step(optimizer, variables, [tf.constant(g) for g in gradients])
    momenta = {
        v.path.rpartition("_")[0]: v for v in optimizer.variables if "momentum" in v.path
    }
    assert len(momenta) == len(variables)
    factor = min(1.0, 0.5 / norm)
    for gradient, momentum in zip(gradients, momenta.values(), strict=True):
        np.testing.assert_allclose(momentum.numpy(), 0.1 * factor * gradient, rtol=1e-4)


def rates(config, epochs):
    """Return the learning rates at the start of epochs, counted from 0."""
    rate = make_optimizer(config, [], 7)._learning_rate
    return [float(rate(epoch * 7)) for epoch in epochs]


def test_the_published_schedule():
    config = TrainConfig(epochs=350, schedule="published")
    assert rates(config, (0, 50, 150, 250, 349)) == pytest.approx(
        [1e-4, 1e-4, 5.05e-5, 1e-6, 1e-6], rel=1e-5
    )
    assert rates(config, (0, 50, 150, 250, 349)) == rates(
        TrainConfig(epochs=350, hold_epochs=50, decay_end_epoch=250), (0, 50, 150, 250, 349)
    )
    short = TrainConfig(epochs=14, schedule="published")
    assert rates(short, (2, 6, 10, 13)) == pytest.approx([1e-4, 5.05e-5, 1e-6, 1e-6], rel=1e-5)


def test_the_linear_schedule_ends_with_the_last_epoch():
    held_by_default = TrainConfig(epochs=14)
    assert rates(held_by_default, (0, 2, 8, 14)) == pytest.approx(
        [1e-4, 1e-4, 5.05e-5, 1e-6], rel=1e-5
    )
    config = TrainConfig(epochs=100, hold_epochs=50)
    assert rates(config, (50, 75, 100)) == pytest.approx([1e-4, 5.05e-5, 1e-6], rel=1e-5)


def test_learning_rate_is_held_then_decays_linearly_then_stays():
    schedule = HoldThenLinear(1e-3, hold_steps=10, end_step=30, final_learning_rate=1e-4)
    values = [float(schedule(step)) for step in (0, 10, 15, 20, 30, 1000)]
    assert values == pytest.approx([1e-3, 1e-3, 7.75e-4, 5.5e-4, 1e-4, 1e-4])
    same = HoldThenLinear(**schedule.get_config())
    assert float(same(17)) == float(schedule(17))


def test_learning_rate_held_until_the_end():
    schedule = HoldThenLinear(1e-3, hold_steps=30, end_step=30)
    assert float(schedule(29)) == pytest.approx(1e-3)
