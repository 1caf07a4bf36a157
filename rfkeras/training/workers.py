"""What the workers of a job tell each other, besides gradients."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from rfkeras.data.parts import Part
from rfkeras.errors import RFKerasError

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
