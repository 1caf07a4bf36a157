"""Rules for the layers and operations of Keras, and the layers of kapre.

Importing this package registers them. Models with a layer that has no rule get an error:
rfkeras never assumes that a layer works position by position.
"""

from rfkeras.rf.rules import layers, operations  # noqa: F401
