"""Files of spectrograms as `tools.feature_parts` writes them."""

import numpy as np

from tools.feature_parts import BLOCK_CLIPS, Features, Scale, compress, write_part

SCALE = Scale(
    "perceptual_mel_22k", 80.0, 0.5, -26.0, (0.1, 0.0, 2.0), (1.0, 2.0, -3.0), ("a", "b")
)


def features(clips, first=0, scale=SCALE):
    """Return clips of noise with two tags, named from `first`."""
    rng = np.random.default_rng(first)
    return Features(
        rng.integers(0, 256, (clips, 7, 3)).astype("uint8"),
        rng.integers(0, 2, (clips, 2)).astype("float16"),
        rng.integers(0, 2, (clips, 2)).astype(bool),
        (np.arange(clips) % 3).astype("uint8"),
        np.array([f"clip{first + number}" for number in range(clips)]),
        scale,
    )


def write(path, part):
    """Write a part; return its path."""
    blocks = [
        compress(part.steps[first : first + BLOCK_CLIPS])
        for first in range(0, len(part), BLOCK_CLIPS)
    ]
    write_part(path, part, blocks)
    return path
