"""The workers of a job, as the environment names them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass

from rfkeras.errors import ConfigError

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
