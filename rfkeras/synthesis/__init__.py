"""gm_instruments, the built-in data set: music with 20 instruments, composed and rendered.

Rules compose the music from a seed, a General MIDI sound font plays it, and the result is
written in the folder layout of OpenMIC-2018. Nothing is downloaded. docs/gm_instruments.md
describes how the music is made and its limitations.
"""

from rfkeras.synthesis.compose import LABEL_RATE, VERSION
from rfkeras.synthesis.generate import DEFAULT_SIZE, generate
from rfkeras.synthesis.mapping import CLASSES
from rfkeras.utils.files import CACHE_VARIABLE, default_cache_dir

__all__ = [
    "CACHE_VARIABLE",
    "CLASSES",
    "DEFAULT_SIZE",
    "LABEL_RATE",
    "VERSION",
    "default_cache_dir",
    "generate",
]
