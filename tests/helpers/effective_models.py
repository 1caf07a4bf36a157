"""Models and inputs with a known effective receptive field."""

import keras
import numpy as np

import zoo


def linear_model(*kernels, strides=(), padding="valid", channels=1):
    """Build convolutions without bias or activation from kernels (time, frequency, in, out)."""
    model = keras.Sequential([keras.Input((None, None, channels))])
    for number, kernel in enumerate(kernels):
        stride = strides[number] if strides else 1
        layer = keras.layers.Conv2D(
            kernel.shape[3], kernel.shape[:2], stride, padding, use_bias=False
        )
        model.add(layer)
        layer.set_weights([kernel])
    return model


def as_kernel(*filters):
    """Stack filters (time, frequency) to a kernel with one input channel."""
    return np.stack(filters, axis=-1)[:, :, None, :].astype("float32")


def tagger(**options):
    keras.utils.set_random_seed(0)
    return zoo.create_model(
        "resnet_rf",
        **{"rho": 1, "width": 4, "frontend": None, "initialization": "he", **options},
    )


def noise(*shape):
    """Return random numbers that depend only on the shape."""
    return np.random.default_rng(shape).normal(size=shape).astype("float32")


def shares(energy):
    return energy / energy.sum()
