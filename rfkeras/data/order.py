"""The order of clips and the place of excerpts, as functions of seed, epoch and position.

Nothing here has a state: any step of any epoch is computed directly, which is what lets an
interrupted run go on with the very batches that it would have seen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rfkeras.errors import ConfigError

if TYPE_CHECKING:
    import tensorflow as tf

_SEED_LIMIT = 2**31
# Added to the seed, so that these draws are independent of others that are keyed by
# (seed, step) elsewhere in a training run.
_EXCERPT_STREAM = 1 << 40
_BUFFER_STREAM = 2 << 40


def default_steps_per_epoch(clips: int, batch_size: int) -> int:
    """Full batches in one pass over the clips; 1 when they are fewer than a batch."""
    return max(1, clips // batch_size)


def check_steps(
    *, batch_size: int, seed: int, steps_per_epoch: int, total_steps: int, start_step: int
) -> None:
    """Refuse step counts, batch sizes and seeds that make no sense.

    Raises:
        ConfigError: One of them is out of range.
    """
    if batch_size < 1 or steps_per_epoch < 1:
        raise ConfigError(
            "batch_size and steps_per_epoch must be at least 1. Received: "
            f"{batch_size} and {steps_per_epoch}."
        )
    if not 0 <= seed < _SEED_LIMIT:
        raise ConfigError(f"The seed must lie in 0..{_SEED_LIMIT - 1}. Received: {seed}.")
    if not 0 <= start_step <= total_steps:
        raise ConfigError(
            f"start_step must lie in 0..total_steps. Received: {start_step} of {total_steps}."
        )


def clip_rows(seed: int, epoch: tf.Tensor, positions: tf.Tensor, clips: int) -> tf.Tensor:
    """Rows of the clips at these positions of an epoch; every clip comes once a pass.

    Args:
        seed: Seed of the run.
        epoch: int64 scalar.
        positions: int64 vector; positions past the last clip wrap round.
        clips: Number of clips.

    Returns:
        int64, like positions.
    """
    import tensorflow as tf

    return tf.random.experimental.index_shuffle(
        positions % clips,
        seed=tf.stack([tf.constant(seed, tf.int64), epoch]),
        max_index=tf.constant(clips - 1, tf.int64),
    )


def excerpt_fraction(seed: int, epoch: tf.Tensor, position: tf.Tensor) -> tf.Tensor:
    """Where in its clip the excerpt at this position lies: float64 scalar in [0, 1)."""
    import tensorflow as tf

    return tf.random.stateless_uniform(
        [],
        seed=tf.stack([tf.constant(seed + _EXCERPT_STREAM, tf.int64), _mix(epoch, position)]),
        dtype=tf.float64,
    )


def shard_buffer_seed(seed: int, epoch: tf.Tensor) -> tf.Tensor:
    """Seed of the shuffle buffer in an epoch, int64 scalar."""
    import tensorflow as tf

    return tf.random.stateless_uniform(
        [],
        seed=tf.stack([tf.constant(seed + _BUFFER_STREAM, tf.int64), epoch]),
        minval=1,
        maxval=2**62,
        dtype=tf.int64,
    )


def _mix(epoch: tf.Tensor, position: tf.Tensor) -> tf.Tensor:
    import tensorflow as tf

    return tf.bitwise.left_shift(epoch, tf.constant(32, tf.int64)) + position
