"""From single elements to batches: the last step of every pipeline."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tensorflow as tf

# More readers than this wait for the interpreter's lock rather than for files.
_MOST_READERS = 16


def readers() -> int:
    """Files read at once: one a processor.

    tf.data's AUTOTUNE stays at one where reading takes a millisecond, as it does with short
    excerpts of WAV files, and leaves the other processors idle.
    """
    return min(os.cpu_count() or 1, _MOST_READERS)


def finish(elements: tf.data.Dataset, batch_size: int) -> tf.data.Dataset:
    """Batch, prefetch, and keep the order that was computed."""
    import tensorflow as tf

    options = tf.data.Options()
    options.deterministic = True
    # Replicas of one process share its stream by elements. (Several workers never share
    # one: each makes its own, see `rfkeras.data.parts`.)
    options.experimental_distribute.auto_shard_policy = (
        tf.data.experimental.AutoShardPolicy.DATA
    )
    batches = elements.batch(batch_size, drop_remainder=True)
    return batches.prefetch(tf.data.AUTOTUNE).with_options(options)
