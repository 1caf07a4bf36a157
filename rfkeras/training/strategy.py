"""Which devices a run uses."""

from __future__ import annotations

import re
from typing import Any

import tensorflow as tf

from rfkeras.errors import ConfigError
from rfkeras.training.cluster import Cluster
from rfkeras.training.workers import Workers


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
