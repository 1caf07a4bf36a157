"""Small taggers whose numbers hide no error, and audio that shows them."""

import functools

import keras
import numpy as np

import zoo
from rfkeras.frontend import Frontend
from rfkeras.layers import ClipLogits

RATE_HZ = 4000
CLASSES = 3

# Weights that start at 0 or 1 would make a wrong mean or a forgotten layer invisible.
_DRAWN = {
    "moving_mean": lambda rng, shape: rng.normal(0, 0.3, shape),
    "moving_variance": lambda rng, shape: rng.uniform(0.5, 2, shape),
    "beta": lambda rng, shape: rng.normal(0, 0.5, shape),
    "gamma": lambda rng, shape: rng.uniform(0.5, 1, shape),
    "mean_db": lambda rng, shape: rng.normal(-20, 3, shape),
    "std_db": lambda rng, shape: rng.uniform(8, 14, shape),
    "attention_kernel": lambda rng, shape: rng.normal(0, 0.3, shape),
}


def small_frontend(**options):
    """A front-end that costs little: a second of audio is 62 frames of 24 bands."""
    sizes = {"n_fft": 256, "window_samples": 256, "hop_samples": 64, "n_mels": 24}
    return Frontend(RATE_HZ, **{"fixed_floor": True, **sizes, **options})


def drawn(model, seed=0):
    """The model, with statistics and other weights as training might leave them."""
    rng = np.random.default_rng(seed)
    for variable in model.variables:
        draw = _DRAWN.get(variable.path.rpartition("/")[2])
        if draw is not None:
            variable.assign(draw(rng, variable.shape))
    return model


@functools.cache
def zoo_tagger(name, **options):
    """A network of the zoo, made small."""
    options = {"frontend": small_frontend(), "initialization": "he", **options}
    return drawn(zoo.create_model(name, num_classes=CLASSES, **options))


def own_tagger(trunk, frontend=None, channels=None):
    """A model with this trunk between front-end and classifier."""
    shape = (None,) if channels is None else (None, channels)
    waveform = keras.Input(shape)
    x = trunk((frontend or small_frontend())(waveform))
    return drawn(keras.Model(waveform, ClipLogits()(keras.layers.Conv2D(CLASSES, 1)(x))))


def music(samples, channels=1, seed=0):
    """Noise that swells and stops, from full scale down to under the floor."""
    rng = np.random.default_rng(seed)
    swells = 10 ** rng.uniform(-6, 0, 2 + samples // 800)
    level = np.interp(np.arange(samples) / 800, np.arange(len(swells)), swells)
    level[rng.random() * samples < np.arange(samples) - samples // 2] = 0
    noise = rng.uniform(-0.9, 0.9, (samples, channels)) * level[:, None]
    return (noise if channels > 1 else noise[:, 0]).astype(np.float32)


def cut(waveform, pieces, seed=0):
    """The waveform in so many consecutive blocks of random sizes, some of them empty."""
    rng = np.random.default_rng(seed)
    return np.split(waveform, np.sort(rng.integers(0, len(waveform) + 1, pieces - 1)))
