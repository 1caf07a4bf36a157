"""Settings of `tools.train_on_jax`: their command line, the learning rate, and the clock."""

from __future__ import annotations

import json
import math
import re
import sys
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from rfkeras.errors import ConfigError, unknown_name
from zoo.registry import model_info

PRECISIONS = {"bfloat16": "mixed_bfloat16", "float32": "float32"}
SCHEDULES = ("cosine", "linear")
FIRST_GUESS = 60  # chunks of a training whose speed is unknown


@dataclass(frozen=True)
class Settings:
    """How a model is trained.

    Attributes:
        seconds: Time for the model, compilation and evaluations included. 0: no limit.
        steps: Number of steps; 0: as many as the time allows.
        batch: Excerpts per step.
        excerpt_seconds: Length of an excerpt.
        learning_rate: Its highest value.
        final_share: Share of it at the end.
        warm_up: Share of the steps in which it rises from 0.
        schedule: "cosine" or "linear", after that.
        weight_decay: AdamW's decay of kernels.
        averaging: Share of the old moving average of the weights that a step keeps.
        consistency: Weight of the squared difference between the logits of an excerpt at two
            gains; above 0, a batch has every excerpt twice.
        precision: "bfloat16" or "float32".
        chunk: Steps between two looks at the clock.
        evaluate_every: Seconds between evaluations.
        evaluation_batch: Whole clips in a batch of an evaluation.
        seed: Seed of weights and excerpts.
        name: Name of the files; "" for the model's.
    """

    seconds: float = 0.0
    steps: int = 0
    batch: int = 256
    excerpt_seconds: float = 5.0
    learning_rate: float = 2e-3
    final_share: float = 0.01
    warm_up: float = 0.03
    schedule: str = "cosine"
    weight_decay: float = 0.01
    averaging: float = 0.999
    consistency: float = 0.0
    precision: str = "bfloat16"
    chunk: int = 50
    evaluate_every: float = 30.0
    evaluation_batch: int = 64
    seed: int = 0
    name: str = ""


def rates(progress: Any, settings: Settings) -> Any:
    """Return the learning rates at points of a training, from 0 (begin) to 1 (end)."""
    progress = np.clip(progress, 0.0, 1.0)
    rise = np.clip(progress / max(settings.warm_up, 1e-9), 0.0, 1.0)
    fall = np.clip((progress - settings.warm_up) / max(1.0 - settings.warm_up, 1e-9), 0.0, 1.0)
    if settings.schedule == "cosine":
        fall = 0.5 - 0.5 * np.cos(np.pi * fall)
    share = rise * (1.0 - fall * (1.0 - settings.final_share))
    return np.asarray(settings.learning_rate * share, np.float32)


class Clock:
    """Estimates how many steps fit into the time.

    Args:
        started: When the model began, by `time.monotonic`.
        settings: Give the time or the steps.
    """

    def __init__(self, started: float, settings: Settings):
        self.settings = settings
        self.deadline = started + settings.seconds if settings.seconds else math.inf
        self.reserve_s = 0.0  # for the last evaluation
        self._measured: tuple[int, float] | None = None

    def begin(self, step: int, now: float) -> None:
        """Begin to measure; steps before this one contained the compilation."""
        self._measured = (step, now)

    def total(self, step: int, now: float) -> int:
        """Return the estimated number of steps of the whole training, at least `step`."""
        chunk, wanted = self.settings.chunk, self.settings.steps or sys.maxsize
        if math.isinf(self.deadline):
            return wanted
        left_s = self.deadline - self.reserve_s - now
        if self._measured is None or step == self._measured[0]:  # speed unknown
            return min(wanted, step + FIRST_GUESS * chunk) if left_s > 0 else step
        first, since = self._measured
        fitting = int(left_s * (step - first) / max(now - since, 1e-9))
        # Chunks are never cut; the last may end half a chunk too late.
        return min(wanted, step + max(0, round(fitting / chunk)) * chunk)


def parse_model(text: str, default: Settings) -> tuple[str, Settings, dict[str, Any]]:
    """Read "MODEL,key=value,...": settings of the model, and options of its architecture.

    Raises:
        ConfigError: There is no such model, setting or option, or a value is not allowed.
    """
    name, *pairs = re.split(r",(?=\w+=)", text)  # values in JSON may have commas
    kinds = {field.name: type(getattr(default, field.name)) for field in fields(Settings)}
    settings, options = {}, {}
    for pair in pairs:
        key, _, value = pair.partition("=")
        try:
            if key in kinds:
                settings[key] = kinds[key](value)
            else:
                options[key] = json.loads(value)
        except ValueError as error:
            raise ConfigError(
                f"--model {text}: the value of {key!r} must be a {kinds[key].__name__}"
                if key in kinds
                else f"--model {text}: the value of {key!r} must be JSON, such as 7, true or "
                f'"max" in quotes ({error}).'
            ) from error
    allowed = model_info(name).options
    for key in options:
        if key not in allowed:
            raise ConfigError(
                unknown_name(f"setting or option of {name}", key, [*kinds, *allowed])
            )
    return name, replace(default, **settings), options


def check_settings(settings: Settings) -> Settings:
    """Check settings.

    Raises:
        ConfigError: One is not allowed.
    """
    if settings.precision not in PRECISIONS:
        raise ConfigError(unknown_name("precision", settings.precision, PRECISIONS))
    if settings.schedule not in SCHEDULES:
        raise ConfigError(unknown_name("schedule", settings.schedule, SCHEDULES))
    if settings.consistency < 0 or (settings.consistency and settings.batch % 2):
        raise ConfigError(
            "--consistency must be 0 or more, and needs an even --batch. Received: "
            f"{settings.consistency} with batches of {settings.batch}."
        )
    if not settings.seconds and not settings.steps:
        raise ConfigError("Give every model its time or its steps: --seconds or --steps.")
    return settings
