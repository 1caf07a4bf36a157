"""Checks that the tests of the architectures share."""

import keras
import numpy as np
import tensorflow as tf

import rfkeras
import zoo


def trainable_parameters(model):
    """Return the number of trainable parameters."""
    return sum(int(np.prod(v.shape)) for v in model.trainable_variables)


def check_published_start(name, **options):
    """Check that the initial logits are exactly 0 and every weight still gets a gradient."""
    model = zoo.create_model(name, 3, frontend=None, **options)
    with tf.GradientTape() as tape:
        logits = model(tf.random.stateless_normal((2, 60, 40, 1), (0, 0)), training=True)
        value = tf.reduce_sum((logits - 1.0) ** 2)
    np.testing.assert_array_equal(logits, np.zeros((2, 3)))
    gradients = tape.gradient(value, [v.value for v in model.trainable_variables])
    assert all(gradient is not None for gradient in gradients)


def check_variant(name, tmp_path, **options):
    """Check that training changes every weight, and that saving keeps the outputs."""
    keras.utils.set_random_seed(0)
    model = zoo.create_model(name, 3, frontend=None, initialization="he", **options)
    x = np.random.default_rng(0).normal(size=(6, 60, 40, 1)).astype("float32")
    before = [v.numpy() for v in model.trainable_variables]
    model.compile(keras.optimizers.SGD(0.1), "mse")
    model.fit(x, np.eye(6, 3, dtype="float32"), batch_size=6, verbose=0)
    for old, variable in zip(before, model.trainable_variables, strict=True):
        assert np.isfinite(variable.numpy()).all(), variable.path
        assert np.abs(variable.numpy() - old).max() > 0, variable.path
    model.save(tmp_path / "m.keras")
    loaded = rfkeras.load_model(tmp_path / "m.keras")
    np.testing.assert_allclose(loaded(x), model(x), atol=1e-6)
