"""Tags and embeddings of audio of any length, computed in chunks.

Modules that need TensorFlow are imported on first use.
"""

from typing import TYPE_CHECKING

from rfkeras.utils.lazy import lazy_attributes

if TYPE_CHECKING:
    from rfkeras.inference.chunks import FrameTimes
    from rfkeras.inference.engines import OnnxTagger, open_tagger
    from rfkeras.inference.frames import frame_times
    from rfkeras.inference.keras_tagger import StreamTagger
    from rfkeras.inference.stream import ChunkTagger, Piece, TagResult

__all__ = [
    "ChunkTagger",
    "FrameTimes",
    "OnnxTagger",
    "Piece",
    "StreamTagger",
    "TagResult",
    "frame_times",
    "open_tagger",
]

__getattr__ = lazy_attributes(
    __name__,
    {
        "FrameTimes": "rfkeras.inference.chunks",
        "frame_times": "rfkeras.inference.frames",
        "open_tagger": "rfkeras.inference.engines",
        "ChunkTagger": "rfkeras.inference.stream",
        "OnnxTagger": "rfkeras.inference.engines",
        "Piece": "rfkeras.inference.stream",
        "StreamTagger": "rfkeras.inference.keras_tagger",
        "TagResult": "rfkeras.inference.stream",
    },
)
