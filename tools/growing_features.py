"""Features that `tools.render_features` is still writing, for `tools.train_on_jax`."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rfkeras.errors import DatasetError
from tools.feature_parts import Features, read_scale

_BLOCK = 128  # clips copied to the device at once
_FIRST_SECONDS = 300.0


class GrowingFeatures:
    """A folder of `tools.render_features`, whose clips get ready one by one.

    Args:
        folder: The folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.scale = read_scale((folder / "scale.json").read_text(encoding="utf-8"))
        self._rows = {
            name: np.load(folder / f"{name}.npy", mmap_mode="r")
            for name in ("steps", "labels", "mask", "done")
        }
        self.capacity = len(self._rows["done"])
        self._used = np.zeros(self.capacity, bool)

    def first(self, count: int, report: Callable[[str], None] = print) -> Features:
        """Wait until so many clips are ready, and return all that are.

        Raises:
            DatasetError: They did not get ready within five minutes.
        """
        begun = time.monotonic()
        while (ready := int(np.count_nonzero(self._rows["done"]))) < count:
            if time.monotonic() - begun > _FIRST_SECONDS:
                raise DatasetError(f"{self.folder}: only {ready} of {count} clips are ready.")
            time.sleep(0.5)
        rows = self._take(self.capacity)
        report(f"{self.folder}: {len(rows)} clips ready")
        return Features(
            np.array(self._rows["steps"][rows]),
            np.array(self._rows["labels"][rows]),
            np.array(self._rows["mask"][rows]),
            np.zeros(len(rows), np.uint8),
            np.array([str(row) for row in rows]),
            self.scale,
        )

    def refresh(self, data: dict[str, Any]) -> int:
        """Copy the clips that got ready to the device; return the number of clips there.

        Args:
            data: See `jax_batches.draw_batch`, with room for all clips. Changed in place.
        """
        clips = int(data["clips"])
        while len(rows := self._take(_BLOCK)) == _BLOCK:
            for name, kind in (
                ("steps", np.uint8),
                ("labels", np.float32),
                ("mask", np.float32),
            ):
                block = np.asarray(self._rows[name][rows], kind)
                data[name] = _put(data[name], block, clips)
            clips += _BLOCK
        self._used[rows] = False  # too few for a block: next time
        data["clips"] = jax.device_put(np.int32(clips))
        return clips

    def _take(self, most: int) -> Any:
        """Return rows that are ready and were not used, and mark them as used."""
        rows = np.flatnonzero((self._rows["done"] == 1) & ~self._used)[:most]
        self._used[rows] = True
        return rows


@functools.partial(jax.jit, donate_argnums=0)
def _put(array: Any, block: Any, start: Any) -> Any:
    place = (start, *(0 for _ in array.shape[1:]))
    return jax.lax.dynamic_update_slice(array, block, place)
