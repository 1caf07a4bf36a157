"""Batches of excerpts for `tools.train_on_jax`, drawn and augmented on the device.

Spectrograms are in dB above the front-end's floor, where a gain is an addition. Two sounds
are mixed by adding their power in each band, which is exact where one of them dominates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

N_CURVES = 6  # cosines of the random equaliser; the fastest has three periods over all bands


@dataclass(frozen=True)
class Augmentation:
    """Random changes of an excerpt.

    Attributes:
        gain_db: Lowest and highest gain.
        equaliser_db: Standard deviation of a smooth random curve over the bands.
        mix: Probability that a second excerpt is added.
        mix_level_db: Its level relative to the first, up to this, down or up.
        time_mask: Most frames that are masked, in one piece.
        mel_mask: Most bands that are masked, in one piece.
    """

    gain_db: tuple[float, float] = (-30.0, 10.0)
    equaliser_db: float = 3.0
    mix: float = 0.3
    mix_level_db: float = 10.0
    time_mask: int = 0
    mel_mask: int = 0


def draw_batch(
    key: Any,
    data: dict[str, Any],
    batch: int,
    frames: int,
    augmentation: Augmentation,
    twice: bool = False,
) -> tuple[Any, Any, Any]:
    """Draw excerpts of random clips and change them.

    Args:
        key: Key of the random numbers.
        data: "steps" (clips, frames, bands) uint8, "labels" and "mask" (clips, tags), "clips"
            (), the number of rows in use, "step_db" (), "mean" and "deviation" (bands,) in dB
            above the floor.
        batch: Number of excerpts.
        frames: Frames of an excerpt.
        augmentation: The random changes.
        twice: Whether the second half of the batch has the excerpts of the first at other gains
            and with other masks. The batch must be even.

    Returns:
        Standardised spectrograms (batch, frames, bands, 1), labels and mask (batch, tags).
    """
    clip, start, change, masks = jax.random.split(key, 4)
    _, n_frames, n_bands = data["steps"].shape
    count = batch // 2 if twice else batch
    rows = jax.random.randint(clip, (count,), 0, data["clips"])
    starts = jax.random.randint(start, (count,), 0, n_frames - frames + 1)

    def cut(row: Any, first: Any) -> Any:
        place, size = (row, first, jnp.zeros_like(row)), (1, frames, n_bands)
        return jax.lax.dynamic_slice(data["steps"], place, size)[0]

    levels_db = jax.vmap(cut)(rows, starts).astype(jnp.float32) * data["step_db"]
    levels_db, labels, mask = augment(
        change, levels_db, data["labels"][rows], data["mask"][rows], augmentation, twice
    )
    x = standardised(levels_db, data)
    for size, axis, name in ((augmentation.time_mask, 1, 0), (augmentation.mel_mask, 2, 1)):
        if size:
            x = masked(jax.random.fold_in(masks, name), x, size, axis)
    return x[..., None], labels, mask


def standardised(levels_db: Any, data: dict[str, Any]) -> Any:
    """Return what the front-end's layer returns for levels in dB above the floor."""
    return (levels_db - data["mean"]) / data["deviation"]


def augment(
    key: Any,
    levels_db: Any,
    labels: Any,
    mask: Any,
    augmentation: Augmentation,
    twice: bool = False,
) -> tuple[Any, Any, Any]:
    """Change the gain and the colour of excerpts, and mix some with another.

    A band at the floor stays there: what it holds below the floor is unknown.

    Args:
        key: Key of the random numbers.
        levels_db: (batch, frames, bands), dB above the floor, at least 0.
        labels: (batch, tags), from 0 to 1.
        mask: (batch, tags), 1 where the label is known.
        augmentation: The random changes.
        twice: Whether every excerpt is returned a second time, at another gain.

    Returns:
        The same three. A mixture has the tags of both; its label is known if it is known in
        both, or positive in one.
    """
    colour, loudness, chosen, relative = jax.random.split(key, 4)
    batch, _, bands = levels_db.shape
    curve_db = augmentation.equaliser_db * smooth_curves(colour, batch, bands)
    power = jnp.where(levels_db > 0, to_power(levels_db + curve_db[:, None, :]), 0.0)
    if augmentation.mix:
        # The batch was drawn at random, so its neighbour is a random second excerpt. Clips
        # differ in level by 40 dB, so the second is brought to the level of the first.
        limit = augmentation.mix_level_db
        level = to_power(
            jax.random.uniform(relative, (batch, 1, 1), minval=-limit, maxval=limit)
        )
        other = jnp.roll(power, 1, axis=0)
        mean, other_mean = (p.mean(axis=(1, 2), keepdims=True) for p in (power, other))
        audible = (mean > 0) & (other_mean > 0)
        level *= jnp.where(audible, mean / jnp.where(audible, other_mean, 1.0), 0.0)
        is_mixed = jax.random.uniform(chosen, (batch, 1)) < augmentation.mix
        is_mixed &= audible[..., 0]
        power += jnp.where(is_mixed[..., None], level, 0.0) * other
        both, known = union(
            labels, mask, jnp.roll(labels, 1, axis=0), jnp.roll(mask, 1, axis=0)
        )
        labels, mask = jnp.where(is_mixed, both, labels), jnp.where(is_mixed, known, mask)
    if twice:
        power, labels, mask = (jnp.concatenate([each, each]) for each in (power, labels, mask))
    low, high = augmentation.gain_db
    gain = to_power(jax.random.uniform(loudness, (len(power), 1, 1), minval=low, maxval=high))
    return 10.0 * jnp.log10(jnp.maximum(power * gain, 1.0)), labels, mask


def to_power(level_db: Any) -> Any:
    """Convert dB to power."""
    return jnp.exp(level_db * (math.log(10.0) / 10.0))


def union(labels: Any, mask: Any, other_labels: Any, other_mask: Any) -> tuple[Any, Any]:
    """Return labels and mask of a mixture of two sounds.

    A label is known if it is known in both, or positive (at least 0.5) in one.
    """
    own, other = labels * mask, other_labels * other_mask
    both = jnp.maximum(own, other)
    return both, jnp.maximum(mask * other_mask, (both >= 0.5).astype(mask.dtype))


def smooth_curves(key: Any, count: int, bands: int) -> Any:
    """Return smooth random curves over the bands, (count, bands), with deviation 1 and mean 0.

    Each is a sum of cosines whose size falls with their number of periods.
    """
    periods = np.arange(1, N_CURVES + 1)
    place = (np.arange(bands) + 0.5) / bands
    cosines = np.cos(np.pi * periods[:, None] * place) / periods[:, None]
    cosines /= np.sqrt((cosines**2).sum(axis=0).mean())
    return jax.random.normal(key, (count, N_CURVES)) @ jnp.asarray(cosines, jnp.float32)


def masked(key: Any, x: Any, size: int, axis: int) -> Any:
    """Replace a random piece of each spectrogram, of up to `size` places, by the mean."""
    width, start = jax.random.split(key)
    batch, length = len(x), x.shape[axis]
    widths = jax.random.randint(width, (batch, 1), 0, min(size, length) + 1)
    starts = jnp.floor(jax.random.uniform(start, (batch, 1)) * (length - widths + 1))
    place = jnp.arange(length)
    inside = (place >= starts) & (place < starts + widths)
    shape = [batch, 1, 1]
    shape[axis] = length
    return jnp.where(inside.reshape(shape), 0.0, x)
