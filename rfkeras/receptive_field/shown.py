"""Which layers of a network are worth a row or a step in a picture."""

from __future__ import annotations

from collections.abc import Sequence

from rfkeras.receptive_field.result import LayerField, ReceptiveField

# Layers that have windows, by a word of their class's name. They are shown even where their
# kernel is 1: that deep layers widen nothing is what rho is about.
_WINDOWED = ("Conv", "Pool", "Block", "DenseLayer", "STFT", "GRU", "LSTM", "RNN")
_MODELS = ("Functional", "Tagger", "Sequential", "Model")


def shown_layers(layers: Sequence[LayerField]) -> list[LayerField]:
    """The layers that widen the field or could, and those with something to tell.

    Left out are those that work on every pixel by itself, such as activations, and the
    parts of a layer, such as the branches of a residual block: its own row sums them up.
    Those of a model inside of the model stay.
    """
    whole = {layer.name for layer in layers if layer.kind not in _MODELS}
    shown: list[LayerField] = []
    before: object = None
    for layer in layers:
        if any(outer in whole for outer in _outer_names(layer.name)):
            continue
        reach = _reach(layer)
        windowed = any(word in layer.kind for word in _WINDOWED)
        if windowed or layer.note or (reach != before and before is not None):
            shown.append(layer)
        before = reach
    return shown


def _outer_names(name: str) -> list[str]:
    """Of "a/b/c": "a" and "a/b"."""
    parts = name.split("/")
    return ["/".join(parts[:end]) for end in range(1, len(parts))]


def map_layers(field: ReceptiveField) -> list[LayerField]:
    """The shown layers between the spectrogram and the pooling over all positions."""
    names = [layer.name for layer in field.layers]
    end = names.index(field.pooled_by) if field.pooled_by in names else len(names)
    return shown_layers([layer for layer in field.layers[:end] if layer.in_pixels])


def _reach(layer: LayerField) -> object:
    """Size and step on both axes, and in what they are counted; not where windows start."""
    fields = (layer.time, layer.frequency)
    return layer.in_pixels, *(field and (field.size, field.jump) for field in fields)
