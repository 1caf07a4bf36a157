"""Process that makes clips: it reads clip numbers and answers each with a line of JSON.

    python -m rfkeras.synthesis.render_worker FOLDER

The first line of standard input is the maker as JSON; see `clip_maker`. The process
ends when its standard input does, so it does not outlive a parent that was killed.
"""

from __future__ import annotations

import hashlib
import json
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rfkeras.errors import RFKerasError
from rfkeras.synthesis.clip_files import audio_path, clip_key
from rfkeras.synthesis.compose import compose
from rfkeras.synthesis.render import SAMPLE_RATE_HZ, encode_ogg, load_sound_font, render
from rfkeras.utils.files import write_bytes


def main(arguments: list[str]) -> None:
    """Make clips until standard input ends."""
    # Ctrl-C reaches every process of the terminal; the parent handles it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    folder, maker = Path(arguments[0]), json.loads(sys.stdin.readline())
    make: Callable[[int], bytes] | None = None
    for line in sys.stdin:
        index = int(line)
        try:
            if make is None:
                make = clip_maker(maker)
            content = make(index)
            write_bytes(folder / audio_path(clip_key(maker["seed"], index)), content)
            answer = {"sha256": hashlib.sha256(content).hexdigest()}
        except (RFKerasError, OSError) as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), flush=True)


def clip_maker(maker: Mapping[str, Any]) -> Callable[[int], bytes]:
    """Return a function from the number of a clip to its Ogg file.

    Args:
        maker: kind and seed; for the kind "gm_instruments" also fonts, the paths of sound
            fonts: clip number n is rendered with font n modulo their number. For "ensembles",
            see `ensemble_clips.Settings`.
    """
    if maker["kind"] == "ensembles":
        # Not at the top: this needs packages that the built-in data set does not.
        from rfkeras.synthesis.ensemble_clips import ensemble_maker

        return ensemble_maker(maker)
    seed, fonts = maker["seed"], [Path(path) for path in maker["fonts"]]

    def make(index: int) -> bytes:
        font = load_sound_font(fonts[index % len(fonts)])
        return encode_ogg(render(compose(seed, index), font), SAMPLE_RATE_HZ)

    return make


if __name__ == "__main__":
    main(sys.argv[1:])
