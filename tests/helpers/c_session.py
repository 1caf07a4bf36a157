"""Load a SavedModel and run its signatures through TensorFlow's C API, by ctypes.

That is the path of TensorFlow Serving and of programs in C++: `LoadSavedModel` and
`Session::Run`. Started by its path in a process of its own, without Python's TensorFlow:

    python -I c_session.py TENSORFLOW_FOLDER MODEL INPUTS.npz OUTPUTS.npz REQUESTS

INPUTS has arrays "SIGNATURE/N"; OUTPUTS gets "SIGNATURE/N/OUTPUT". An array of bytes (uint8) is
one file for `audio_bytes`. A request that fails leaves "SIGNATURE/N/error" with its message.
Then REQUESTS requests of `serving_default` run in threads; "memory_mb" is the resident memory
after each tenth of them, "repeated" whether all had the same scores.
"""

from __future__ import annotations

import ctypes
import resource
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

FLOAT, STRING = 1, 7  # of TF_DataType
_STRING_BYTES = 24  # sizeof(TF_TString)
_INVALID_ARGUMENT = 3


class _Buffer(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("length", ctypes.c_size_t),
        ("deallocator", ctypes.c_void_p),
    )


class _Output(ctypes.Structure):
    _fields_ = (("operation", ctypes.c_void_p), ("index", ctypes.c_int))


class InvalidArgument(Exception):
    """The model rejected an input."""


def fields(message: bytes) -> Iterator[tuple[int, bytes | int]]:
    """Yield (number, value) of the fields of a protocol buffer."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(message):
        key = varint()
        if key & 7 == 0:
            yield key >> 3, varint()
        else:
            size = {1: 8, 5: 4}.get(key & 7) or varint()
            yield key >> 3, message[at : at + size]
            at += size


def signatures(meta_graph: bytes) -> dict[str, tuple[tuple[str, int], dict[str, str]]]:
    """Return ((input tensor, type), {output: tensor}) of each signature of a MetaGraphDef."""
    found = {}
    for number, entry in fields(meta_graph):
        if number != 5:  # signature_def
            continue
        name, definition = (value for _, value in fields(entry))
        inputs, outputs = {}, {}
        for part, item in fields(definition):
            if part in (1, 2):
                key, info = (value for _, value in fields(item))
                facts = dict(fields(info))
                (inputs, outputs)[part - 1][key.decode()] = (facts[1].decode(), facts.get(2, 0))
        if inputs:  # not the signature that runs initialisers
            ((source, kind),) = inputs.values()
            found[name.decode()] = (
                (source, kind),
                {key: tensor for key, (tensor, _) in outputs.items()},
            )
    return found


class Session:
    """A SavedModel in a session of the C API.

    Args:
        tensorflow: Folder of TensorFlow's shared libraries.
        model: Folder of the SavedModel.
    """

    def __init__(self, tensorflow: Path, model: Path) -> None:
        ctypes.CDLL(str(tensorflow / "libtensorflow_framework.so.2"), ctypes.RTLD_GLOBAL)
        self.c = ctypes.CDLL(str(tensorflow / "libtensorflow_cc.so.2"), ctypes.RTLD_GLOBAL)
        for name in (
            *("TF_NewStatus", "TF_NewGraph", "TF_NewSessionOptions", "TF_NewBuffer"),
            *("TF_LoadSessionFromSavedModel", "TF_AllocateTensor", "TF_TensorData"),
            *("TF_GraphOperationByName", "TF_Version", "TF_Message"),
        ):
            getattr(self.c, name).restype = ctypes.c_void_p
        for name in ("TF_Dim", "TF_TensorByteSize"):
            getattr(self.c, name).restype = ctypes.c_int64
        self.version = ctypes.string_at(self.c.TF_Version()).decode()
        self.graph = ctypes.c_void_p(self.c.TF_NewGraph())
        meta_graph = ctypes.cast(self.c.TF_NewBuffer(), ctypes.POINTER(_Buffer))
        status = self._status()
        self.session = ctypes.c_void_p(
            self.c.TF_LoadSessionFromSavedModel(
                ctypes.c_void_p(self.c.TF_NewSessionOptions()),
                None,
                str(model).encode(),
                (ctypes.c_char_p * 1)(b"serve"),
                1,
                self.graph,
                meta_graph,
                status,
            )
        )
        self._check(status)
        content = ctypes.string_at(meta_graph.contents.data, meta_graph.contents.length)
        self.signatures = signatures(content)

    def run(self, signature: str, batch: np.ndarray) -> dict[str, np.ndarray]:
        """Run a signature; return its outputs by name.

        Raises:
            InvalidArgument: The model rejected the input.
        """
        (source, kind), outputs = self.signatures[signature]
        tensor = self._strings(batch) if kind == STRING else self._floats(batch)
        count = len(outputs)
        results = (ctypes.c_void_p * count)()
        status = self._status()
        try:
            self.c.TF_SessionRun(
                *(self.session, None),
                *((_Output * 1)(self._output(source)), (ctypes.c_void_p * 1)(tensor), 1),
                *((_Output * count)(*map(self._output, outputs.values())), results, count),
                *(None, 0, None, status),
            )
            self._check(status)
            return {
                name: self._array(ctypes.c_void_p(result))
                for name, result in zip(outputs, results, strict=True)
            }
        finally:
            for one in (tensor, *map(ctypes.c_void_p, filter(None, results))):
                self.c.TF_DeleteTensor(one)

    def _output(self, tensor: str) -> _Output:
        name, _, index = tensor.partition(":")
        operation = self.c.TF_GraphOperationByName(self.graph, name.encode())
        assert operation, tensor
        return _Output(operation, int(index))

    def _allocate(self, kind: int, shape: tuple[int, ...], size: int) -> ctypes.c_void_p:
        dimensions = (ctypes.c_int64 * len(shape))(*shape)
        return ctypes.c_void_p(
            self.c.TF_AllocateTensor(kind, dimensions, len(shape), ctypes.c_size_t(size))
        )

    def _floats(self, batch: np.ndarray) -> ctypes.c_void_p:
        values = np.ascontiguousarray(batch, np.float32)
        tensor = self._allocate(FLOAT, values.shape, values.nbytes)
        if values.nbytes:
            ctypes.memmove(self.c.TF_TensorData(tensor), values.ctypes.data, values.nbytes)
        return tensor

    def _strings(self, file: np.ndarray) -> ctypes.c_void_p:
        tensor = self._allocate(STRING, (1,), _STRING_BYTES)
        place = ctypes.c_void_p(self.c.TF_TensorData(tensor))
        self.c.TF_StringInit(place)
        content = file.tobytes()
        self.c.TF_StringCopy(place, content, ctypes.c_size_t(len(content)))
        return tensor

    def _array(self, tensor: ctypes.c_void_p) -> np.ndarray:
        shape = tuple(self.c.TF_Dim(tensor, axis) for axis in range(self.c.TF_NumDims(tensor)))
        assert self.c.TF_TensorType(tensor) == FLOAT
        size = self.c.TF_TensorByteSize(tensor)
        content = ctypes.string_at(self.c.TF_TensorData(tensor), size) if size else b""
        return np.frombuffer(content, np.float32).reshape(shape)

    def _status(self) -> ctypes.c_void_p:
        return ctypes.c_void_p(self.c.TF_NewStatus())

    def _check(self, status: ctypes.c_void_p) -> None:
        code = self.c.TF_GetCode(status)
        message = ctypes.string_at(self.c.TF_Message(status)).decode()
        self.c.TF_DeleteStatus(status)
        if code == _INVALID_ARGUMENT:
            raise InvalidArgument(message)
        assert code == 0, message


def resident_mb() -> float:
    """Return the resident memory of this process, in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def main(tensorflow: str, model: str, inputs: str, outputs: str, requests: str) -> None:
    """Run all inputs, then many requests at once."""
    session = Session(Path(tensorflow), Path(model))
    assert not {"tensorflow", "keras", "rfkeras"} & sys.modules.keys()
    found: dict[str, object] = {
        "signatures": sorted(session.signatures),
        "version": session.version,
    }
    with np.load(inputs) as arrays:
        batches = {key: arrays[key] for key in arrays.files}
    for key, batch in batches.items():
        try:
            values = session.run(key.partition("/")[0], batch)
        except InvalidArgument as error:
            values = {"error": str(error)}
        found |= {f"{key}/{name}": value for name, value in values.items()}

    batch, scores = batches["serving_default/0"], found["serving_default/0/scores"]
    memory, repeated = [], True
    with ThreadPoolExecutor(16) as pool:
        for _ in range(10):
            work = [batch] * (int(requests) // 10)
            for result in pool.map(lambda one: session.run("serving_default", one), work):
                repeated &= np.allclose(result["scores"], scores, rtol=0, atol=1e-6)
            memory.append(resident_mb())
    np.savez(outputs, memory_mb=memory, repeated=repeated, **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
