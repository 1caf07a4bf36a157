"""Process that makes clips: it reads clip numbers and answers each with a line of JSON.

    python -m rfkeras.synthesis.render_worker FOLDER SEED SOUND_FONT...

Clip number n is rendered with sound font n modulo the number of fonts. The process ends when
its standard input does, so it does not outlive a parent that was killed.
"""

from __future__ import annotations

import hashlib
import json
import signal
import sys
from pathlib import Path

from rfkeras.errors import RFKerasError
from rfkeras.synthesis.compose import compose
from rfkeras.synthesis.generate import audio_path, clip_key
from rfkeras.synthesis.render import (
    SAMPLE_RATE_HZ,
    SoundFont,
    encode_ogg,
    load_sound_font,
    render,
)
from rfkeras.utils.files import write_bytes


def main(arguments: list[str]) -> None:
    """Make clips until standard input ends."""
    # Ctrl-C reaches every process of the terminal; the parent handles it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    folder, seed = Path(arguments[0]), int(arguments[1])
    fonts = [Path(path) for path in arguments[2:]]
    for line in sys.stdin:
        index = int(line)
        try:
            font = load_sound_font(fonts[index % len(fonts)])
            answer = {"sha256": make_clip(folder, seed, index, font)}
        except (RFKerasError, OSError) as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), flush=True)


def make_clip(folder: Path, seed: int, index: int, font: SoundFont) -> str:
    """Compose, render and store one clip.

    Args:
        folder: The openmic-2018 folder.
        seed: Seed of the data set.
        index: Number of the clip.
        font: Sound font.

    Returns:
        SHA-256 of the written file.
    """
    content = encode_ogg(render(compose(seed, index), font), SAMPLE_RATE_HZ)
    write_bytes(folder / audio_path(clip_key(seed, index)), content)
    return hashlib.sha256(content).hexdigest()


if __name__ == "__main__":
    main(sys.argv[1:])
