"""What a soak trains on and tags."""

from __future__ import annotations

from pathlib import Path

CLIPS = 1000
_SHORT_OPTIONS = "--rho 1 --width 4 --batch-size 4 --excerpt-seconds 0.5 --test-share 0.3"


def embedded(size: int = CLIPS) -> tuple[list[str], list[Path]]:
    """The embedded data set: options of `train.py`, and its audio files."""
    from rfkeras.synthesis import default_cache_dir, generate

    folder = generate(default_cache_dir(), size=size)
    return ["--dataset-size", str(size)], sorted(folder.glob("audio/**/*.ogg"))


def tones(folder: Path) -> tuple[list[str], list[Path]]:
    """Two classes of tones of half a second, to see only that a soak runs."""
    import numpy as np
    import soundfile

    seconds = np.arange(11_025) / 22_050
    for name, hz in (("low", 200.0), ("high", 2000.0)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(8):
            tone = 0.2 * np.sin(2 * np.pi * (hz + 10 * number) * seconds)
            soundfile.write(folder / name / f"{number}.wav", tone, 22_050)
    options = ["--dataset", "folder", "--data-dir", str(folder), *_SHORT_OPTIONS.split()]
    return options, sorted(folder.rglob("*.wav"))
