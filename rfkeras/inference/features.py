"""Write the embeddings of many files to one NumPy, Parquet or CSV file, and read them."""

from __future__ import annotations

import csv
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np
from numpy.typing import NDArray

from rfkeras.errors import ConfigError, install_extra
from rfkeras.inference.output import Outcome, Write, shared_output, text_output
from rfkeras.utils.files import atomic_write, load_npy, malformed, open_npz
from rfkeras.utils.text import printable

if TYPE_CHECKING:
    from rfkeras.inference import FrameTimes, TagResult

ROW_NAMES = ".files.csv"
SUFFIXES = {"clip": (".npy", ".parquet", ".csv"), "frame": (".npz", ".parquet", ".csv")}
_ROWS_PER_GROUP = 4096  # of a Parquet file, held in memory until written
_TIME_DIGITS = 4


def check_features_path(path: Path, per: str) -> None:
    """Check that features can be written to a path.

    Raises:
        ConfigError: The suffix is not allowed, or pyarrow is missing.
    """
    if path.suffix not in SUFFIXES[per]:
        *others, last = SUFFIXES[per]
        raise ConfigError(
            f"The output for embeddings per {per} must end in {', '.join(others)} or {last}. "
            f"Received: {printable(path)}."
        )
    if path.suffix == ".parquet":
        _pyarrow()


@contextmanager
def features_file(
    path: Path | None, per: str, model: str, times: FrameTimes, digest: str = ""
) -> Iterator[Write]:
    """Open the file that `rfkeras embed` writes; it appears when the block ends.

    - .npy, per clip: (files, features) float32. FILE.files.csv next to it has one row
      (`path`, `seconds`) for each row of the array.
    - .npz, per frame: one array (frames, features) float32 per file, named "0", "1", ...; with
      `paths` (files,), `seconds` (files,), `first_s` and `stride_s`. Frame i of a file is
      centred at first_s + i * stride_s. `model` and `model_sha256` name the model.
    - .parquet, per clip: `path`, `seconds`, `features` (list of float32).
    - .parquet, per frame: `path`, `time_s` (centre of the frame), `features`. The metadata of
      both name the model, as rfkeras_model and rfkeras_model_sha256.
    - .csv: `path`, `seconds` or `time_s`, and one column per feature, "0", "1", ...

    Files that could not be read have no rows. Memory does not grow with the number of files,
    except for their paths in .npz.

    Args:
        path: File to write; None writes CSV to standard output.
        per: "clip" or "frame".
        model: The model as named by the user.
        times: Times of the model's frames.
        digest: SHA-256 of the model's file; "" if unknown.

    Raises:
        ConfigError: See `check_features_path`.
    """
    if path is None or path.suffix == ".csv":
        with text_output(path) as file:
            yield _shared(path, _csv(file, per, times))
        return
    check_features_path(path, per)
    with atomic_write(path) as aside:
        if path.suffix == ".parquet":
            with _parquet(aside, per, (model, digest), times) as write:
                yield _shared(path, write)
        elif per == "frame":
            with _npz(aside, (model, digest), times) as write:
                yield _shared(path, write)
        else:
            names = path.with_name(path.stem + ROW_NAMES)
            with atomic_write(names) as names_aside:
                with _npy(aside, names_aside) as write:
                    yield _shared(path, write)
                path.unlink(missing_ok=True)  # never keep old rows next to new names


def _shared(path: Path | None, write: Write) -> Write:
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


def _csv(file: TextIO, per: str, times: FrameTimes) -> Write:
    """Return the function that writes the embeddings of one file as rows of CSV."""
    rows = csv.writer(file, lineterminator="\n")
    began = False

    def write(outcome: Outcome) -> None:
        nonlocal began
        if outcome.result is None:
            return
        vectors, seconds = _rows_of(outcome.result, per, times)
        if not began:
            when = "seconds" if per == "clip" else "time_s"
            rows.writerow(["path", when, *range(vectors.shape[1])])
            began = True
        for vector, second in zip(vectors.astype(np.float32), seconds, strict=True):
            # NumPy writes as many digits as a float32 needs.
            rows.writerow([outcome.file.name, round(float(second), _TIME_DIGITS), *vector])
        file.flush()

    return write


@contextmanager
def _npz(path: Path, model: tuple[str, str], times: FrameTimes) -> Iterator[Write]:
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
        add("model", np.array(printable(model[0])))
        add("model_sha256", np.array(model[1]))


@contextmanager
def _parquet(
    path: Path, per: str, model: tuple[str, str], times: FrameTimes
) -> Iterator[Write]:
    """Write the embeddings as Parquet, in groups of rows."""
    arrow, parquet = _pyarrow()
    when = "seconds" if per == "clip" else "time_s"
    schema = arrow.schema(
        [
            ("path", arrow.string()),
            (when, arrow.float64()),
            ("features", arrow.list_(arrow.float32())),
        ],
        metadata={
            "rfkeras_model": printable(model[0]),
            "rfkeras_model_sha256": model[1],
            "rfkeras_per": per,
        },
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
            rows, seconds = _rows_of(result, per, times)
            waiting.append((outcome.file.name, seconds, rows))
            if sum(len(rows) for _, _, rows in waiting) >= _ROWS_PER_GROUP:
                flush()

        yield write
        flush()


def _rows_of(
    result: TagResult, per: str, times: FrameTimes
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Return the vectors (rows, features), and the length of the file or the times (rows,)."""
    if per == "clip":
        return result.embedding[None], np.array([result.seconds])
    rows = frame_embeddings_of(result)
    return rows, times.centres_ms(len(rows)) / 1000


def _pyarrow() -> tuple[Any, Any]:
    """Return (pyarrow, pyarrow.parquet), or raise an error that explains how to install it."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ConfigError(
            f"Parquet needs pyarrow: {install_extra('parquet')}. Or name a .npy, .npz or "
            ".csv file."
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


# Reading


@dataclass(frozen=True)
class Features:
    """The embeddings in a file of `rfkeras embed`, one per audio file.

    Attributes:
        paths: The audio files.
        vectors: (files, features) float32; the mean of the frames if the file has frames.
        seconds: Length of each audio file; None if unknown.
        model: The model, as named by the user; "" if unknown.
        digest: SHA-256 of the model's file; "" if unknown.
    """

    paths: tuple[str, ...]
    vectors: NDArray[np.float32]
    seconds: tuple[float | None, ...]
    model: str = ""
    digest: str = ""

    def row_of(self, path: str) -> int | None:
        """Return the row of an audio file; None if it has none."""
        if path in self.paths:
            return self.paths.index(path)
        name, real = os.path.basename(path), os.path.realpath(path)  # noqa: PTH119
        rows = (row for row, other in enumerate(self.paths) if other.endswith(name))
        return next((row for row in rows if os.path.realpath(self.paths[row]) == real), None)

    def cosines(self, vector: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the cosine of each embedding with another, (files,); 0 for one of zeros."""
        products = self.vectors.astype(np.float64) @ vector.astype(np.float64)
        lengths = np.linalg.norm(self.vectors.astype(np.float64), axis=1)
        lengths *= np.linalg.norm(vector.astype(np.float64))
        cosines = np.zeros(len(products))
        np.divide(products, lengths, out=cosines, where=lengths > 0)
        return cosines


def read_features(path: Path) -> Features:
    """Read a file that `rfkeras embed` wrote.

    Raises:
        ConfigError: It is missing, has no embeddings, or was not written by `rfkeras embed`; or
            pyarrow is missing.
        OSError: It cannot be read.
    """
    readers = {".npy": _read_npy, ".npz": _read_npz, ".parquet": _read_parquet}
    readers[".csv"] = _read_csv
    if path.suffix not in readers:
        raise ConfigError(
            f"Embeddings must end in {', '.join(readers)}. Received: {printable(path)}."
        )
    if not path.is_file():
        raise ConfigError(
            f"There is no file {printable(path)}. Write it with `rfkeras embed FOLDER --output "
            f"{printable(path)}`."
        )
    if path.suffix == ".parquet":
        _pyarrow()
    try:
        with malformed():
            features = readers[path.suffix](path)
            shape = features.vectors.shape
            if len(shape) != 2 or shape[0] != len(features.paths) or 0 in shape:
                raise ValueError(f"it has {len(features.paths)} paths and features {shape}")
    except (ValueError, csv.Error) as error:
        raise ConfigError(
            f"{printable(path)} was not written by `rfkeras embed`, or is damaged: {error}."
        ) from error
    if not np.isfinite(features.vectors).all():
        raise ConfigError(f"{printable(path)} has NaN or infinite values.")
    return features


class _Means:
    """The mean vector and the length of each audio file, from rows in any order."""

    def __init__(self) -> None:
        self._sums: dict[str, NDArray[np.float64]] = {}
        self._counts: dict[str, int] = {}
        self._seconds: dict[str, float | None] = {}

    def add(self, path: str, rows: NDArray[Any], seconds: float | None) -> None:
        """Add rows (n, features) of an audio file."""
        total = rows.sum(axis=0, dtype=np.float64)
        self._sums[path] = self._sums[path] + total if path in self._sums else total
        self._counts[path] = self._counts.get(path, 0) + len(rows)
        self._seconds[path] = seconds

    def features(self, model: str = "", digest: str = "") -> Features:
        """Return the features.

        Raises:
            ValueError: There are none, or they have different lengths.
        """
        if not self._sums:
            raise ValueError("it has no rows")
        vectors = np.stack([self._sums[p] / max(1, self._counts[p]) for p in self._sums])
        paths, seconds = tuple(self._sums), tuple(self._seconds.values())
        return Features(paths, vectors.astype(np.float32), seconds, model, digest)


def _read_npy(path: Path) -> Features:
    vectors = load_npy(path)
    names = path.with_name(path.stem + ROW_NAMES)
    with names.open(encoding="utf-8", newline="") as file:
        rows = [(row["path"], float(row["seconds"])) for row in csv.DictReader(file)]
    paths, seconds = zip(*rows, strict=True) if rows else ((), ())
    return Features(paths, np.asarray(vectors, np.float32), seconds)


def _read_npz(path: Path) -> Features:
    means = _Means()
    with open_npz(path) as archive:
        names = zip(archive["paths"], archive["seconds"], strict=True)
        for number, (name, seconds) in enumerate(names):
            means.add(str(name), archive[str(number)], float(seconds))
        origin = [str(archive[n]) for n in ("model", "model_sha256") if n in archive]
    return means.features(*origin)


def _read_parquet(path: Path) -> Features:
    _, parquet = _pyarrow()
    means = _Means()
    with path.open("rb") as opened:
        file = parquet.ParquetFile(opened)
        names = file.schema_arrow.names
        for batch in file.iter_batches():
            rows = batch.column("features").flatten().to_numpy()
            rows = rows.reshape(batch.num_rows, -1)
            paths = batch.column("path").to_pylist()
            times = batch.column("seconds").to_pylist() if "seconds" in names else None
            # Rows of one audio file follow each other.
            starts = [i for i, p in enumerate(paths) if i == 0 or p != paths[i - 1]]
            for start, end in zip(starts, [*starts[1:], len(paths)], strict=True):
                means.add(paths[start], rows[start:end], times[start] if times else None)
        metadata = file.schema_arrow.metadata or {}
    origin = [metadata.get(f"rfkeras_{n}".encode(), b"") for n in ("model", "model_sha256")]
    return means.features(*(text.decode() for text in origin))


def _read_csv(path: Path) -> Features:
    means = _Means()
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file)
        when = next(rows, ["", ""])[:2]
        if when not in (["path", "seconds"], ["path", "time_s"]):
            raise ValueError(f"its first columns are {', '.join(when)}")
        for name, second, *values in rows:
            seconds = float(second) if when[1] == "seconds" else None
            means.add(name, np.array([values], np.float32), seconds)
    return means.features()
