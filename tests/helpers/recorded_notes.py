"""Tables of recorded notes, made of tones."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

RATE_HZ = 32000


def hertz(pitch: float) -> float:
    """Return the frequency of a MIDI pitch."""
    return float(440 * 2 ** ((pitch - 69) / 12))


def tone(
    pitch: float, seconds: float = 1.0, silence_s: float = 0.05, decay_s: float | None = None
) -> NDArray[np.float32]:
    """Return silence and a sine of amplitude 0.5, which decays by 1/e in `decay_s`."""
    time = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    wave = 0.5 * np.cos(2 * np.pi * hertz(pitch) * time)
    if decay_s is not None:
        wave *= np.exp(-time / decay_s)
    return np.concatenate((np.zeros(round(silence_s * RATE_HZ)), wave)).astype(np.float32)


def write_table(
    folder: Path, rows: Iterable[tuple[Mapping[str, object], NDArray[np.float32]]]
) -> Path:
    """Write one WAV file per row and the table; return the table's path.

    A row without path gets one, and one without recording the recording "own".
    """
    folder.mkdir(parents=True, exist_ok=True)
    cells: list[dict[str, object]] = []
    for number, (row, samples) in enumerate(rows):
        cell = {"path": f"{number:03d}.wav", "recording": "own", **row}
        soundfile.write(folder / str(cell["path"]), samples, RATE_HZ, subtype="FLOAT")
        cells.append(cell)
    columns = sorted({name for cell in cells for name in cell})
    table = folder / "notes.csv"
    with table.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(cells)
    return table
