"""Models and inputs whose effective receptive field is known."""

import keras
import numpy as np

import zoo


def linear_model(*kernels, strides=(), padding="valid", channels=1):
    """Convolutions without bias or activation; each kernel (time, frequency, in, out)."""
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
    """Filters (time, frequency) as the kernel of a convolution with one input channel."""
    return np.stack(filters, axis=-1)[:, :, None, :].astype("float32")


def tagger(**options):
    keras.utils.set_random_seed(0)
    return zoo.create_model(
        "resnet_rf",
        **{"rho": 1, "width": 4, "frontend": None, "initialization": "he", **options},
    )


def noise(*shape):
    """Random numbers, the same for the same shape."""
    return np.random.default_rng(shape).normal(size=shape).astype("float32")


def shares(energy):
    return energy / energy.sum()
