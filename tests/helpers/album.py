"""Pages of songs with known scores, made without a model, for a browser to open.

This module needs NumPy only, so that the tests run in a small environment.
"""

from __future__ import annotations

import wave
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from rfkeras.audio.find import FoundFile
from rfkeras.inference.html_pages import HtmlPages, Picture
from rfkeras.inference.output import Outcome, TagRules

LABELS = ("violin", "drums", 'voice, "high"', "<b>&amp;</b>")
THRESHOLDS = (0.5, 0.4, 0.3, 0.9)
JOB = SimpleNamespace(model="a-model", digest="0123456789ab", check=lambda *_: None)


@dataclass(frozen=True)
class Times:
    """Frames of half a second, the first centred at 0.25 s."""

    stride_ms: float = 500.0
    first_ms: float = 250.0
    window_ms: float | None = 1000.0

    def centres_ms(self, n):
        return self.first_ms + self.stride_ms * np.arange(n)

    def starts_ms(self, n):
        return np.maximum(self.centres_ms(n) - self.stride_ms / 2, 0)

    def ends_ms(self, n):
        return self.centres_ms(n) + self.stride_ms / 2


def rules(labels=LABELS, thresholds=THRESHOLDS, *, exclusive=False):
    """Return the rules of a model with these tags."""
    limits = None if exclusive else np.asarray(thresholds, np.float64)
    return TagRules("runs/a-model", tuple(labels), limits, exclusive, 22050, Times())


def write_wav(path: Path, seconds: float, rate_hz: int = 8000) -> None:
    """Write a quiet tone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    samples = (3000 * np.sin(2 * np.pi * 220 * t)).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(samples.tobytes())


def outcome(path: Path, inside: str, seconds: float, scores, frame_scores, notes=()) -> Outcome:
    """Return the outcome of a song with these scores."""
    result = SimpleNamespace(
        seconds=seconds,
        scores=np.asarray(scores, np.float32),
        frame_scores=np.asarray(frame_scores, np.float32),
        notes=tuple(notes),
    )
    return Outcome(FoundFile(path, Path(inside)), result)


def picture(song: Outcome) -> Picture:
    """Return a spectrogram with a tone that rises over the song."""
    columns, bands = 300, 64
    at = np.arange(columns)[:, None] / columns * bands
    pixels = -60 + 50 * np.exp(-(((np.arange(bands) - at) / 4) ** 2))
    return Picture(pixels, -0.01, song.result.seconds + 0.01)


def write_pages(folder: Path, outcomes, the_rules, picture_of=picture, **options) -> HtmlPages:
    """Write the pages of an album."""
    pages = HtmlPages(folder, [each.file for each in outcomes], JOB, **options)
    with pages.writing(the_rules, picture_of) as write:
        for each in outcomes:
            write(each)
    return pages
