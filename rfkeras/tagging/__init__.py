"""Tags and embeddings of audio of any length, computed in chunks.

What imports a framework is imported on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from rfkeras.tagging.frames import FrameTimes
from rfkeras.tagging.result import Piece, TagResult

if TYPE_CHECKING:
    from rfkeras.tagging.engine import StreamTagger
    from rfkeras.tagging.grid import frame_times

__all__ = ["FrameTimes", "Piece", "StreamTagger", "TagResult", "frame_times"]

_LAZY = {"StreamTagger": "engine", "frame_times": "grid"}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f"rfkeras.tagging.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
