"""Read an .npz without running code from it.

openmic-2018.npz stores its keys as a pickled object array, and unpickling can run anything.
The reader here lets a pickle name what such an array of strings consists of, and nothing else,
puts things that do nothing in their places, and takes the strings.
"""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from rfkeras.errors import DatasetError
from rfkeras.reading import check_archive, malformed, open_npz

_NUMBERS = "biuf"


class _Inert:
    """Stands for whatever NumPy class or function a pickle names, and does nothing.

    NumPy's own, given the state that a damaged pickle holds, can end the process.
    """

    state: Any = None

    def __init__(self, *arguments: Any) -> None:
        """Take the arguments that the pickle has for it."""

    def __setstate__(self, state: Any) -> None:
        self.state = state


# Module and name of each global that a pickled object array of str refers to. NumPy 2
# renamed numpy.core to numpy._core.
_ADMITTED = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
}


class _StringArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ADMITTED:
            raise pickle.UnpicklingError(f"it refers to {module}.{name}")
        return _Inert


def load_array(path: Path, name: str) -> NDArray[Any]:
    """One plain (not pickled) array of an .npz file.

    Args:
        path: The .npz file.
        name: Name of the array.

    Raises:
        DatasetError: No such array, or it is malformed or pickled.
    """
    try:
        with open_npz(path) as arrays:
            if name not in arrays.files:
                raise DatasetError(
                    f"{path} has no array {name!r}. It has: {', '.join(arrays.files)}."
                )
            array = cast("NDArray[Any]", arrays[name])
            if array.dtype.kind not in _NUMBERS:
                raise DatasetError(f"{path}, array {name!r}, holds no numbers: {array.dtype}.")
            return array
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path}, array {name!r}, cannot be read: {error}.") from error


def load_strings(path: Path, name: str) -> list[str]:
    """A one-dimensional array of strings in an .npz file, plain or of pickled objects.

    Args:
        path: The .npz file.
        name: Name of the array.

    Raises:
        DatasetError: No such array, or it is malformed, or its pickle holds anything but
            strings.
    """
    try:
        check_archive(path)
        with malformed(), zipfile.ZipFile(path) as archive:
            if f"{name}.npy" not in archive.namelist():
                raise DatasetError(f"{path} has no array {name!r}.")
            with archive.open(f"{name}.npy") as stream:
                values = _read_strings(cast(BinaryIO, stream))
    except pickle.UnpicklingError as error:
        raise DatasetError(
            f"{path}, array {name!r}: refused to unpickle it, because {error}. Only strings "
            "are admitted. Get the file from its official source."
        ) from error
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path}, array {name!r}, cannot be read: {error}.") from error
    if values.ndim != 1 or not all(isinstance(value, str) for value in values.tolist()):
        raise DatasetError(
            f"{path}, array {name!r}, must be a list of strings. Received: shape "
            f"{values.shape}, dtype {values.dtype}."
        )
    return [str(value) for value in values.tolist()]


def _read_strings(stream: BinaryIO) -> NDArray[Any]:
    reader: Any = npy_format  # NumPy leaves these functions untyped
    version = reader.read_magic(stream)
    if version == (1, 0):
        shape, _, dtype = reader.read_array_header_1_0(stream)
    elif version == (2, 0):
        shape, _, dtype = reader.read_array_header_2_0(stream)
    else:
        raise ValueError(f"unknown .npy version {version}")
    if dtype.hasobject:
        return _strings_of(_StringArrayUnpickler(stream).load(), shape)
    count = int(np.prod(shape, dtype=np.int64))
    data = stream.read(count * dtype.itemsize)
    return np.frombuffer(data, dtype, count).reshape(shape)


def _strings_of(loaded: Any, shape: Any) -> NDArray[Any]:
    """The elements of a pickled object array: the last part of its state."""
    if not isinstance(loaded, _Inert):
        raise pickle.UnpicklingError(f"it holds a {type(loaded).__name__}, not an array")
    elements = loaded.state[-1]
    if not isinstance(elements, list) or len(shape) != 1 or len(elements) != shape[0]:
        raise ValueError(f"its elements do not fill an array of shape {shape}")
    values = np.empty(len(elements), object)
    values[:] = elements
    return values
