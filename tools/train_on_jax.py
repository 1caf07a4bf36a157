"""Train networks of the zoo on JAX, from features and without TensorFlow.

`python -m tools.train_on_jax FEATURES.npz ... --model resnet_rf_tiny --seconds 120 --out DIR`

`tools.pack_features` writes the features; `tools.keras_from_jax` turns the results into whole
models. The features stay on the device, and excerpts are drawn and changed there. Every model
is trained on its own, one after the other: `--model resnet_rf_tiny,seconds=120,batch=256`. Its
learning rate falls to its end when its time ends. DIR/MODEL.npz has the moving average of the
weights, and is written again at every evaluation.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "jax"

import jax
import jax.numpy as jnp
import numpy as np

from rfkeras.errors import ConfigError, RFKerasError
from rfkeras.frontend.presets import preset_config
from rfkeras.tasks import MULTI_LABEL
from rfkeras.training.losses import first_logits
from rfkeras.utils.files import open_npz, write_npz, write_text
from tools.feature_parts import Features, Scale, read_parts
from tools.growing_features import GrowingFeatures
from tools.jax_batches import Augmentation
from tools.jax_network import Network, mean_average_precision
from tools.jax_settings import Clock, Settings, check_settings, parse_model, rates

SMALLEST_DEVIATION = 3e-4  # of a band whose filter has no weights
OUT_OF_MEMORY = "RESOURCE_EXHAUSTED"
SMALLEST_BATCH = 16


class Trainer:
    """Trains one model.

    Args:
        name: Name of the model.
        settings: How it is trained.
        options: Options of the architecture.
        augmentation: Random changes of the excerpts.
        train: Features to train on.
        validation: Features to evaluate on; may be empty.
        data: The device's copy of `train`, see `draw_batch`.
        out: Folder of the results.
        started: When the model's time began, by `time.monotonic`.
        bands: Mean and deviation of the bands, from `statistics`.
        start: File of an earlier training whose weights and statistics are taken over; None for
            new ones.
        growing: Clips that are still being rendered; None for none.
    """

    def __init__(
        self,
        name: str,
        settings: Settings,
        options: dict[str, Any],
        augmentation: Augmentation,
        train: Features,
        validation: Features,
        data: dict[str, Any],
        out: Path,
        started: float,
        bands: dict[str, Any],
        start: Path | None = None,
        growing: GrowingFeatures | None = None,
    ):
        self.started = started
        self.start = start
        self.growing = growing
        self.name = name
        self.settings = settings
        self.options = {"initialization": "he", **options}
        self.augmentation = augmentation
        self.train = train
        self.validation = validation
        self.data = data
        self.stem = out / (settings.name or name)
        self.label = self.stem.name
        self.curve: list[dict[str, float]] = []
        self.network = Network(
            name,
            train.scale.label_names,
            settings.precision,
            settings.seed,
            **self.options,
        )
        if start is None:
            self.network.set_first_logits(first_logits(train.labels, train.mask, MULTI_LABEL))
            data.update(bands)
        else:
            arrays = read_weights(start)
            self.network.load(arrays)
            data.update(earlier_statistics(arrays, train.scale))
        self.logits = self.network.logits_function()

    def compile(self) -> tuple[Any, Any]:
        """Compile the training steps; return them and the random key."""
        settings = self.settings
        frames = frames_of(settings.excerpt_seconds, self.train)
        chunk = self.network.chunk_function(
            settings.chunk,
            settings.batch,
            frames,
            self.augmentation,
            settings.weight_decay,
            settings.averaging,
            settings.consistency,
        )
        say(
            f"{self.label}: {self.network.n_weights:,} weights, batches of {settings.batch} "
            f"x {frames} frames, {settings.precision}"
        )
        key = jax.random.key(settings.seed)
        no_rates = jnp.zeros(settings.chunk, jnp.float32)
        begun = time.monotonic()
        compiled = chunk.lower(self.network.new_state(), self.data, key, no_rates).compile()
        say(f"{self.label}: compiled in {time.monotonic() - begun:.1f} s, {memory(compiled)}")
        return compiled, key

    def run(self, compile_only: bool = False) -> None:
        """Train the model and write its files.

        Args:
            compile_only: Only compile, for the cache of compiled functions.

        Raises:
            FloatingPointError: The loss is not finite; the files of the last evaluation stay.
        """
        settings = self.settings
        clock = Clock(self.started, settings)
        compiled, key = self.compile()
        state = self.network.new_state()
        if len(self.validation):
            self.evaluate(state, 0)  # compiles
            clock.reserve_s = self.evaluate(state, 0)
        if compile_only:
            return
        step, mark, marked_step = 0, time.monotonic(), 0
        clock.begin(step, mark)
        last_evaluation, evaluated = mark, 0
        while step < (total := clock.total(step, time.monotonic())):
            if self.growing is not None:
                self.growing.refresh(self.data)
            progress = (step + np.arange(settings.chunk)) / max(total, 1)
            state, loss = compiled(
                state, self.data, key, jnp.asarray(rates(progress, settings))
            )
            loss = float(loss)  # waits for the device
            step += settings.chunk
            if not math.isfinite(loss):
                raise FloatingPointError(f"The loss is {loss} after {step} steps.")
            now = time.monotonic()
            speed = (step - marked_step) / (now - mark)
            mark, marked_step = now, step
            self.curve.append(
                {
                    "step": step,
                    "seconds": now - self.started,
                    "loss": loss,
                    "steps_per_s": speed,
                }
            )
            say(
                f"{self.label}: step {step} of {clock.total(step, now)}, loss {loss:.4f}, "
                f"{speed:.2f} steps/s, {speed * settings.batch:.0f} excerpts/s, "
                f"{now - self.started:.0f} s"
            )
            if now - last_evaluation >= settings.evaluate_every:
                clock.reserve_s = self.finish(state, step)
                mark = last_evaluation = time.monotonic()
                evaluated = step
        if step == 0:
            say(f"{self.label}: no time was left for training")
        elif evaluated < step:
            self.finish(state, step)

    def finish(self, state: Any, step: int) -> float:
        """Evaluate, write the files, and return the seconds that this took."""
        begun = time.monotonic()
        if len(self.validation):
            self.evaluate(state, step)
        self.save(state, step)
        return time.monotonic() - begun

    def evaluate(self, state: Any, step: int) -> float:
        """Evaluate the averaged weights on validation; return the seconds that it took."""
        begun = time.monotonic()
        logits = self.validation_logits(state)
        value = mean_average_precision(logits, self.validation.labels, self.validation.mask)
        seconds = time.monotonic() - begun
        if step:
            self.curve.append(
                {"step": step, "seconds": time.monotonic() - self.started, "mAP": value}
            )
        say(f"{self.label}: step {step}, validation mAP {value:.4f} ({seconds:.1f} s)")
        return seconds

    def validation_logits(self, state: Any) -> Any:
        """Return the logits of all validation clips, (clips, tags) float32."""
        size = self.settings.evaluation_batch
        rows = np.arange(math.ceil(len(self.validation) / size) * size) % len(self.validation)
        batches = [
            self.logits(
                state["mean_weights"],
                state["mean_others"],
                {name: self.data[name] for name in ("step_db", "mean", "deviation")},
                self.validation.steps[rows[first : first + size]],
            )
            for first in range(0, len(rows), size)
        ]
        return np.concatenate([np.asarray(b) for b in batches])[: len(self.validation)]

    def save(self, state: Any, step: int) -> None:
        """Write the averaged weights, and what is known about the training."""
        scale = self.train.scale
        mean, deviation = (np.asarray(self.data[name]) for name in ("mean", "deviation"))
        arrays = self.network.averaged_arrays(state)
        arrays["frontend/mean_db"] = scale.to_layer(mean).astype(np.float32)
        deviation = np.maximum(deviation * np.asarray(scale.band_weight), SMALLEST_DEVIATION)
        arrays["frontend/std_db"] = deviation.astype(np.float32)
        record = {
            "model": self.name,
            "started_from": None if self.start is None else self.start.name,
            "options": self.options,
            "scale": asdict(scale),
            "settings": asdict(self.settings),
            "augmentation": asdict(self.augmentation),
            "clips": {"train": int(self.data["clips"]), "validation": len(self.validation)},
            "weights": self.network.n_weights,
            "device": str(jax.devices()[0].device_kind),
            "jax": jax.__version__,
            "step": step,
            "seconds": time.monotonic() - self.started,
            "curve": self.curve,
        }
        text = json.dumps(record)
        write_npz(self.stem.with_suffix(".npz"), {**arrays, "record": np.asarray(text)})
        write_text(self.stem.with_suffix(".json"), json.dumps(record, indent=1) + "\n")


def frames_of(seconds: float, features: Features) -> int:
    """Return the frames of an excerpt; at most those of a clip."""
    preset = preset_config(features.scale.preset)
    frames = 1 + int(seconds * preset["sample_rate_hz"]) // preset["hop_samples"]
    return min(frames, features.steps.shape[1])


def memory(compiled: Any) -> str:
    """Describe the device memory that a compiled function needs."""
    sizes = compiled.memory_analysis()
    if sizes is None:  # not every device can tell
        return "memory unknown"
    used = sizes.temp_size_in_bytes + sizes.argument_size_in_bytes
    return f"needs {used / 2**30:.1f} GiB"


def on_device(train: Features, capacity: int = 0) -> dict[str, Any]:
    """Copy the training features to the device.

    Args:
        train: The features.
        capacity: Clips that the arrays have room for, at least those of the features. Compiled
            functions depend on it, and not on the number of clips.
    """

    def padded(array: Any) -> Any:
        missing = max(0, capacity - len(array))
        return np.concatenate([array, np.zeros((missing, *array.shape[1:]), array.dtype)])

    data = {
        "steps": padded(train.steps),
        "labels": padded(train.labels.astype(np.float32)),
        "mask": padded(train.mask.astype(np.float32)),
        "clips": np.int32(len(train)),
        "step_db": np.float32(train.scale.step_db),
    }
    return {name: jax.device_put(jnp.asarray(value)) for name, value in data.items()}


def statistics(train: Features) -> dict[str, Any]:
    """Return mean and deviation of every band of the training features, dB above the floor."""
    mean, deviation = train.band_statistics()
    return {"mean": jax.device_put(mean), "deviation": jax.device_put(deviation)}


def read_weights(path: Path) -> dict[str, Any]:
    """Read the arrays of an earlier training.

    Raises:
        ConfigError: It is not a file of this tool.
    """
    try:
        with open_npz(path) as arrays:
            found = {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} is not a file of tools.train_on_jax: {error}.") from error
    if "frontend/mean_db" not in found:
        raise ConfigError(f"{path} is not a file of tools.train_on_jax: it has no front-end.")
    return found


def earlier_statistics(arrays: dict[str, Any], scale: Scale) -> dict[str, Any]:
    """Return the statistics that an earlier training used, in dB above the floor."""
    weight = np.maximum(np.asarray(scale.band_weight), np.finfo(np.float32).tiny)
    mean = (arrays["frontend/mean_db"] - np.asarray(scale.offset_db)) / weight - scale.floor_db
    deviation = arrays["frontend/std_db"] / weight
    return {
        "mean": jax.device_put(mean.astype(np.float32)),
        "deviation": jax.device_put(deviation.astype(np.float32)),
    }


def say(text: str) -> None:
    """Print a line at once."""
    print(text, flush=True)


def train_all(
    models: Sequence[tuple[str, Settings, dict[str, Any]]],
    augmentation: Augmentation,
    features: Features,
    out: Path,
    capacity: int = 0,
    compile_only: bool = False,
    start: Path | None = None,
    growing: GrowingFeatures | None = None,
) -> list[str]:
    """Train models one after the other; return the names of those that failed.

    A model that does not fit into the device's memory is tried with half the batch.
    """
    train, validation = features.select("train"), features.select("validation")
    begun = time.monotonic()
    data, bands = on_device(train, capacity), statistics(train)
    say(
        f"{len(train)} training and {len(validation)} validation clips of "
        f"{train.steps.shape[1]} frames on {jax.devices()[0].device_kind} "
        f"({time.monotonic() - begun:.1f} s)"
    )
    failed = []
    for name, settings, options in models:
        started = time.monotonic()
        while True:
            try:
                Trainer(
                    name,
                    settings,
                    options,
                    augmentation,
                    train,
                    validation,
                    data,
                    out,
                    started,
                    bands,
                    start_file(start, settings.name or name),
                    growing,
                ).run(compile_only)
            except Exception as error:  # noqa: BLE001 - the next model may work
                traceback.print_exc()
                if OUT_OF_MEMORY in str(error) and settings.batch > SMALLEST_BATCH:
                    settings = replace(settings, batch=settings.batch // 2)
                    say(f"{name}: out of memory, trying batches of {settings.batch}")
                    continue
                failed.append(name)
                say(f"{name} FAILED: {error}")
            break
        gc.collect()
        jax.clear_caches()
    return failed


def check_same_scale(scale: Scale, growing: GrowingFeatures) -> None:
    """Check that clips in files and clips that are being rendered have numbers of one meaning.

    Raises:
        ConfigError: They have not.
    """
    if scale != growing.scale:
        raise ConfigError(
            f"{growing.folder} is being rendered with another front-end, step or tags than the "
            "files have. Render it with the front-end that the files were made with."
        )


def start_file(folder: Path | None, name: str) -> Path | None:
    """Return the file of an earlier training; None without a folder, or without its file."""
    path = None if folder is None else folder / f"{name}.npz"
    return path if path is not None and path.is_file() else None


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("features", nargs="*", type=Path, help="files of tools.pack_features")
    parser.add_argument(
        "--growing",
        type=Path,
        metavar="FOLDER",
        help="train on what tools.render_features is writing, too",
    )
    parser.add_argument(
        "--first-clips",
        type=int,
        default=500,
        metavar="CLIPS",
        help="clips of that folder to wait for if there are no files (default: 500)",
    )
    parser.add_argument(
        "--model", action="append", required=True, metavar="NAME[,KEY=VALUE...]"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument(
        "--start",
        type=Path,
        metavar="FOLDER",
        help="folder of an earlier --out: go on from its weights, with a new schedule",
    )
    parser.add_argument("--compile-cache", help="folder that keeps compiled functions")
    parser.add_argument("--compile-only", action="store_true", help="only fill that folder")
    parser.add_argument(
        "--capacity",
        type=int,
        default=0,
        metavar="CLIPS",
        help="room for training clips; equal compiled functions need an equal capacity",
    )
    for group in (Settings(), Augmentation()):
        for field in fields(group):
            default = getattr(group, field.name)
            several = {"nargs": 2} if isinstance(default, tuple) else {}
            kind = type(default[0]) if several else type(default)
            flag = "--" + field.name.replace("_", "-")
            if field.name != "name":
                parser.add_argument(
                    flag, type=kind, default=default, help=f"default: {default}", **several
                )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Train the models; 1 if one failed."""
    given = arguments(argv)
    values = vars(given)
    default = Settings(**{f.name: values[f.name] for f in fields(Settings) if f.name in values})
    augmentation = Augmentation(
        **{
            f.name: tuple(values[f.name]) if f.name == "gain_db" else values[f.name]
            for f in fields(Augmentation)
        }
    )
    try:
        models = [parse_model(text, default) for text in given.model]
        for _, settings, _ in models:
            check_settings(settings)
        if given.compile_cache:
            jax.config.update("jax_compilation_cache_dir", given.compile_cache)
            jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
        growing = GrowingFeatures(given.growing) if given.growing else None
        room = 0
        if growing is not None and not given.features:
            features, room = growing.first(given.first_clips, say), growing.capacity
        else:
            features = read_parts(given.features, say)
            if growing is not None:
                check_same_scale(features.scale, growing)
                room = len(features) + growing.capacity
        failed = train_all(
            models,
            augmentation,
            features,
            given.out,
            max(given.capacity, room),
            given.compile_only,
            given.start,
            growing,
        )
    except RFKerasError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
