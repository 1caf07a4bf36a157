"""From single elements to batches: the last step of every pipeline."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tensorflow as tf


def finish(elements: tf.data.Dataset, batch_size: int) -> tf.data.Dataset:
    """Batch, prefetch, and keep the order that was computed."""
    import tensorflow as tf

    options = tf.data.Options()
    options.deterministic = True
    # Several workers share one stream by its elements: it has no files to divide.
    options.experimental_distribute.auto_shard_policy = (
        tf.data.experimental.AutoShardPolicy.DATA
    )
    batches = elements.batch(batch_size, drop_remainder=True)
    return batches.prefetch(tf.data.AUTOTUNE).with_options(options)
