"""Convolution and batch normalisation in NumPy, as references for layers."""

import numpy as np


def conv(y, layer):
    """Compute the convolution of a layer with zero padding."""
    kernel = layer.kernel.numpy()
    pads = [(0, 0), (kernel.shape[0] // 2,) * 2, (kernel.shape[1] // 2,) * 2, (0, 0)]
    padded = np.pad(y, pads)
    return sum(
        padded[:, t : t + y.shape[1], f : f + y.shape[2]] @ kernel[t, f]
        for t in range(kernel.shape[0])
        for f in range(kernel.shape[1])
    )


def bn(y, layer):
    """Normalise with the moving statistics of a layer."""
    scale = layer.gamma.numpy() / np.sqrt(layer.moving_variance.numpy() + 1e-5)
    return (y - layer.moving_mean.numpy()) * scale + layer.beta.numpy()
