"""Small taggers with weights that reveal errors, and test audio."""

import functools

import keras
import numpy as np

import zoo
from rfkeras.frontend import Frontend
from rfkeras.layers import ClipLogits

RATE_HZ = 4000
CLASSES = 3

# Initial weights of 0 or 1 would hide a wrong mean or a missing layer.
_RANDOM = {
    "moving_mean": lambda rng, shape: rng.normal(0, 0.3, shape),
    "moving_variance": lambda rng, shape: rng.uniform(0.5, 2, shape),
    "beta": lambda rng, shape: rng.normal(0, 0.5, shape),
    "gamma": lambda rng, shape: rng.uniform(0.5, 1, shape),
    "mean_db": lambda rng, shape: rng.normal(-20, 3, shape),
    "std_db": lambda rng, shape: rng.uniform(8, 14, shape),
    "attention_kernel": lambda rng, shape: rng.normal(0, 0.3, shape),
}


def small_frontend(**options):
    """Return a cheap front-end: one second of audio gives 62 frames of 24 bands."""
    sizes = {"n_fft": 256, "window_samples": 256, "hop_samples": 64, "n_mels": 24}
    return Frontend(RATE_HZ, **{"fixed_floor": True, **sizes, **options})


def randomized(model, seed=0):
    """Assign random statistics and weights, as after training, and return the model."""
    rng = np.random.default_rng(seed)
    for variable in model.variables:
        draw = _RANDOM.get(variable.path.rpartition("/")[2])
        if draw is not None:
            variable.assign(draw(rng, variable.shape))
    return model


@functools.cache
def zoo_tagger(name, **options):
    """Return a small zoo model."""
    options = {"frontend": small_frontend(), "initialization": "he", **options}
    keras.utils.set_random_seed(0)  # the same weights whichever test asks first
    return randomized(zoo.create_model(name, num_classes=CLASSES, **options))


def custom_tagger(backbone, frontend=None, channels=None):
    """Return a model with this backbone between front-end and classifier."""
    shape = (None,) if channels is None else (None, channels)
    waveform = keras.Input(shape)
    x = backbone((frontend or small_frontend())(waveform))
    return randomized(keras.Model(waveform, ClipLogits()(keras.layers.Conv2D(CLASSES, 1)(x))))


def music(samples, channels=1, seed=0):
    """Return noise that swells and stops, from full scale to below the floor."""
    rng = np.random.default_rng(seed)
    swells = 10 ** rng.uniform(-6, 0, 2 + samples // 800)
    level = np.interp(np.arange(samples) / 800, np.arange(len(swells)), swells)
    level[rng.random() * samples < np.arange(samples) - samples // 2] = 0
    noise = rng.uniform(-0.9, 0.9, (samples, channels)) * level[:, None]
    return (noise if channels > 1 else noise[:, 0]).astype(np.float32)


def split_randomly(waveform, pieces, seed=0):
    """Split a waveform into consecutive blocks of random sizes, some of them empty."""
    rng = np.random.default_rng(seed)
    return np.split(waveform, np.sort(rng.integers(0, len(waveform) + 1, pieces - 1)))
