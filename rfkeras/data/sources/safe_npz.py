"""Read an .npz without running code from it.

openmic-2018.npz stores its keys as a pickled object array, and unpickling can run anything.
The reader here admits what NumPy needs to rebuild such an array of strings, and nothing
else.
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
from rfkeras.files import open_npz

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
        if name == "_reconstruct":
            return np.empty(0, object).__reduce__()[0]  # the same in NumPy 1 and 2
        return getattr(np, name)


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
            return cast("NDArray[Any]", arrays[name])
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
        with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as stream:
            values = _read_strings(cast(BinaryIO, stream))
    except KeyError as error:
        raise DatasetError(f"{path} has no array {name!r}.") from error
    except pickle.UnpicklingError as error:
        raise DatasetError(
            f"{path}, array {name!r}: refused to unpickle it, because {error}. Only strings "
            "are admitted. Get the file from its official source."
        ) from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
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
        loaded = _StringArrayUnpickler(stream).load()
        if not isinstance(loaded, np.ndarray):
            raise pickle.UnpicklingError(f"it holds a {type(loaded).__name__}, not an array")
        return loaded.reshape(shape)
    count = int(np.prod(shape, dtype=np.int64))
    data = stream.read(count * dtype.itemsize)
    return np.frombuffer(data, dtype, count).reshape(shape)
