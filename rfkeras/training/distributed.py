"""Devices and workers: distribution strategies, TF_CONFIG, and messages between workers."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from rfkeras.datasets.excerpts import WorkerPart
from rfkeras.errors import ConfigError, RFKerasError

VARIABLE = "TF_CONFIG"
RESTART_STATUS = 75  # exit status that requests a restart: EX_TEMPFAIL
_ROLES = ("chief", "worker")  # in TensorFlow's order
_SMALLEST = 1 << 10  # words in a message; few different sizes, because each is traced once


# The workers of a job


@dataclass(frozen=True)
class Cluster:
    """The processes that train one model together.

    Attributes:
        addresses: host:port of every worker. The first is the chief, the only one that
            writes files.
        index: Index of this process.
    """

    addresses: tuple[str, ...]
    index: int

    @property
    def is_chief(self) -> bool:
        """Return whether this process writes files and prints to the user."""
        return self.index == 0


def read_cluster(environment: Mapping[str, str] = os.environ) -> Cluster | None:
    """Read the cluster from TF_CONFIG.

    TF_CONFIG is TensorFlow's variable that lists the workers of a job. `rfkeras launch`, a
    user or the operator of a cluster sets it: {"cluster": {"worker": ["host0:port",
    "host1:port"]}, "task": {"type": "worker", "index": 0}}. The cluster may also have an
    entry "chief" with one address; otherwise the first worker is the chief.

    Args:
        environment: Environment variables.

    Returns:
        The cluster; None if there is only one process.

    Raises:
        ConfigError: TF_CONFIG does not have this form.
    """
    text = environment.get(VARIABLE, "").strip()
    if not text:
        return None
    try:
        described = json.loads(text)
        groups = described.get("cluster") or {}
        addresses = {role: [str(item) for item in groups[role]] for role in groups}
        task = described.get("task") or {}
        role, index = str(task.get("type", "worker")), int(task.get("index", 0))
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigError(_malformed(text, f"it cannot be read ({error})")) from error
    if not addresses:
        return None
    unknown = sorted(set(addresses) - set(_ROLES)) + ([role] if role not in _ROLES else [])
    if unknown:
        raise ConfigError(
            _malformed(text, f"role {unknown[0]!r} is unknown; the roles are chief and worker")
        )
    if len(addresses.get("chief", [])) > 1:
        raise ConfigError(_malformed(text, "there is more than one chief"))
    if not 0 <= index < len(addresses.get(role, [])):
        raise ConfigError(_malformed(text, f"{role} {index} has no address in the cluster"))
    everyone = tuple(address for name in _ROLES for address in addresses.get(name, []))
    if len(set(everyone)) < len(everyone):
        raise ConfigError(_malformed(text, "two workers have the same address"))
    before = len(addresses.get("chief", [])) if role == "worker" else 0
    return Cluster(everyone, before + index) if len(everyone) > 1 else None


def tf_config(addresses: list[str], index: int) -> str:
    """Return the value of TF_CONFIG for one worker of a cluster."""
    task = {"type": "worker", "index": index}
    return json.dumps({"cluster": {"worker": addresses}, "task": task})


def _malformed(text: str, reason: str) -> str:
    return (
        f"{VARIABLE} does not describe a cluster: {reason}. Expected, for example, "
        f"{tf_config(['host0:2222', 'host1:2222'], 0)}. Unset it to train in one process. "
        f"Received: {text[:500]}"
    )


class WorkerLost(RFKerasError):
    """Another worker has ended, so all of them must be restarted."""


@contextmanager
def detecting_lost_workers() -> Iterator[None]:
    """Raise `WorkerLost` within the block if another worker ends.

    TensorFlow raises a networking error in the operation that waits for that worker, whose
    message does not help users.
    """
    try:
        yield
    except (tf.errors.UnavailableError, tf.errors.AbortedError) as error:
        raise WorkerLost(
            "Another worker has ended or cannot be reached. Start all workers again to resume "
            "from the last saved step."
        ) from error


@dataclass
class Workers:
    """The processes that train together, and messages between them.

    A single process counts as one worker. All workers must call the same methods in
    the same order.

    Attributes:
        strategy: The `tf.distribute` strategy of the job.
        index: Index of this worker.
        count: Number of workers.
    """

    strategy: Any
    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        self._gather_spread = tf.function(self._gather_replicas)

    @property
    def is_chief(self) -> bool:
        """Return whether this worker writes files and prints to the user."""
        return self.index == 0

    @property
    def part(self) -> WorkerPart:
        """The part of the data that this worker reads."""
        return WorkerPart(
            self.index, self.count, self.strategy.num_replicas_in_sync // self.count
        )

    def batches(self, of_part: Callable[[WorkerPart], tf.data.Dataset]) -> Any:
        """Return batches for `fit`, of which each worker reads its part.

        Args:
            of_part: Returns the batches of a part.
        """
        if self.count == 1:
            return of_part(WorkerPart())
        return self.strategy.distribute_datasets_from_function(lambda _: of_part(self.part))

    def broadcast(self, value: Callable[[], Any]) -> Any:
        """Return on all workers a JSON value that only the chief computes."""
        if self.count == 1:
            return value()
        return json.loads(self._broadcast_bytes(lambda: json.dumps(value()).encode()))

    def broadcast_variables(self, variables: Sequence[Any]) -> None:
        """Set variables, given in a fixed order, to their values on the chief."""
        if self.count == 1:
            return
        values = [np.asarray(variable.numpy()) for variable in variables]
        message = self._broadcast_bytes(lambda: b"".join(value.tobytes() for value in values))
        start = 0
        for variable, value in zip(variables, values, strict=True):
            own = message[start : start + value.nbytes]
            variable.assign(np.frombuffer(own, value.dtype).reshape(value.shape))
            start += value.nbytes

    def _broadcast_bytes(self, message: Callable[[], bytes]) -> bytes:
        return self.gather_bytes(message() if self.is_chief else b"")[0]

    def gather(self, value: Any) -> list[Any]:
        """Return the JSON values of all workers, in their order."""
        return [json.loads(text) for text in self.gather_bytes(json.dumps(value).encode())]

    def gather_bytes(self, message: bytes) -> list[bytes]:
        """Return the messages of all workers, in their order.

        Raises:
            WorkerLost: Another worker has ended.
        """
        if self.count == 1:
            return [message]
        with detecting_lost_workers():
            sizes = self._gather_vectors(np.array([len(message)], np.int32))
            # int32 works on every device and with every communication backend.
            words = np.zeros(_padded_length(-(-int(sizes.max()) // 4)), np.int32)
            words.view(np.uint8)[: len(message)] = np.frombuffer(message, np.uint8)
            everyone = self._gather_vectors(words).reshape(self.count, -1)
        return [row.tobytes()[:size] for row, size in zip(everyone, sizes, strict=True)]

    def wait_for_all(self) -> None:
        """Return once all workers have called this method."""
        self.gather_bytes(b"")

    def _gather_vectors(self, values: Any) -> Any:
        """Return the concatenated vectors, of equal length, of all workers."""
        own_replicas = self.strategy.num_replicas_in_sync // self.count

        def of_replica(context: Any) -> Any:
            return tf.constant(values)

        spread = self.strategy.experimental_distribute_values_from_function(of_replica)
        gathered = self._gather_spread(spread).numpy().reshape(-1, len(values))
        return gathered[::own_replicas].reshape(-1)  # one of a worker's equal replicas

    def _gather_replicas(self, spread: Any) -> Any:
        return self.strategy.gather(spread, axis=0)


def _padded_length(words: int) -> int:
    """Return the length to which a message is padded, the next power of two."""
    return max(_SMALLEST, 1 << (words - 1).bit_length())


def open_workers(devices: str = "auto", cluster: Cluster | None = None) -> Workers:
    """Join the processes that train together.

    Args:
        devices: As in `make_strategy`. Each worker uses these devices; "cpu" is one device.
        cluster: The cluster of this process. Waits for all other workers. None: this
            process trains without others.

    Raises:
        ConfigError: As in `make_strategy`.
    """
    if cluster is None:
        return Workers(make_strategy(devices))
    strategy = make_strategy(devices, collective=True)
    return Workers(strategy, cluster.index, len(cluster.addresses))


# Devices


def make_strategy(devices: str = "auto", collective: bool = False) -> Any:
    """Return the `tf.distribute` strategy for a choice of devices.

    Args:
        devices: "auto": all GPUs, or the CPU if there are none. "cpu" or "gpu": all devices
            of this kind. "cpu:N": N logical CPU devices, which must be chosen before
            TensorFlow runs anything. "gpu:N": the first N GPUs.
        collective: Train together with the other workers in TF_CONFIG.

    Returns:
        MirroredStrategy for several devices, the default strategy for one, and
        MultiWorkerMirroredStrategy with other workers.

    Raises:
        ConfigError: `devices` does not have this form, or the machine has fewer devices.
    """
    match = re.fullmatch(r"(auto|cpu|gpu)(?::([1-9]\d*))?", devices)
    if not match or (match[1] == "auto" and match[2]):
        raise ConfigError(
            f"--devices must be auto, cpu, gpu, cpu:N or gpu:N. Received: {devices!r}."
        )
    kind, count = match[1], int(match[2]) if match[2] else None
    n_gpus = len(tf.config.list_physical_devices("GPU"))
    # By default, newer GPUs round float32 products to 10 bits. The second decimal of the
    # front-end's dB values would then be wrong.
    tf.config.experimental.enable_tensor_float_32_execution(False)
    if kind == "gpu" and n_gpus < (count or 1):
        found = f"only {n_gpus}" if n_gpus else "none"
        raise ConfigError(
            f"--devices {devices} needs {_gpus(count or 1)}; TensorFlow found {found}. Use "
            "--devices cpu, or, on Linux, install CUDA support: pip install 'rfkeras[gpu]'."
        )
    if collective:
        return _make_collective_strategy(devices, kind, count)
    if kind == "cpu":
        _use_cpu_devices(count or 1)
        names = [f"/cpu:{i}" for i in range(count or 1)]
    else:
        names = [f"/gpu:{i}" for i in range(n_gpus if count is None else count)]
    if len(names) > 1:
        return tf.distribute.MirroredStrategy(names)
    return tf.distribute.get_strategy()


def _gpus(count: int) -> str:
    return "1 GPU" if count == 1 else f"{count} GPUs"


def _make_collective_strategy(devices: str, kind: str, count: int | None) -> Any:
    if kind == "cpu":
        if count not in (None, 1):
            raise ConfigError(
                f"--devices {devices} cannot be used with several workers, each of which uses "
                "its CPU as one device. Start more workers, or unset TF_CONFIG."
            )
        _use_cpu_devices(1)
    elif count is not None:
        gpus = tf.config.list_physical_devices("GPU")
        tf.config.set_visible_devices(gpus[:count], "GPU")
    return tf.distribute.MultiWorkerMirroredStrategy()


def _use_cpu_devices(count: int) -> None:
    cpu = tf.config.list_physical_devices("CPU")[0]
    try:
        tf.config.set_visible_devices([], "GPU")
        if count > 1:
            tf.config.set_logical_device_configuration(
                cpu, [tf.config.LogicalDeviceConfiguration() for _ in range(count)]
            )
    except RuntimeError as error:
        if len(tf.config.list_logical_devices("CPU")) < count:
            raise ConfigError(
                f"--devices cpu:{count} must be chosen before the process first uses "
                f"TensorFlow: {error}"
            ) from error


def check_batch_size(batch_size: int, strategy: Any) -> None:
    """Check that a batch can be divided evenly over the replicas.

    Raises:
        ConfigError: It cannot.
    """
    replicas = strategy.num_replicas_in_sync
    if batch_size % replicas:
        raise ConfigError(
            f"--batch-size must be a multiple of the {replicas} devices. "
            f"Received: {batch_size}."
        )
