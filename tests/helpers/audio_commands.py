"""A tagger and a few songs for the tests of `rfkeras tag` and `rfkeras embed`."""

import keras
import numpy as np
import soundfile

import zoo
from rfkeras.frontend import create_frontend
from zoo.pretrained import load_model

LABELS = ("violin", 'drums, "kit"', "voice")
THRESHOLDS = (0.5, 0.48, 0.99)
SECONDS = {"low.wav": 1.0, 'b/hi, "there".flac': 2.5, "c/Bj\u00f6rk \u2603.ogg": 4.0}


def make_songs(root):
    """Write three songs in a tree of folders, and a text file next to them."""
    rng = np.random.default_rng(0)
    for i, (name, seconds) in enumerate(SECONDS.items()):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        t = np.arange(int(seconds * 22050)) / 22050
        tone = 0.3 * np.sin(2 * np.pi * 200 * 3**i * t) + 0.02 * rng.normal(size=t.size)
        soundfile.write(root / name, tone.astype("float32"), 22050)
    (root / "notes.txt").write_text("no audio")
    return root


def make_model(path):
    """Write and load a tiny tagger that gives chunks the same scores as whole files."""
    keras.utils.set_random_seed(1)  # some random networks give all songs the same embedding
    frontend = create_frontend("perceptual_mel_22k", fixed_floor=True)
    model = zoo.create_model(
        "resnet_rf_tiny",
        label_names=LABELS,
        rho=1,
        width=4,
        frontend=frontend,
        initialization="he",
    )
    frontend.mean_db.assign(np.full(frontend.n_mels, -30, "float32"))
    frontend.std_db.assign(np.full(frontend.n_mels, 20, "float32"))
    model.head.thresholds = THRESHOLDS
    model.save(path)
    return load_model(path)


def expected(model, path):
    """Return clip scores, frame scores, embedding and frame embeddings of one pass."""
    samples, _ = soundfile.read(path, dtype="float32")
    reading = model.read(samples[None])
    return (
        np.array(model.head.scores(reading.logits))[0],
        np.array(model.head.scores(reading.frame_logits))[0],
        np.array(reading.embedding)[0],
        np.array(reading.frame_embeddings)[0],
    )
