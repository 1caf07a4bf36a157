"""Static pages of tagged songs: one HTML file per song, and an index.

The pages open from the disk, without a server or a network: all data is in the HTML, style and
scripts are files next to it.

    out/index.html               table of songs and tags
    out/songs/ALBUM/SONG.html    player, spectrogram, tags over time
    out/assets/                  style and scripts of all pages
    out/audio/ALBUM/SONG         the sound, if it is copied
"""

from __future__ import annotations

import base64
import html
import json
import math
import os
import re
import shutil
import struct
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files as package_files
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from rfkeras import __version__
from rfkeras.audio.find import FoundFile, output_paths
from rfkeras.errors import ConfigError
from rfkeras.inference.output import (
    Outcome,
    Scores,
    Stamp,
    TagRules,
    Write,
    as_json,
    column_maxima,
    frame_scores_of,
    rounded,
    shared_output,
)
from rfkeras.utils.files import atomic_write, malformed, sole_writer, write_bytes
from rfkeras.utils.remote import RemotePath, local_copy
from rfkeras.utils.text import count, printable

if TYPE_CHECKING:
    from rfkeras.frontend.presets import SpectrogramScale
    from rfkeras.inference import ChunkTagger, TagResult
    from rfkeras.inference.batch import Job

MOST_COLUMNS = 2000  # of the map; with more than 200 tags, fewer
ASSETS = ("page.css", "theme.js", "song.js", "index.js")
PLAYER = (
    '<audio id="audio" controls preload="metadata" aria-label="Sound" src="$audio"></audio>'
)
_MOST_VALUES = 400_000  # scores in a page, one byte each
_LEAST_COLUMNS = 100
_PICTURE_COLUMNS = 1200
_MOST_BANDS = 128  # rows of the spectrogram
_GREYS = 64  # a few are enough for the eye, and compress well
_TICKS_HZ = (200, 500, 1000, 2000, 5000)
_QUIET_PERCENTILE, _LOUD_PERCENTILE = 2.0, 99.8
_SCORE_DIGITS, _TIME_DIGITS = 4, 3
_INDEX_SECONDS = 10.0  # between two writes of the index, unless they take long
_INDEX_DATA = re.compile(rb'<script id="data" type="application/json">(.*?)</script>', re.S)

# For scripts that make the same pages; see `rfkeras.inference.web_page`.
PAGE_NUMBERS = {
    "most_columns": MOST_COLUMNS,
    "most_values": _MOST_VALUES,
    "least_columns": _LEAST_COLUMNS,
    "picture_columns": _PICTURE_COLUMNS,
    "most_bands": _MOST_BANDS,
    "greys": _GREYS,
    "quiet_percentile": _QUIET_PERCENTILE,
    "loud_percentile": _LOUD_PERCENTILE,
    "score_digits": _SCORE_DIGITS,
    "time_digits": _TIME_DIGITS,
}

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Picture:
    """A spectrogram.

    Attributes:
        pixels: (columns, mel bands) dB.
        start_s: Time of the left edge, in seconds; negative, because frames are centred.
        stop_s: Time of the right edge.
        ticks: (height, text) of labels of the frequency; the height is 0 at the bottom edge and
            1 at the top edge.
    """

    pixels: NDArray[np.float64]
    start_s: float
    stop_s: float
    ticks: tuple[tuple[float, str], ...] = ()


def song_picture(tagger: ChunkTagger, outcome: Outcome) -> Picture:
    """Return the spectrogram of a file by the model's own front-end.

    Reads the file again, in blocks, so memory does not grow with its length.
    """
    scale = tagger.scale
    half_s = scale.hop_ms / 2000
    seconds = 0.0 if outcome.result is None else outcome.result.seconds
    pixels = tagger.file_spectrogram(outcome.file.path, _PICTURE_COLUMNS)
    return Picture(pixels, -half_s, max(seconds, 2 * half_s) + half_s, frequency_ticks(scale))


def frequency_ticks(scale: SpectrogramScale) -> tuple[tuple[float, str], ...]:
    """Return the labels of the frequency; see `Picture.ticks`."""
    heights = [(scale.band_of_hz(hz) + 0.5) / scale.n_mels for hz in _TICKS_HZ]
    return tuple(
        (round(at, 4), f"{hz} Hz" if hz < 1000 else f"{hz // 1000} kHz")
        for at, hz in zip(heights, _TICKS_HZ, strict=True)
        if 0 < at < 1
    )


class HtmlPages:
    """The pages of a job.

    A song that cannot be used has no page; the index lists it with the reason. The index is
    written at the start, at the end and in between, so it is valid after an interruption.

    Args:
        folder: Where the pages are written.
        files: All files of the job, also those that are done.
        job: The job.
        copy_audio: Copy the sounds into the folder; otherwise pages refer to them where they
            are, relative to the page.
        resume: Keep the songs of an earlier job that are in the index.

    Attributes:
        replaced: Number of files that were replaced since they were tagged.
        unstamped: 0; all records have size and time.

    Raises:
        ConfigError: The folder is remote or a file, a file to tag is a copy in it, or its index
            was not written by this class or, to resume, by another job.
    """

    def __init__(
        self,
        folder: Path,
        files: Sequence[FoundFile],
        job: Job,
        *,
        copy_audio: bool = False,
        resume: bool = False,
    ) -> None:
        if isinstance(folder, RemotePath):
            raise ConfigError(f"--html must be a folder on this machine. Received: {folder}.")
        if folder.exists() and not folder.is_dir():
            raise ConfigError(f"--html {printable(folder)} is not a folder.")
        copies = (folder / "audio").absolute()
        if copied := next((f for f in files if f.path.absolute().is_relative_to(copies)), None):
            raise ConfigError(
                f"{copied.name} is a copy that --copy-audio made. Choose an --html folder "
                "outside of the folders that are tagged."
            )
        self.folder = folder
        self.index = folder / "index.html"
        self.replaced = self.unstamped = 0
        self._job = job
        self._copy_audio = copy_audio
        names = [file.name for file in files]
        pages = output_paths(folder / "songs", files, ".html")
        self._pages = dict(zip(names, pages, strict=True))
        sounds = output_paths(folder / "audio", files, "")
        self._sounds = dict(zip(names, sounds, strict=True))
        self._order = {link(page, folder): at for at, page in enumerate(pages)}
        self._rows = self._earlier_rows(resume)  # of the index, by page
        self._written = (-math.inf, 0.0)  # when the index was written, how long it took

    def finished(self, file: FoundFile) -> bool:
        """Return whether a file has a page that was made from its present content."""
        row = self._rows.get(link(self._pages[file.name], self.folder))
        if row is None or not self._pages[file.name].is_file():
            return False
        if self._copy_audio and not self._sounds[file.name].is_file():
            return False
        stamp = Stamp.recorded(row)
        replaced = stamp is not None and stamp.is_older(file)
        self.replaced += replaced
        return not replaced

    @contextmanager
    def writing(
        self, rules: TagRules, picture: Callable[[Outcome], Picture]
    ) -> Iterator[Write]:
        """Write the pages of outcomes whose results have frames.

        Args:
            rules: The tags and their rules.
            picture: Returns the spectrogram of an outcome.

        Yields:
            A function that writes the page of one outcome.
        """
        kept = "Finished pages are kept; resume with --skip-existing."
        with sole_writer(self.folder / ".index.html.lock", self.folder):
            with shared_output(self.folder, kept):
                for name in ASSETS:
                    write_bytes(self.folder / "assets" / name, asset(name))
                self._write_index(rules)

            def write(outcome: Outcome) -> None:
                row = self._row(rules, outcome)
                if outcome.result is not None:
                    self._write_page(rules, outcome, picture(outcome))
                self._rows[row["page"]] = row
                when, took = self._written
                if time.monotonic() - when > max(_INDEX_SECONDS, 20 * took):
                    with shared_output(self.index, kept):
                        self._write_index(rules)

            try:
                yield write
            finally:
                with shared_output(self.index, kept):
                    self._write_index(rules)

    def _row(self, rules: TagRules, outcome: Outcome) -> dict[str, Any]:
        """Return the row of the index for a file."""
        file, result = outcome.file, outcome.result
        row: dict[str, Any] = {
            "name": printable(file.inside.as_posix()),
            "page": link(self._pages[file.name], self.folder),
        }
        if result is None:
            return row | {"error": printable(outcome.error or "")}
        row |= {
            "audio": self._audio_link(file, self.folder),
            "seconds": round(result.seconds, _TIME_DIGITS),
            "scores": rounded(result.scores, _SCORE_DIGITS),
            "applies": [int(tag) for tag in np.flatnonzero(rules.applies(result.scores))],
        }
        if outcome.notes:
            row["notes"] = [printable(note) for note in outcome.notes]
        return row if outcome.stamp is None else row | outcome.stamp.fields()

    def _audio_link(self, file: FoundFile, folder: Path) -> str | None:
        """Return the link from a page in a folder to the sound; None if it is remote."""
        if self._copy_audio:
            return link(self._sounds[file.name], folder)
        return None if isinstance(file.path, RemotePath) else link(file.path, folder)

    def _write_page(self, rules: TagRules, outcome: Outcome, picture: Picture) -> None:
        """Write the page of a song, after its sound if that is copied."""
        assert outcome.result is not None
        page = self._pages[outcome.file.name]
        if self._copy_audio:
            with local_copy(outcome.file.path) as source:
                _copy(source, self._sounds[outcome.file.name])
        audio = self._audio_link(outcome.file, page.parent)
        write_bytes(page, song_page(rules, outcome, picture, audio, page, self.folder))

    def _write_index(self, rules: TagRules) -> None:
        start = time.monotonic()
        # Songs of earlier jobs first, then those of this one in the order of the command.
        rows = sorted(self._rows.values(), key=lambda row: self._order.get(row["page"], -1))
        write_bytes(self.index, index_page(rules, rows, self._job))
        end = time.monotonic()
        self._written = end, end - start

    def _earlier_rows(self, resume: bool) -> dict[str, dict[str, Any]]:
        """Return the rows of songs in the index that an earlier job wrote; none without resume.

        A row of an error is dropped, because its file is read again.
        """
        if not self.index.exists():
            return {}
        where = printable(self.index)
        try:
            with malformed():
                found = _INDEX_DATA.search(self.index.read_bytes())
                content = json.loads(found[1] if found is not None else b"")
                rows = {row["page"]: row for row in content["songs"] if "error" not in row}
                _ = content["model"], content["job"]
        except ValueError as error:
            raise ConfigError(
                f"{where} was not written by `rfkeras tag --html`. Choose another folder."
            ) from error
        if not resume:
            return {}
        self._job.check(content, where)
        return rows


def song_page(
    rules: TagRules,
    outcome: Outcome,
    picture: Picture,
    audio: str | None,
    page: Path,
    folder: Path,
) -> bytes:
    """Return the page of a song.

    Args:
        rules: The tags and their rules.
        outcome: The file and its result, with frames.
        picture: Its spectrogram.
        audio: Link to the sound; None for a page without.
        page: Where the page will be.
        folder: Folder of the index.
    """
    result = outcome.result
    assert result is not None
    data = song_data(rules, result)
    data["picture"] = {
        "start_s": picture.start_s,
        "stop_s": picture.stop_s,
        "ticks": picture.ticks,
    }
    player = '<p class="trouble">The sound is not on this machine; tag with --copy-audio.</p>'
    if audio is not None:
        player = Template(PLAYER).substitute(audio=html.escape(audio))
    column_s = data["stride_s"] * data["frames_per_column"]
    notes = "".join(f"<li>{html.escape(printable(note))}</li>" for note in outcome.notes)
    return filled(
        "song.html",
        title=html.escape(printable(outcome.file.inside.name)),
        about=html.escape(about_tags(rules)),
        notes=f'<ul class="trouble" aria-label="Notes">{notes}</ul>' if notes else "",
        player=player,
        index=html.escape(link(folder / "index.html", page.parent)),
        assets=html.escape(link(folder / "assets", page.parent)),
        whole_seconds=str(math.floor(result.seconds)),
        resolution=f"One column is {column_s:.2g} s.",
        picture=base64.b64encode(png(shades(picture.pixels))).decode(),
        data=embedded(data),
    )


def about_tags(rules: TagRules) -> str:
    """Return how many tags of which model a page shows."""
    model = printable("/".join(Path(rules.model).parts[-2:]))
    return f"{count(len(rules.names), 'tag')}, {model}"


def song_data(rules: TagRules, result: TagResult) -> dict[str, Any]:
    """Return what the script of a song's page reads.

    Returns:
        `tags`, the most important first: `name`, `score`, `threshold` (None if classes are
        mutually exclusive) and whether the tag `applies`. `frames`, their scores over time,
        (tags, columns) in base64, see `quantised`. Column i begins at frame
        i * `frames_per_column`, and frame j at `start_s` + j * `stride_s`.
    """
    order = rules.ranking(result)
    applies = rules.applies(result.scores)
    scores = frame_scores_of(result)
    most = max(_LEAST_COLUMNS, min(MOST_COLUMNS, _MOST_VALUES // len(order)))
    columns, frames_per_column = column_maxima(quantised(rules, scores)[:, order], most)
    limits = rules.thresholds
    tags = [
        {
            "name": rules.names[tag],
            "score": round(float(result.scores[tag]), _SCORE_DIGITS),
            "threshold": None if limits is None else float(limits[tag]),
            "applies": bool(applies[tag]),
        }
        for tag in order
    ]
    return {
        "seconds": result.seconds,
        "exclusive": rules.exclusive,
        "tags": tags,
        "columns": len(columns),
        "n_frames": len(scores),
        "frames_per_column": frames_per_column,
        "start_s": (rules.frames.first_ms - rules.frames.stride_ms / 2) / 1000,
        "stride_s": rules.frames.stride_ms / 1000,
        "frames": base64.b64encode(columns.T.tobytes()).decode(),
    }


def quantised(rules: TagRules, scores: Scores) -> Bytes:
    """Return scores (frames, tags) as whole numbers from 0 to 255.

    They are within 1/255 of the scores, and on the same side of the thresholds: a tag applies
    if its number is at least ceil(255 * threshold).
    """
    values = np.rint(scores.astype(np.float64) * 255)
    if rules.thresholds is not None:
        lowest = np.ceil(rules.thresholds * 255 - 1e-6)
        above = scores >= rules.thresholds.astype(scores.dtype)
        values = np.where(above, np.maximum(values, lowest), np.minimum(values, lowest - 1))
    numbers: Bytes = np.clip(values, 0, 255).astype(np.uint8)
    return numbers


def shades(pixels: NDArray[np.float64]) -> Bytes:
    """Return the image of a spectrogram (columns, bands): loud is dark, high is at the top."""
    bands_per_row = -(-pixels.shape[1] // _MOST_BANDS)
    starts = np.arange(0, pixels.shape[1], bands_per_row)
    sizes = np.diff(np.append(starts, pixels.shape[1]))
    rows = np.add.reduceat(pixels, starts, axis=1) / sizes
    low, high = np.percentile(rows, (_QUIET_PERCENTILE, _LOUD_PERCENTILE))
    loud = np.clip((rows - low) / max(high - low, 1e-6), 0, 1)
    steps = np.rint((1 - loud) * (_GREYS - 1)) * (255 / (_GREYS - 1))
    image: Bytes = np.rint(steps).astype(np.uint8).T[::-1]
    return image


def png(pixels: Bytes) -> bytes:
    """Return an image (rows, columns) in 8-bit greys as PNG."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    height, width = pixels.shape
    head = struct.pack(">2I5B", width, height, 8, 0, 0, 0, 0)
    rows = np.pad(pixels, ((0, 0), (1, 0)))  # filter 0 in front of each row
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(rows.tobytes(), 9))
        + chunk(b"IEND", b"")
    )


def index_page(rules: TagRules, rows: Sequence[dict[str, Any]], job: Job) -> bytes:
    """Return the index of songs.

    Args:
        rules: The tags and their rules.
        rows: `name`, `page`, `audio`, `seconds`, `scores` and `applies` (numbers of tags) of
            each song; `name` and `error` of a file that could not be used.
        job: The job, which a later one compares with itself.
    """
    failed = sum("error" in row for row in rows)
    about = [count(len(rows) - failed, "song"), count(len(rules.names), "tag"), job.model]
    if failed:
        about.insert(1, f"{count(failed, 'file')} that could not be used")
    limits = rules.thresholds
    data = {
        "model": job.model,
        "job": job.digest,
        "labels": list(rules.names),
        "thresholds": None if limits is None else rounded(limits, _SCORE_DIGITS),
        "songs": rows,
    }
    return filled("index.html", about=html.escape(", ".join(about)), data=embedded(data))


def link(target: Path, folder: Path) -> str:
    """Return the relative link to a file from a page in a folder, percent-encoded.

    Links of the file system are not resolved, because browsers do not resolve them either.
    """
    try:
        relative = os.path.relpath(target, folder)
    except ValueError:  # another drive of Windows
        return target.absolute().as_uri()
    return quote(os.fsencode(Path(relative).as_posix()))


def _copy(source: Path, target: Path) -> None:
    """Copy a file with its time, unless that was done before."""
    status = source.stat()
    if target.is_file():
        copied = target.stat()
        if (copied.st_size, copied.st_mtime) == (status.st_size, status.st_mtime):
            return
    with atomic_write(target) as aside:
        shutil.copyfile(source, aside)
        shutil.copystat(source, aside)


def embedded(data: Any) -> str:
    """Return JSON that cannot end the script element that it is in."""
    return as_json(data).translate({ord(c): f"\\u{ord(c):04x}" for c in "<>&"})


def filled(name: str, *, partly: bool = False, **parts: str) -> bytes:
    """Return a template with its parts, which must be escaped for HTML.

    Args:
        name: File name of the template.
        partly: Keep the places of parts that are not given.
        **parts: Text by name of the part.
    """
    template = Template(asset(name).decode())
    substitute = template.safe_substitute if partly else template.substitute
    text = substitute(parts, generator=f"rfkeras {__version__}")
    return text.encode("utf-8", "backslashreplace")


def asset(name: str) -> bytes:
    """Return a file of the pages."""
    return package_files("rfkeras.inference").joinpath("pages", name).read_bytes()
