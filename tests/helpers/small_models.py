"""Small networks whose statistics and weights give varied scores."""

import keras
import numpy as np

import zoo
from rfkeras.layers.conv import MOMENTUM
from rfkeras.layers.conv import BatchNormalization as Normalization

LABELS = ("flute", "voice", "organ", "drums")
SMALL = {
    "width": 4,
    "rho": 1,
    "blocks": (1, 1, 1),  # one pooling remains: 4 spectrogram frames per output frame
    "allow_rf_change": True,
    "initialization": "he",
}
COMPARABLE = 2
VARIANT = {  # all options at once, on stereo
    "shake": True,
    "frequency_aware": True,
    "damping": 0.1,
    "frontend": "mel_32k",
    "input_channels": 2,
}


def noise(*shape, seed=1):
    """Return random noise."""
    return np.random.default_rng(seed).normal(0, 0.1, shape).astype("float32")


def music(samples, *channels, seed=0):
    """Return tones that start and stop, over soft noise."""
    rng = np.random.default_rng(seed)
    t = np.arange(samples)
    tones = np.zeros(samples)
    for turns, pace in zip(rng.uniform(0.003, 0.2, 5), rng.uniform(800, 4e3, 5), strict=True):
        tones += np.sin(2 * np.pi * turns * t) * (np.sin(t / pace) > 0)
    x = 0.1 * tones.reshape(-1, *(1 for _ in channels)) + 0.001 * rng.normal(
        size=(samples, *channels)
    )
    return x.astype("float32")


def small(name="resnet_rf", **options):
    """Return a network whose normalisations are fitted to some audio."""
    keras.utils.set_random_seed(0)
    defaults = SMALL if name == "resnet_rf" else {"initialization": "he"}
    model = zoo.create_model(name, label_names=LABELS, **{**defaults, **options})
    channels = (2,) if options.get("input_channels") == 2 else ()
    if options.get("frontend", "") is None:
        batch = noise(2, 64, 64, 1) * 10
    else:
        batch = np.stack([music(22050, *channels, seed=s) for s in range(3)])
    norms = [each for each in model._flatten_layers() if isinstance(each, Normalization)]
    for norm in norms:
        norm.momentum = 0.0  # one batch sets the statistics
    model(batch, training=True)
    for norm in norms:
        norm.momentum = MOMENTUM
    model.get_layer("classifier_bn").gamma.assign(2 * np.ones(len(LABELS)))
    model.get_layer("classifier_bn").beta.assign([-0.5, 0.0, 0.5, 1.0])
    return model


def trials(model):
    """Return stereo batches different from the export's own, each with the model's outputs.

    They have several lengths and sizes. The first `COMPARABLE` are similar to the calibration,
    which int8 needs: random weights leave no margin.
    """
    batches = (
        music(33333, 2, seed=9)[None],
        np.stack([music(20000, 2, seed=seed) for seed in (10, 11)]),
        noise(3, 15000, 2),
        noise(1, 50, 2),
    )
    return [
        (batch, model.scores(batch), model.scores(batch, per="frame"), model.embed(batch))
        for batch in batches
    ]


def compare_outputs(run, trials, precision, tolerance):
    """Compare what `run` returns for `trials` with the model's outputs."""
    for batch, scores, frames, embedding in trials[
        : COMPARABLE if precision == "int8" else None
    ]:
        outputs = run(batch)
        assert outputs["scores"].shape == (len(batch), len(LABELS))
        np.testing.assert_allclose(outputs["scores"], scores, atol=tolerance)
        of_frames = tolerance if precision == "float32" else 2 * tolerance
        np.testing.assert_allclose(outputs["frame_scores"], frames, atol=of_frames)
        largest = np.abs(embedding).max()
        np.testing.assert_allclose(
            outputs["embedding"], embedding, atol=3 * tolerance * largest
        )
