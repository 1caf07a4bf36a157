"""Write the embeddings of many files to one NumPy or Parquet file."""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rfkeras.errors import ConfigError
from rfkeras.inference.audio_files import printable
from rfkeras.inference.output import Outcome, Write, shared_output
from rfkeras.utils.files import atomic_write

if TYPE_CHECKING:
    from rfkeras.inference import FrameTimes, TagResult

ROW_NAMES = ".files.csv"
SUFFIXES = {"clip": (".npy", ".parquet"), "frame": (".npz", ".parquet")}
_ROWS_PER_GROUP = 4096  # of a Parquet file, held in memory until written
_TIME_DIGITS = 4


def check_features_path(path: Path, per: str) -> None:
    """Check that features can be written to a path.

    Raises:
        ConfigError: The suffix is not allowed, or pyarrow is missing.
    """
    if path.suffix not in SUFFIXES[per]:
        raise ConfigError(
            f"The output for embeddings per {per} must end in {' or '.join(SUFFIXES[per])}. "
            f"Received: {printable(path)}."
        )
    if path.suffix == ".parquet":
        _pyarrow()


@contextmanager
def features_file(path: Path, per: str, model: str, times: FrameTimes) -> Iterator[Write]:
    """Open the file that `rfkeras embed` writes; it appears when the block ends.

    - .npy, per clip: (files, features) float32. FILE.files.csv next to it has one row
      (`path`, `seconds`) for each row of the array.
    - .npz, per frame: one array (frames, features) float32 per file, named "0", "1", ...; with
      `paths` (files,), `seconds` (files,), `first_s` and `stride_s`. Frame i of a file is
      centred at first_s + i * stride_s.
    - .parquet, per clip: `path`, `seconds`, `features` (list of float32).
    - .parquet, per frame: `path`, `time_s` (centre of the frame), `features`.

    Files that could not be read have no rows. Memory does not grow with the number of files,
    except for their paths in .npz.

    Args:
        path: File to write.
        per: "clip" or "frame".
        model: The model as named by the user.
        times: Times of the model's frames.

    Raises:
        ConfigError: See `check_features_path`.
    """
    check_features_path(path, per)
    with atomic_write(path) as aside:
        if path.suffix == ".parquet":
            with _parquet(aside, per, model, times) as write:
                yield _shared(path, write)
        elif per == "frame":
            with _npz(aside, times) as write:
                yield _shared(path, write)
        else:
            names = path.with_name(path.stem + ROW_NAMES)
            with atomic_write(names) as names_aside:
                with _npy(aside, names_aside) as write:
                    yield _shared(path, write)
                path.unlink(missing_ok=True)  # never keep old rows next to new names


def _shared(path: Path, write: Write) -> Write:
    """Return `write` with an OutputError if the file, which all sounds share, fails."""

    def guarded(outcome: Outcome) -> None:
        with shared_output(path):
            write(outcome)

    return guarded


@contextmanager
def _npy(path: Path, names: Path) -> Iterator[Write]:
    """Write one embedding per file as .npy, and the names of the rows as CSV."""
    shape = (0, 0)

    def header() -> None:
        content = {"descr": "<f4", "fortran_order": False, "shape": shape}
        # NumPy pads headers so that the number of rows can grow in place.
        np.lib.format.write_array_header_1_0(file, content)  # type: ignore[no-untyped-call, unused-ignore]

    with path.open("wb") as file, names.open("w", encoding="utf-8", newline="") as text:
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(["path", "seconds"])

        def write(outcome: Outcome) -> None:
            nonlocal shape
            result = outcome.result
            if result is None:
                return
            if shape[0] == 0:
                shape = (0, len(result.embedding))
                header()
            file.write(result.embedding.astype("<f4").tobytes())
            rows.writerow([outcome.file.name, round(result.seconds, _TIME_DIGITS)])
            shape = (shape[0] + 1, shape[1])

        yield write
        file.seek(0)
        header()


@contextmanager
def _npz(path: Path, times: FrameTimes) -> Iterator[Write]:
    """Write one array of frame embeddings per file as .npz."""
    paths: list[str] = []
    seconds: list[float] = []
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:

        def add(name: str, array: np.ndarray[Any, Any]) -> None:
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(  # type: ignore[no-untyped-call, unused-ignore]
                    member, np.asarray(array), allow_pickle=False
                )

        def write(outcome: Outcome) -> None:
            result = outcome.result
            if result is None:
                return
            add(str(len(paths)), frame_embeddings_of(result).astype("<f4"))
            paths.append(outcome.file.name)
            seconds.append(result.seconds)

        yield write
        add("paths", np.array(paths, dtype=np.str_))
        add("seconds", np.array(seconds))
        add("first_s", np.array(times.first_ms / 1000))
        add("stride_s", np.array(times.stride_ms / 1000))


@contextmanager
def _parquet(path: Path, per: str, model: str, times: FrameTimes) -> Iterator[Write]:
    """Write the embeddings as Parquet, in groups of rows."""
    arrow, parquet = _pyarrow()
    when = "seconds" if per == "clip" else "time_s"
    schema = arrow.schema(
        [
            ("path", arrow.string()),
            (when, arrow.float64()),
            ("features", arrow.list_(arrow.float32())),
        ],
        metadata={"rfkeras_model": printable(model), "rfkeras_per": per},
    )
    waiting: list[tuple[str, np.ndarray[Any, Any], np.ndarray[Any, Any]]] = []

    with parquet.ParquetWriter(path, schema) as file:

        def flush() -> None:
            if not waiting:
                return
            paths = [path for path, _, rows in waiting for _ in rows]
            seconds = np.concatenate([seconds for _, seconds, _ in waiting])
            rows = np.concatenate([rows for _, _, rows in waiting]).astype(np.float32)
            offsets = np.arange(len(rows) + 1, dtype=np.int32) * rows.shape[1]
            lists = arrow.ListArray.from_arrays(offsets, rows.ravel())
            columns = [arrow.array(paths), arrow.array(seconds), lists]
            file.write_table(arrow.Table.from_arrays(columns, schema=schema))
            waiting.clear()

        def write(outcome: Outcome) -> None:
            result = outcome.result
            if result is None:
                return
            if per == "clip":
                rows, seconds = result.embedding[None], np.array([result.seconds])
            else:
                rows = frame_embeddings_of(result)
                seconds = times.centres_ms(len(rows)) / 1000
            waiting.append((outcome.file.name, seconds, rows))
            if sum(len(rows) for _, _, rows in waiting) >= _ROWS_PER_GROUP:
                flush()

        yield write
        flush()


def _pyarrow() -> tuple[Any, Any]:
    """Return (pyarrow, pyarrow.parquet), or raise an error that explains how to install it."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ConfigError(
            "Parquet needs pyarrow: pip install 'rfkeras[parquet]'. Or name a .npy or .npz "
            "file."
        ) from error
    return pyarrow, pyarrow.parquet


def frame_embeddings_of(result: TagResult) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return the frame embeddings of a result.

    Raises:
        ConfigError: The result has no frame embeddings.
    """
    if result.frame_embeddings is None:
        raise ConfigError(
            "The result has no frame embeddings. Run the tagger with embeddings=True."
        )
    return result.frame_embeddings
