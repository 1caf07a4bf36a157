"""The rules for Keras' layers and operations, and for kapre's layers.

Importing this registers them. A layer that is in none of these files has no rule, and a
model with it gets an error: nothing is taken to work position by position unless it does.
"""

from rfkeras.rf.rules import layers, operations  # noqa: F401
