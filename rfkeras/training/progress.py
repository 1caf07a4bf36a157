"""What a person sees while a model trains."""

from __future__ import annotations

import sys
import time
from typing import Any

import keras
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

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
