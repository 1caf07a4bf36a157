"""The figures of each epoch for TensorBoard."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import keras

_VALIDATION = "val_"


class Board(keras.callbacks.Callback):
    """Writes what `keras.callbacks.TensorBoard` would, and keeps nothing in memory.

    That one writes by operations of TensorFlow, which keep 2 kB of each figure for as long as
    the process lives. This one writes by TensorBoard itself.

    Args:
        folder: Gets the sub-folders `train` and `validation`, with the same names of figures.
    """

    def __init__(self, folder: Path):
        super().__init__()
        self.folder = folder
        self._writers: dict[str, Any] = {}

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        figures: dict[str, dict[str, float]] = {"train": {}, "validation": {}}
        for name, value in (logs or {}).items():
            split = "validation" if name.startswith(_VALIDATION) else "train"
            figures[split][f"epoch_{name.removeprefix(_VALIDATION)}"] = float(value)
        for split, values in figures.items():
            if values:
                self._write(split, epoch, values)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        for writer in self._writers.values():
            writer.close()
        self._writers = {}

    def _write(self, split: str, epoch: int, values: dict[str, float]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        if split not in self._writers:
            self._writers[split] = EventFileWriter(str(self.folder / split))
        summary = Summary(
            value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        )
        event = Event(wall_time=time.time(), step=epoch, summary=summary)
        self._writers[split].add_event(event)
        self._writers[split].flush()
