"""The callback that validates, logs and makes a run resumable."""

from __future__ import annotations

import csv
import io
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from types import FrameType
from typing import Any

import keras

from rfkeras.errors import CheckpointError
from rfkeras.files import write_text
from rfkeras.training.run_folder import RunFolder
from rfkeras.training.selection import Selection
from rfkeras.training.snapshot import load_snapshot, read_record, save_snapshot

STOPPING = (signal.SIGINT, signal.SIGTERM)  # Ctrl-C; what job systems send before a kill


class Interrupted(KeyboardInterrupt):
    """A signal to stop, obeyed after everything that is needed to go on was saved.

    Args:
        message: What the user is told.
        number: The signal.
    """

    def __init__(self, message: str, number: int):
        super().__init__(message)
        self.number = number
        self.status = 128 + number  # as shells report a command ended by a signal


@dataclass
class Progress:
    """What a run knows besides the variables; saved with every snapshot.

    Attributes:
        steps_done: Optimiser steps since the start of the run.
        loss_sum: Sum of the loss over the steps of the current epoch.
        loss_steps: Number of those steps.
        history: One row of log.csv an epoch.
        best: Best value of the monitored figure so far, None before the first.
        best_epoch: Its epoch, counted from 1.
        stopped: Whether training was ended before its last epoch.
        seconds: Time spent in training and validation.
        data: SHA-256 of the data of each split, so that no other data is resumed with.
    """

    steps_done: int = 0
    loss_sum: float = 0.0
    loss_steps: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    best: float | None = None
    best_epoch: int = 0
    stopped: bool = False
    seconds: float = 0.0
    data: dict[str, str] = field(default_factory=dict)

    def take(self, record: Mapping[str, Any]) -> None:
        """Stand where a saved record does."""
        for name, value in record.items():
            setattr(self, name, value)


class Recorder(keras.callbacks.Callback):
    """Validates and logs each epoch, keeps the best weights, saves snapshots.

    A snapshot is saved every `checkpoint_steps` steps, at the end of each epoch after its
    validation, and on Ctrl-C and SIGTERM. It is never saved between the last step of an
    epoch and its validation, so a resumed run repeats no validation and leaves none out.

    Args:
        folder: The run's folder.
        best_variables: What is kept of the best epoch, in a fixed order: the tagger's
            `state_variables`.
        variables: All that a step depends on, in a fixed order.
        steps_per_epoch: Steps in an epoch.
        checkpoint_steps: Steps between two snapshots.
        validate: Gives the figures of an epoch for log.csv.
        selection: Which epoch is the best, and when training stops.
        end_epoch: Called with the number of an epoch (from 1) after its validation, for
            what must be done between two epochs.
        progress: Where the run stands; changed in place.
        writes: Whether this process writes the files: of several workers one does, and it is
            the one whose interruption is saved.
    """

    def __init__(
        self,
        folder: RunFolder,
        best_variables: list[Any],
        variables: list[Any],
        steps_per_epoch: int,
        checkpoint_steps: int,
        validate: Callable[[], dict[str, float]],
        selection: Selection,
        end_epoch: Callable[[int], None],
        progress: Progress,
        writes: bool = True,
    ):
        super().__init__()
        self.folder = folder
        self.best_variables = best_variables
        self.variables = variables
        self.steps_per_epoch = steps_per_epoch
        self.checkpoint_steps = checkpoint_steps
        self.validate = validate
        self.selection = selection
        self.end_epoch = end_epoch
        self.progress = progress
        self.writes = writes
        self._carried = (progress.loss_sum, progress.loss_steps)
        self._steps_this_epoch = 0
        self._stopped_by: int | None = None
        self._clock = time.monotonic()
        self._old_handlers: dict[int, Any] = {}

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._clock = time.monotonic()
        try:
            for number in STOPPING:  # set now, for a strategy of several workers sets its own
                self._old_handlers[number] = signal.signal(number, self._on_signal)
        except ValueError:  # not the main thread: the application owns the signals
            self._old_handlers = {}

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self.release_signals()

    def release_signals(self) -> None:
        """Give the signals back to whoever handled them before the training."""
        for number, handler in self._old_handlers.items():
            signal.signal(number, handler)
        self._old_handlers = {}

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGTERM and not self.writes:
            return  # job systems tell all workers at once; this one steps on till all is saved
        if self._stopped_by is not None:
            raise KeyboardInterrupt  # asked twice: at once
        self._stopped_by = number

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._carried = (self.progress.loss_sum, self.progress.loss_steps)
        self._steps_this_epoch = 0

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        progress = self.progress
        progress.steps_done += 1
        self._steps_this_epoch += 1
        mean_loss = float((logs or {})["loss"])  # since this call of fit began its epoch
        progress.loss_sum = self._carried[0] + mean_loss * self._steps_this_epoch
        progress.loss_steps = self._carried[1] + self._steps_this_epoch
        last_of_epoch = progress.steps_done % self.steps_per_epoch == 0
        due = progress.steps_done % self.checkpoint_steps == 0 or self._stopped_by
        if due and not last_of_epoch:
            self._save()
            self._stop_if_interrupted()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        progress = self.progress
        row: dict[str, Any] = {
            "epoch": epoch + 1,
            "loss": progress.loss_sum / progress.loss_steps,
            **self.validate(),
            "learning_rate": float(self.model.optimizer.learning_rate.numpy()),
        }
        if logs is not None:
            logs.update({name: value for name, value in row.items() if name != "epoch"})
        self._tick()
        progress.history.append({**row, "seconds": round(progress.seconds, 1)})
        progress.loss_sum, progress.loss_steps = 0.0, 0
        value = row[self.selection.monitor]
        eligible = epoch + 1 >= self.selection.first_epoch
        if eligible and self.selection.better(value, progress.best):
            progress.best, progress.best_epoch = value, epoch + 1
            if self.writes:
                save_snapshot(self.folder.best, self.best_variables, {"epoch": epoch + 1})
        progress.stopped = eligible and self.selection.is_over(epoch + 1, progress.best_epoch)
        self.model.stop_training = progress.stopped
        self.end_epoch(epoch + 1)
        if self.writes:
            write_text(self.folder.log, to_csv(progress.history))
        self._save()
        self._stop_if_interrupted()

    def restore(self) -> None:
        """Go on from the last snapshot: set the variables and the progress."""
        record = read_record(self.folder.last)
        now = self.progress.data
        changed = [name for name in now if record["data"].get(name) != now[name]]
        if changed:
            raise CheckpointError(
                f"The data of {self.folder.root} has changed since the run began: split "
                f"{', '.join(changed)} holds other clips or labels. Bring the files back, or "
                "start a new run."
            )
        load_snapshot(self.folder.last, self.variables)
        self.progress.take(record)

    def _save(self) -> None:
        self._tick()
        if self.writes:
            save_snapshot(self.folder.last, self.variables, asdict(self.progress))

    def _tick(self) -> None:
        now = time.monotonic()
        self.progress.seconds += now - self._clock
        self._clock = now

    def _stop_if_interrupted(self) -> None:
        if self._stopped_by is not None:
            self.release_signals()
            raise Interrupted("Saved.", self._stopped_by)


def to_csv(rows: list[dict[str, Any]]) -> str:
    """Rows of equal keys as CSV text with a header."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
