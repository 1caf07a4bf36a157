"""Callbacks of a run: metrics, best weights, snapshots, log files and progress."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import keras

from rfkeras.config.train_config import TrainConfig
from rfkeras.errors import CheckpointError, ConfigError, RFKerasError, unknown_name
from rfkeras.training.run_dir import (
    RunFolder,
    load_snapshot,
    read_record,
    save_snapshot,
    write_log,
)
from rfkeras.utils.model_graph import first_not_finite
from rfkeras.utils.progress import ProgressBar

STOPPING = (signal.SIGINT, signal.SIGTERM)  # Ctrl-C; what job systems send before SIGKILL
_VALIDATION = "val_"


@dataclass
class TrainingState:
    """The state of a run that is not in variables. Every snapshot contains it.

    Attributes:
        steps_done: Optimizer steps since the start of the run.
        loss_sum: Sum of the loss over the steps of the current epoch.
        loss_steps: Number of those steps.
        history: Rows of log.csv, one per epoch.
        best: Best value of the monitored metric so far. None before the first.
        best_epoch: Epoch of the best value, counted from 1.
        stopped: Whether training has stopped before its last epoch.
        seconds: Time spent in training and validation.
        data: SHA-256 of the data of each split, to refuse to resume with other data.
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

    def update(self, record: Mapping[str, Any]) -> None:
        """Set the attributes to the values of a saved state."""
        for name, value in record.items():
            setattr(self, name, value)


def lower_is_better(monitor: str) -> bool:
    """Return whether the lowest value of a metric is the best, as for a loss."""
    return monitor.endswith("loss")


@dataclass(frozen=True)
class Selection:
    """The rule that selects the best epoch and stops training early.

    Attributes:
        monitor: The metric. The lowest value is best for losses, otherwise the highest.
        patience: Epochs without improvement after which training stops. None: never.
        first_epoch: First epoch, counted from 1, that can be the best. Before it, the model
            is not pruned to its final size.
        patient_until: Epochs before this one do not count as epochs without improvement. It
            is the first averaged epoch, so that a run that stops early has an average, or
            the first epoch after the backbone was frozen.
    """

    monitor: str = "val_mAP"
    patience: int | None = None
    first_epoch: int = 1
    patient_until: int = 1

    def better(self, value: float, best: float | None) -> bool:
        """Return whether a value is better than the best so far. Any value beats NaN."""
        if best is None or math.isnan(best):
            return best is None or not math.isnan(value)
        return value < best if lower_is_better(self.monitor) else value > best

    def is_over(self, epoch: int, best_epoch: int) -> bool:
        """Return whether training stops after an epoch (both counted from 1)."""
        waited = epoch - max(best_epoch, self.patient_until - 1)
        return self.patience is not None and waited >= self.patience


def make_selection(config: TrainConfig, metrics: Collection[str]) -> Selection:
    """Return the rule that selects the best epoch of a run.

    Args:
        config: The run's configuration.
        metrics: Names of the validation metrics.

    Raises:
        ConfigError: The monitored metric does not exist, or is not available for
            averaged weights.
    """
    allowed = ("loss", *metrics)
    if config.monitor not in allowed:
        raise ConfigError(unknown_name("monitor", config.monitor, allowed))
    validated = config.averaging != "none" and config.final_weights != "last"
    if config.monitor == "loss" and validated:
        raise ConfigError(
            "Averaged weights have no training loss, so monitor must be a validation metric. "
            f"Set monitor to one of {', '.join(metrics)}, or averaging to none. "
            f"Received: monitor='loss', averaging={config.averaging!r}."
        )
    return Selection(
        config.monitor,
        config.early_stop_epochs,
        first_epoch=config.first_eligible_epoch,
        patient_until=max(
            config.first_averaged_epoch if config.averaging == "swa" else 1,
            (config.unfreeze_after or 0) + 1,
        ),
    )


class Interrupted(KeyboardInterrupt):
    """A signal has stopped the run, and everything needed to resume it is saved.

    Args:
        message: Message for the user.
        number: Number of the signal.
    """

    def __init__(self, message: str, number: int):
        super().__init__(message)
        self.number = number
        self.status = 128 + number  # as shells report a command ended by a signal


class Diverged(RFKerasError):
    """The loss or a variable of a run is not finite. The last good state is saved."""


class CheckpointCallback(keras.callbacks.Callback):
    """Validates and logs each epoch, keeps the best weights, and saves snapshots.

    A snapshot is saved every `checkpoint_steps` steps, at the end of each epoch after its
    validation, and on Ctrl-C and SIGTERM. No snapshot is saved between the last step of an
    epoch and its validation, so a resumed run neither repeats nor misses a validation.

    The loss is checked after each step; the variables before the first step, at the end of
    each epoch before its validation, and before each snapshot. If any of them is not finite,
    `Diverged` is raised and nothing is overwritten.

    Args:
        folder: The run's folder.
        best_variables: Variables saved for the best epoch, in a fixed order: the tagger's
            `state_variables`.
        variables: All variables that a step depends on, in a fixed order.
        steps_per_epoch: Steps per epoch.
        checkpoint_steps: Steps between two snapshots.
        validate: Returns the metrics of an epoch for log.csv.
        selection: Selects the best epoch and stops training early.
        end_epoch: Called after the validation of an epoch with its number, counted from 1.
        state: State of the run, changed in place.
        skips_overflow: Whether steps that overflow are skipped, as in float16. A loss that is
            not finite then does not count, unless this holds for all steps of an epoch.
        writes: Whether this process writes the files. With several workers only one does,
            and only its interruption is saved.
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
        state: TrainingState,
        skips_overflow: bool = False,
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
        self.state = state
        self.skips_overflow = skips_overflow
        self.writes = writes
        self._carried = (state.loss_sum, state.loss_steps)
        self._steps_this_epoch = 0
        self._stopped_by: int | None = None
        self._clock = time.monotonic()
        self._old_handlers: dict[int, Any] = {}

    def restore(self) -> None:
        """Set the variables and the state to those of the last snapshot."""
        record = read_record(self.folder.last)
        now = self.state.data
        changed = [name for name in now if record["data"].get(name) != now[name]]
        if changed:
            raise CheckpointError(
                f"The data of {self.folder.root} has changed since the run began: other clips "
                f"or labels in split {', '.join(changed)}. Restore the files, or start a new "
                "run."
            )
        load_snapshot(self.folder.last, self.variables)
        self.state.update(record)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._clock = time.monotonic()
        try:
            # Only now: a strategy of several workers has installed its own handlers.
            for number in STOPPING:
                self._old_handlers[number] = signal.signal(number, self._on_signal)
        except ValueError:  # not the main thread: the application handles the signals
            self._old_handlers = {}

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._carried = (self.state.loss_sum, self.state.loss_steps)
        self._steps_this_epoch = 0

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        state = self.state
        state.steps_done += 1
        self._steps_this_epoch += 1
        mean_loss = float((logs or {})["loss"])  # since this call of fit began the epoch
        if math.isfinite(mean_loss):
            state.loss_sum = self._carried[0] + mean_loss * self._steps_this_epoch
            state.loss_steps = self._carried[1] + self._steps_this_epoch
        elif not self.skips_overflow:
            self._raise_diverged(first_not_finite(self.variables))
        last_of_epoch = state.steps_done % self.steps_per_epoch == 0
        due = state.steps_done % self.checkpoint_steps == 0 or self._stopped_by
        if due and not last_of_epoch:
            self._save()
            self._stop_if_interrupted()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        state = self.state
        if not state.loss_steps:
            self._raise_diverged(None)
        self.check_finite()
        row: dict[str, Any] = {
            "epoch": epoch + 1,
            "loss": state.loss_sum / state.loss_steps,
            **self.validate(),
            "learning_rate": float(self.model.optimizer.learning_rate.numpy()),
        }
        if logs is not None:
            logs.update({name: value for name, value in row.items() if name != "epoch"})
        self._count_seconds()
        state.history.append({**row, "seconds": round(state.seconds, 1)})
        state.loss_sum, state.loss_steps = 0.0, 0
        value = row[self.selection.monitor]
        eligible = epoch + 1 >= self.selection.first_epoch
        if eligible and self.selection.better(value, state.best):
            state.best, state.best_epoch = value, epoch + 1
            if self.writes:
                save_snapshot(self.folder.best, self.best_variables, {"epoch": epoch + 1})
        state.stopped = eligible and self.selection.is_over(epoch + 1, state.best_epoch)
        self.model.stop_training = state.stopped
        self.end_epoch(epoch + 1)
        self.check_finite()  # again, with the averages and masks of this epoch
        if self.writes:
            write_log(self.folder.log, state.history)
            save_snapshot(self.folder.last, self.variables, asdict(state))
        self._stop_if_interrupted()

    def note_stop(self) -> None:
        """Record that another callback has stopped the training after an epoch."""
        if self.model.stop_training and not self.state.stopped:
            self.state.stopped = True
            if self.writes:
                save_snapshot(self.folder.last, self.variables, asdict(self.state))

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self.release_signals()

    def release_signals(self) -> None:
        """Restore the signal handlers from before the training."""
        for number, handler in self._old_handlers.items():
            signal.signal(number, handler)
        self._old_handlers = {}

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGTERM and not self.writes:
            return  # job systems signal all workers; this one continues until the chief saved
        if self._stopped_by is not None:
            raise KeyboardInterrupt  # the second signal: stop immediately
        self._stopped_by = number

    def _stop_if_interrupted(self) -> None:
        if self._stopped_by is not None:
            self.release_signals()
            raise Interrupted("Saved.", self._stopped_by)

    def check_finite(self) -> None:
        """Check the variables that a step depends on.

        Raises:
            Diverged: One of them contains NaN or infinity.
        """
        name = first_not_finite(self.variables)
        if name is not None:
            self._raise_diverged(name)

    def _raise_diverged(self, variable: str | None) -> NoReturn:
        state = self.state
        what = "the loss is" if variable is None else f"variable {variable} is"
        if state.steps_done:
            epoch = -(-state.steps_done // self.steps_per_epoch)
            when = f"in epoch {epoch}, after step {state.steps_done}"
        else:
            when = "before the first step"
        raise Diverged(f"Training has diverged: {what} NaN or infinite {when}.")

    def _save(self) -> None:
        self.check_finite()
        self._count_seconds()
        if self.writes:
            save_snapshot(self.folder.last, self.variables, asdict(self.state))

    def _count_seconds(self) -> None:
        now = time.monotonic()
        self.state.seconds += now - self._clock
        self._clock = now


class TensorBoardLogger(keras.callbacks.Callback):
    """Writes the metrics of each epoch for TensorBoard.

    The files are those of `keras.callbacks.TensorBoard`. That callback uses operations of
    TensorFlow, which keep 2 kB per metric and epoch in memory until the process ends. This
    one uses TensorBoard's own writer.

    Args:
        folder: Gets the sub-folders `train` and `validation`, with equal names of metrics.
    """

    def __init__(self, folder: Path):
        super().__init__()
        self.folder = folder
        self._writers: dict[str, Any] = {}

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        metrics: dict[str, dict[str, float]] = {"train": {}, "validation": {}}
        for name, value in (logs or {}).items():
            split = "validation" if name.startswith(_VALIDATION) else "train"
            metrics[split][f"epoch_{name.removeprefix(_VALIDATION)}"] = float(value)
        for split, values in metrics.items():
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


class ProgressDisplay(keras.callbacks.Callback):
    """Show epoch, step, loss, the monitored metric and the time left.

    Args:
        total_steps: Steps of the whole run.
        steps_done: Steps done before a resumed run was interrupted.
        epochs: Epochs of the whole run.
        monitor: Name of the metric that selects the best epoch, such as val_mAP.
    """

    def __init__(
        self, total_steps: int, steps_done: int, epochs: int, monitor: str = "val_mAP"
    ):
        super().__init__()
        self.epochs = epochs
        self.monitor = monitor
        self._bar = ProgressBar(
            "training", total_steps, unit="steps", done=steps_done, keep=True
        )
        self._epoch = 0
        self._validation = ""

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._bar.start()

    def stop(self) -> None:
        """Stop the bar and leave it on the terminal."""
        self._bar.stop()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._epoch = epoch + 1

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._bar.update(
            self._bar.done + 1,
            label=f"epoch {self._epoch}/{self.epochs}",
            note=f"loss {float((logs or {})['loss']):.4f}{self._validation}",
        )

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        logs = logs or {}
        name, value = metric_label(self.monitor), logs[self.monitor]
        self._validation = f", {name} {value:.4f}"
        self._bar.print(
            f"epoch {epoch + 1}/{self.epochs}: loss {logs['loss']:.4f}, {name} {value:.4f}"
        )


def metric_label(name: str) -> str:
    """Return a metric of log.csv in words: "val_mAP" is "validation mAP"."""
    words = name.removeprefix(_VALIDATION).replace("_", " ")
    return f"validation {words}" if name.startswith(_VALIDATION) else f"training {words}"
