"""Process that makes clips: numbers of clips on standard input, a JSON line for each back.

    python -m rfkeras.synthesis.render_worker FOLDER SEED SOUND_FONT...

Clip number n is rendered with sound font n modulo their number. The process ends with its
standard input, so it does not outlive a parent that was killed.
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
from rfkeras.synthesis.render import SAMPLE_RATE_HZ, SoundFont, encode, load, render
from rfkeras.utils.files import write_bytes


def make_clip(folder: Path, seed: int, index: int, font: SoundFont) -> str:
    """Compose, render and store one clip.

    Args:
        folder: The openmic-2018 folder.
        seed: Seed of the data set.
        index: Number of the clip.
        font: Sound font.

    Returns:
        sha256 of the file written.
    """
    content = encode(render(compose(seed, index), font), SAMPLE_RATE_HZ)
    write_bytes(folder / audio_path(clip_key(seed, index)), content)
    return hashlib.sha256(content).hexdigest()


def main(arguments: list[str]) -> None:
    """Serve until standard input ends."""
    # Ctrl-C reaches every process of the terminal; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    folder, seed = Path(arguments[0]), int(arguments[1])
    fonts = [Path(path) for path in arguments[2:]]
    for line in sys.stdin:
        index = int(line)
        try:
            font = load(fonts[index % len(fonts)])
            answer = {"sha256": make_clip(folder, seed, index, font)}
        except (RFKerasError, OSError) as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
