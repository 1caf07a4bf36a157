"""The callback that validates, logs and makes a run resumable."""

from __future__ import annotations

import csv
import io
import math
import signal
import sys
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import keras
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from rfkeras.config.train_config import TrainConfig
from rfkeras.errors import CheckpointError, ConfigError, unknown_name
from rfkeras.training.run_dir import RunFolder, load_snapshot, read_record, save_snapshot
from rfkeras.utils.files import write_text


def lower_is_better(monitor: str) -> bool:
    """Whether the lowest value of a figure is the best, as of a loss."""
    return monitor.endswith("loss")


@dataclass(frozen=True)
class Selection:
    """How epochs are compared.

    Attributes:
        monitor: The figure: the lowest is best for losses, else the highest.
        patience: Epochs without a better one after which training stops; None: never.
        first_epoch: The first epoch, counted from 1, that may be the best: before it the
            model is not pruned to its final size.
        patient_until: Epoch before which no epoch counts as one without a better one: the
            first that is averaged, so that a run that stops early has an average, and the
            first of a trunk that was frozen.
    """

    monitor: str = "val_mAP"
    patience: int | None = None
    first_epoch: int = 1
    patient_until: int = 1

    def better(self, value: float, best: float | None) -> bool:
        """Whether a value is better than the best so far; nothing is worse than NaN."""
        if best is None or math.isnan(best):
            return best is None or not math.isnan(value)
        return value < best if lower_is_better(self.monitor) else value > best

    def is_over(self, epoch: int, best_epoch: int) -> bool:
        """Whether training stops after an epoch (both counted from 1)."""
        waited = epoch - max(best_epoch, self.patient_until - 1)
        return self.patience is not None and waited >= self.patience


def make_selection(config: TrainConfig, figures: Collection[str]) -> Selection:
    """How a run compares its epochs.

    Args:
        config: The run's configuration.
        figures: Names of the validation figures.

    Raises:
        ConfigError: There is no such figure, or the average of weights has none such.
    """
    allowed = ("loss", *figures)
    if config.monitor not in allowed:
        raise ConfigError(unknown_name("monitor", config.monitor, allowed))
    validated = config.averaging != "none" and config.final_weights != "last"
    if config.monitor == "loss" and validated:
        raise ConfigError(
            "monitor must be a validation figure where weights are averaged: the average has "
            f"no training loss. Set monitor to one of {', '.join(figures)}, or averaging to "
            f"none. Received: monitor='loss', averaging={config.averaging!r}."
        )
    return Selection(
        config.monitor,
        config.early_stop_epochs,
        first_epoch=first_eligible_epoch(config),
        patient_until=max(
            config.first_averaged_epoch if config.averaging == "swa" else 1,
            (config.unfreeze_after or 0) + 1,
        ),
    )


def first_eligible_epoch(config: TrainConfig) -> int:
    """The first epoch, counted from 1, that trains the model at its final size."""
    return config.prune_until_epoch + 1


def is_averaged(config: TrainConfig, epoch: int) -> bool:
    """Whether stochastic weight averaging takes in an epoch, counted from 1."""
    since = epoch - config.first_averaged_epoch
    return config.averaging == "swa" and since >= 0 and since % config.swa_every == 0


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


PLAIN_SECONDS = 30.0  # between two lines where there is no terminal to draw a bar on


class ProgressDisplay(keras.callbacks.Callback):
    """A bar with epoch, step, loss, the monitored figure and time left; else plain lines.

    Args:
        total_steps: Steps of the whole run.
        steps_done: Steps done before, by the run that is resumed.
        epochs: Epochs of the whole run.
        monitor: Name of the figure that tells the best epoch, such as val_mAP.
    """

    def __init__(
        self, total_steps: int, steps_done: int, epochs: int, monitor: str = "val_mAP"
    ):
        super().__init__()
        self.total_steps = total_steps
        self.steps_done = steps_done
        self.epochs = epochs
        self.monitor = monitor
        self.console = Console(file=sys.stderr)
        self._first_step = steps_done
        self._started = self._last_line = time.monotonic()
        self._epoch = 0
        self._validation = ""
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]}{task.fields[validation]}"),
            TimeRemainingColumn(),
            console=self.console,
        )
        self._task = self._bar.add_task(
            "training", total=total_steps, completed=steps_done, loss="-", validation=""
        )

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        if self.console.is_terminal:
            self._bar.start()

    def stop(self) -> None:
        """Leave the terminal as it was."""
        self._bar.stop()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._epoch = epoch + 1

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self.steps_done += 1
        loss = f"{float((logs or {})['loss']):.4f}"
        label = f"epoch {self._epoch}/{self.epochs}"
        self._bar.update(
            self._task,
            completed=self.steps_done,
            description=label,
            loss=loss,
            validation=self._validation,
        )
        now = time.monotonic()
        if not self.console.is_terminal and now - self._last_line > PLAIN_SECONDS:
            self._last_line = now
            rate = (now - self._started) / (self.steps_done - self._first_step)
            left = rate * (self.total_steps - self.steps_done)
            self._print(
                f"{label} step {self.steps_done}/{self.total_steps} loss {loss} "
                f"about {_minutes(left)} left"
            )

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        logs = logs or {}
        name, value = spoken(self.monitor), logs[self.monitor]
        self._validation = f"  {name} {value:.4f}"
        self._print(
            f"epoch {epoch + 1}/{self.epochs}: loss {logs['loss']:.4f}, {name} {value:.4f}"
        )

    def _print(self, line: str) -> None:
        self._bar.console.print(line, highlight=False)


def say(text: str) -> None:
    """A line about what the program does now, on standard error."""
    print(text, file=sys.stderr, flush=True)


def spoken(figure: str) -> str:
    """A figure of log.csv in words: val_mAP is "validation mAP"."""
    name = figure.removeprefix("val_").replace("_", " ")
    return f"validation {name}" if figure.startswith("val_") else f"training {name}"


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d} min"
