"""gm_instruments, the embedded default data set: 20 instruments, composed and rendered here.

Music is composed by rules from a seed, played by a General MIDI sound font, and written in
the OpenMIC-2018 folder layout. No download is needed. docs/gm_instruments.md says how the
music is made, and which approximations it contains.
"""

from rfkeras.synthesis.compose import LABEL_RATE, VERSION
from rfkeras.synthesis.generate import CACHE_VARIABLE, DEFAULT_SIZE, default_cache_dir, generate
from rfkeras.synthesis.mapping import CLASSES

__all__ = [
    "CACHE_VARIABLE",
    "CLASSES",
    "DEFAULT_SIZE",
    "LABEL_RATE",
    "VERSION",
    "default_cache_dir",
    "generate",
]
