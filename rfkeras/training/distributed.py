"""Which devices a run uses."""

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

from rfkeras.datasets.excerpts import Part
from rfkeras.errors import ConfigError, RFKerasError

VARIABLE = "TF_CONFIG"
_ROLES = ("chief", "worker")  # in the order in which TensorFlow counts them


@dataclass(frozen=True)
class Cluster:
    """A job of several processes that train one model.

    Attributes:
        addresses: host:port of every worker; the first is the chief, which alone writes.
        index: Which of them this process is.
    """

    addresses: tuple[str, ...]
    index: int

    @property
    def is_chief(self) -> bool:
        """Whether this process writes files and speaks to people."""
        return self.index == 0


def read_cluster(environment: Mapping[str, str] = os.environ) -> Cluster | None:
    """The cluster that TF_CONFIG describes; None for a process on its own.

    TF_CONFIG is TensorFlow's own way to tell a process of the others, set by `rfkeras
    launch`, by hand, or by a cluster's operator:
    {"cluster": {"worker": ["host0:port", "host1:port"]}, "task": {"type": "worker",
    "index": 0}}. An entry "chief" of one address may stand beside "worker"; without, the
    first worker is the chief. A cluster of one is none.

    Raises:
        ConfigError: It is not of that form.
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
            _malformed(text, f"{unknown[0]!r} is no role here; there are chief and worker")
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


def describe(addresses: list[str], index: int) -> str:
    """The value of TF_CONFIG for one worker of a cluster."""
    task = {"type": "worker", "index": index}
    return json.dumps({"cluster": {"worker": addresses}, "task": task})


def _malformed(text: str, why: str) -> str:
    return (
        f"{VARIABLE} does not describe a cluster: {why}. It looks like "
        f"{describe(['host0:2222', 'host1:2222'], 0)}; unset it to train in one process. "
        f"Received: {text[:500]}"
    )


RESTART_STATUS = 75  # exit status that asks to be started again: EX_TEMPFAIL
_SMALLEST = 1 << 10  # words of a message: few sizes, each of which is traced once


class WorkerLost(RFKerasError):
    """Another worker of the job is gone; all of them have to be started again."""


@dataclass
class Workers:
    """The processes that train together; a process on its own is one of one.

    Every worker must make the same calls in the same order.

    Attributes:
        strategy: The `tf.distribute` strategy that the job trains under.
        index: Which worker this is.
        count: How many there are.
    """

    strategy: Any
    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        self._gather = tf.function(self._gathered)

    @property
    def is_chief(self) -> bool:
        """Whether this worker writes files and speaks to people."""
        return self.index == 0

    @property
    def part(self) -> Part:
        """What this worker reads of the data."""
        return Part(self.index, self.count, self.strategy.num_replicas_in_sync // self.count)

    def exchange(self, message: bytes) -> list[bytes]:
        """The messages of all workers, in their order; each gives its own.

        Raises:
            WorkerLost: Another worker is gone.
        """
        if self.count == 1:
            return [message]
        with raising_lost():
            sizes = self._all(np.array([len(message)], np.int32))
            # int32, which every device and every way of communication carries.
            words = np.zeros(_bucket(-(-int(sizes.max()) // 4)), np.int32)
            words.view(np.uint8)[: len(message)] = np.frombuffer(message, np.uint8)
            everyone = self._all(words).reshape(self.count, -1)
        return [row.tobytes()[:size] for row, size in zip(everyone, sizes, strict=True)]

    def from_chief(self, message: Callable[[], bytes]) -> bytes:
        """The chief's message, made by the chief alone, to all workers."""
        return self.exchange(message() if self.is_chief else b"")[0]

    def agree(self, value: Callable[[], Any]) -> Any:
        """A JSON value that the chief alone computes, to all workers."""
        if self.count == 1:
            return value()
        return json.loads(self.from_chief(lambda: json.dumps(value()).encode()))

    def collect(self, value: Any) -> list[Any]:
        """The JSON values of all workers, in their order."""
        return [json.loads(text) for text in self.exchange(json.dumps(value).encode())]

    def share(self, variables: Sequence[Any]) -> None:
        """Give variables, in a fixed order, the values that the chief's have."""
        if self.count == 1:
            return
        values = [np.asarray(variable.numpy()) for variable in variables]
        message = self.from_chief(lambda: b"".join(value.tobytes() for value in values))
        start = 0
        for variable, value in zip(variables, values, strict=True):
            own = message[start : start + value.nbytes]
            variable.assign(np.frombuffer(own, value.dtype).reshape(value.shape))
            start += value.nbytes

    def batches(self, of_part: Callable[[Part], tf.data.Dataset]) -> Any:
        """Batches that `fit` takes, made of what each worker reads.

        Args:
            of_part: Gives the batches of a part.
        """
        if self.count == 1:
            return of_part(Part())
        return self.strategy.distribute_datasets_from_function(lambda _: of_part(self.part))

    def _all(self, values: Any) -> Any:
        """Equally long vectors of all workers, one behind the other."""
        own_replicas = self.strategy.num_replicas_in_sync // self.count

        def of_replica(context: Any) -> Any:
            return tf.constant(values)

        spread = self.strategy.experimental_distribute_values_from_function(of_replica)
        gathered = self._gather(spread).numpy().reshape(-1, len(values))
        return gathered[::own_replicas].reshape(-1)  # all replicas of a worker say the same

    def _gathered(self, spread: Any) -> Any:
        return self.strategy.gather(spread, axis=0)


def _bucket(words: int) -> int:
    """The length that a message is filled up to: the next power of two."""
    return max(_SMALLEST, 1 << (words - 1).bit_length())


@contextmanager
def raising_lost() -> Iterator[None]:
    """Block in which the loss of a worker raises `WorkerLost`.

    The loss shows first as an error of the collective operation that waits for the worker,
    with a message of TensorFlow's networking that says nothing to a user.
    """
    try:
        yield
    except (tf.errors.UnavailableError, tf.errors.AbortedError) as error:
        raise WorkerLost(
            "Another worker of the job is gone, or cannot be reached. Start all of them again: "
            "the job goes on from the last step saved."
        ) from error


def open_workers(devices: str = "auto", cluster: Cluster | None = None) -> Workers:
    """This process as one of those that train together.

    Args:
        devices: As for `make_strategy`; each worker uses them. "cpu" is one device.
        cluster: The others; it waits until all of them are there. None: there are none.

    Raises:
        ConfigError: As `make_strategy`.
    """
    if cluster is None:
        return Workers(make_strategy(devices))
    strategy = make_strategy(devices, collective=True)
    return Workers(strategy, cluster.index, len(cluster.addresses))


def make_strategy(devices: str = "auto", collective: bool = False) -> Any:
    """The `tf.distribute` strategy for a choice of devices.

    Args:
        devices: "auto": all GPUs, or the CPU where there is none. "cpu" or "gpu": all of
            that kind. "cpu:N": N logical CPU devices, which must be asked for before
            TensorFlow runs anything. "gpu:N": the first N GPUs.
        collective: Train with the other workers that TF_CONFIG names, each with its devices.

    Returns:
        MirroredStrategy over several devices, the default strategy for one, and
        MultiWorkerMirroredStrategy with other workers.

    Raises:
        ConfigError: Not of that form, or the machine has not as many devices.
    """
    match = re.fullmatch(r"(auto|cpu|gpu)(?::([1-9]\d*))?", devices)
    if not match or (match[1] == "auto" and match[2]):
        raise ConfigError(
            f"devices must be auto, cpu, gpu, cpu:N or gpu:N. Received: {devices!r}."
        )
    kind, count = match[1], int(match[2]) if match[2] else None
    n_gpus = len(tf.config.list_physical_devices("GPU"))
    # Newer GPUs round float32 products to 10 bits unless told otherwise; the front-end's dB
    # values would then be wrong in the second decimal.
    tf.config.experimental.enable_tensor_float_32_execution(False)
    if kind == "gpu" and n_gpus < (count or 1):
        raise ConfigError(
            f"devices={devices!r} asks for {count or 1} GPUs; TensorFlow sees {n_gpus}."
        )
    if collective:
        return _collective(devices, kind, count)
    if kind == "cpu":
        _use_cpu_devices(count or 1)
        names = [f"/cpu:{i}" for i in range(count or 1)]
    else:
        names = [f"/gpu:{i}" for i in range(n_gpus if count is None else count)]
    if len(names) > 1:
        return tf.distribute.MirroredStrategy(names)
    return tf.distribute.get_strategy()


def _collective(devices: str, kind: str, count: int | None) -> Any:
    if kind == "cpu":
        if count not in (None, 1):
            raise ConfigError(
                f"devices={devices!r} does not go with several workers: each uses its CPU as "
                "one device. Start more workers, or leave TF_CONFIG unset."
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
                f"devices='cpu:{count}' must be chosen before TensorFlow is first used in "
                f"the process: {error}"
            ) from error


def check_batch_size(batch_size: int, strategy: Any) -> None:
    """A batch must divide evenly over the replicas.

    Raises:
        ConfigError: It does not.
    """
    replicas = strategy.num_replicas_in_sync
    if batch_size % replicas:
        raise ConfigError(
            f"batch_size must be a multiple of the {replicas} devices. Received: {batch_size}."
        )
