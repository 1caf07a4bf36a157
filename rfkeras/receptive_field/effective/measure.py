"""The effective receptive field: where in its window a trained model really looks.

The exact receptive field tells which pixels can reach one position of a map. How much each
of them does is told by the gradient of that position with respect to the spectrogram: its
square, averaged over positions and inputs, is the energy that the pixel contributes. The
effective field, where most of the energy lies, is smaller than the exact one (Luo et al.,
"Understanding the Effective Receptive Field in Deep Convolutional Neural Networks",
arXiv 1701.04128).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rfkeras.errors import ConfigError, unknown_name
from rfkeras.receptive_field.effective.cut import split_model
from rfkeras.receptive_field.effective.field import EffectiveField
from rfkeras.receptive_field.effective.gradient import LaidOver, gradient_energies
from rfkeras.receptive_field.effective.windows import (
    AxisMap,
    Pair,
    Positions,
    check_positions,
    choose_positions,
    disjoint_groups,
    group_masks,
)

_GRADIENTS_AT_ONCE = 32  # bounds the maps held: 32 of 256 x 431 float64 are 28 MB

Progress = Callable[[int, int], None]


def effective_receptive_field(
    model: Any,
    inputs: Any,
    *,
    layer: str | None = None,
    tags: str | Sequence[str | int] | None = None,
    positions: int | Sequence[Pair] = 16,
    spectrogram_layer: str | None = None,
    clips_at_once: int = 2,
    seed: int = 0,
    progress: Progress | None = None,
) -> EffectiveField:
    """Measure where a trained model looks, by the gradient at its spectrogram.

    The gradient is that of single positions of a map, at inference: batch normalisation
    has its moving statistics, and nothing is dropped or drawn. The energy of each position
    (squared gradient, summed over the spectrogram's channels) is laid over that of the
    others so that their exact windows match, and summed over positions and inputs.

    All channels of the map together need no gradient of each: that of their sum with
    random signs, drawn for each clip, has in expectation the sum of their energies.

    Cost: for each batch of clips a forward pass, and a backward pass for every tag and every
    group of positions whose windows do not overlap. On 2 cores a backward pass takes about
    0.1 s a clip in the network of width 128 and rho 7 with 10-second clips. There 16
    positions are about 9 groups: 4 clips take some 6 s, or each of 20 tags by itself
    20 times that. Memory is that of a forward pass over `clips_at_once` clips with its
    activations kept, 0.3 GB a clip there.

    Args:
        model: A Keras model on the TensorFlow backend, trained: one with a front-end that
            takes waveforms, or one that takes spectrograms (batch, time, mel, channels).
        inputs: What the model takes, (clips, ...): waveforms (clips, samples) in [-1, 1] at
            the front-end's rate, or spectrograms. All have one length.
        layer: Name of the layer whose output is the map, (batch, time', mel', channels);
            None: the one that the model averages over all positions, with a channel for
            each tag.
        tags: Channels of the map to measure each by itself: names of the model's tags, or
            numbers, or "all"; `energy` is then their sum. None: all channels together.
        positions: About how many, spread evenly over the positions whose exact window lies
            inside the spectrogram (on an axis where none does, all are at its middle); or
            the positions themselves, (time, frequency) on the map.
        spectrogram_layer: Name of the layer whose output is the spectrogram; None: the
            front-end, or the model's input where it has none.
        clips_at_once: Clips in one pass.
        seed: Of the random signs.
        progress: Called after each piece of work with (pieces done, pieces in all).

    Returns:
        The field. `outside_share` tells whether the gradient stayed inside the exact field.

    Raises:
        ConfigError: An argument does not fit the model; the inputs are too short for it,
            or not finite; or the gradient is 0 everywhere, as it is for a network with the
            published initialisation before any training.

    Example:
        >>> field = effective_receptive_field(model, waveforms)
        >>> frames, bands = field.window(0.95)
    """
    split = split_model(model, layer, spectrogram_layer)
    batches = split.batches(inputs, clips_at_once)
    shape = split.spectrogram(batches[0][:1]).shape
    axes, channels = split.geometry(shape)
    chosen = _positions(axes, positions)
    measured = _tags(tags, channels, split.label_names)
    rows = [0] if measured is None else list(measured)  # channel of each field
    work = [(group, row) for group in disjoint_groups(axes, chosen) for row in range(len(rows))]
    pieces = [
        work[at : at + _GRADIENTS_AT_ONCE] for at in range(0, len(work), _GRADIENTS_AT_ONCE)
    ]
    energies_of = gradient_energies(split.body, shape)
    laid = LaidOver(axes, chosen, len(rows))
    random = np.random.default_rng(seed)
    for number, batch in enumerate(batches):
        spectrogram = split.spectrogram(batch)
        for place, piece in enumerate(pieces):
            weights = np.zeros((len(piece), len(batch), channels), np.float32)
            for weight, (_, row) in zip(weights, piece, strict=True):
                if measured is None:
                    weight[:] = random.choice((-1.0, 1.0), weight.shape)
                else:
                    weight[:, rows[row]] = 1.0
            masks = group_masks(axes, [group for group, _ in piece])
            energies = energies_of(spectrogram, masks, weights)
            for energy, (group, row) in zip(energies, piece, strict=True):
                laid.add(energy, group, row)
            if progress is not None:
                progress(number * len(pieces) + place + 1, len(batches) * len(pieces))
    return laid.field(measured, split, sum(len(batch) for batch in batches))


def _positions(axes: tuple[AxisMap, AxisMap], positions: int | Sequence[Pair]) -> Positions:
    if isinstance(positions, Sequence | np.ndarray) and not isinstance(positions, str):
        return check_positions(axes, positions)
    whole = isinstance(positions, int | np.integer) and not isinstance(positions, bool)
    if not whole or positions < 1:
        raise ConfigError(
            "positions must be a number of at least 1, or pairs (time, frequency). "
            f"Received: {positions!r}."
        )
    return choose_positions(axes, int(positions))


def _tags(
    tags: str | Sequence[str | int] | None, channels: int, names: tuple[str, ...] | None
) -> dict[int, str] | None:
    """Name of each channel that is measured by itself; None: all together.

    Raises:
        ConfigError: A tag is unknown, or named twice, or there is none.
    """
    if tags is None:
        return None
    shown = [str(channel) for channel in range(channels)] if names is None else list(names)
    if isinstance(tags, str):
        if tags != "all":
            raise ConfigError(
                f'tags must be "all", or a list of names or numbers. Received: {tags!r}.'
            )
        return dict(enumerate(shown))
    chosen: dict[int, str] = {}
    for tag in tags:
        if isinstance(tag, str) and tag not in shown:
            raise ConfigError(unknown_name("tag", tag, shown))
        channel = shown.index(tag) if isinstance(tag, str) else tag
        if channel in chosen or channel not in range(channels):
            raise ConfigError(
                f"Each tag must be named once, a number from 0 to {channels - 1}. "
                f"Received: {tags!r}."
            )
        chosen[int(channel)] = shown[int(channel)]
    if not chosen:
        raise ConfigError('tags must name at least one tag, or be "all" or None.')
    return chosen
