"""Train many small networks on JAX to the end, and score them on several test sets.

`python -m tools.sweep_on_jax PLAN.json --data DIR --out OUT`

The plan has a list of conditions (`tools.sweep_plan`); DIR has the clips of every set that it
names, in files NAME-000.npz, NAME-001.npz and so on (`tools.experiment_clips`). Networks of one
architecture are compiled once. Runs that are in OUT/runs.jsonl are skipped, so an interrupted
sweep resumes. Several processes can share one OUT with `--share 0/4`, `--share 1/4` and so on.

OUT/runs.jsonl has a line for each run: what it was, and loss and mAP on its training clips and
all test sets at ten points of the training. OUT/RUN.npz has the logits of every clip at the
end, and OUT/weights/RUN.npz the weights of the first seed.
"""

from __future__ import annotations

import argparse
import fcntl
import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "jax"

import jax
import jax.numpy as jnp
import numpy as np

from rfkeras.errors import ConfigError, RFKerasError
from rfkeras.tasks import MULTI_LABEL
from rfkeras.training.losses import first_logits
from rfkeras.utils.files import write_npz
from tools.feature_parts import Features, read_parts
from tools.jax_batches import Augmentation, standardised
from tools.jax_network import Network, mean_average_precision
from tools.jax_settings import Settings, rates
from tools.sweep_plan import POINTS, Condition, Run, read_plan, rho_text, share_of
from tools.train_on_jax import say, statistics

AVERAGING = 0.99
MIX_LEVEL_DB = 6.0
_WINDOWS_AT_ONCE = 100


class ClipSets:
    """The sets of clips in a folder, read when they are needed."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._read: dict[str, Features] = {}
        self._steps: dict[str, Any] = {}
        self._bands: dict[tuple[str, int], dict[str, Any]] = {}

    def clips(self, name: str, tags: Sequence[str]) -> Features:
        """Return a set with the labels of some tags, or of all if none is named.

        Raises:
            ConfigError: It has no such set or tag.
        """
        if name not in self._read:
            paths = sorted(self.folder.glob(f"{name}-[0-9][0-9][0-9].npz"))
            if not paths:
                raise ConfigError(f"{self.folder} has no clips of {name!r}: {name}-000.npz.")
            self._read[name] = read_parts(paths, lambda text: None)
        found = self._read[name]
        if not tags:
            return found
        missing = set(tags) - set(found.scale.label_names)
        if missing:
            raise ConfigError(f"{name} has no labels of {', '.join(sorted(missing))}.")
        columns = [found.scale.label_names.index(tag) for tag in tags]
        return replace(
            found,
            labels=found.labels[:, columns],
            mask=found.mask[:, columns],
            scale=replace(found.scale, label_names=tuple(tags)),
        )

    def steps(self, name: str) -> Any:
        """Return the spectrograms of a set on the device."""
        if name not in self._steps:
            self._steps[name] = jax.device_put(self._read[name].steps)
        return self._steps[name]

    def bands(self, name: str, clips: int) -> dict[str, Any]:
        """Return mean and deviation of the bands of the first clips of a set."""
        if (name, clips) not in self._bands:
            self._bands[name, clips] = statistics(self._read[name].first(clips))
        return self._bands[name, clips]


def training_clips(features: Features, condition: Condition, seed: int) -> Features:
    """Return the clips of a training set with some labels inverted.

    The same labels are inverted for every rho.

    Args:
        features: All clips of the training set.
        condition: The condition.
        seed: Seed of the run.

    Raises:
        ConfigError: There are fewer clips than the condition needs.
    """
    if condition.clips > len(features):
        raise ConfigError(
            f"{condition.name} needs {condition.clips} training clips. There are "
            f"{len(features)}."
        )
    labels = np.array(features.labels, np.float32)
    inverted = np.random.default_rng([seed, 7]).random(labels.shape) < condition.flipped
    return replace(features, labels=np.where(inverted, 1.0 - labels, labels).astype(np.float16))


def scores_function(network: Network, frames: int) -> Callable[..., Any]:
    """Return a compiled function of (weights, others, scale, steps) to the logits of clips.

    The logits of a clip are the mean over windows, which overlap as little as possible.

    Args:
        network: The network.
        frames: Frames of a window.
    """

    def logits(weights: Any, others: Any, scale: dict[str, Any], steps: Any) -> Any:
        clips, total, bands = steps.shape
        count = -(-total // frames)
        starts = np.linspace(0, max(0, total - frames), count).astype(int)
        windows = jnp.stack([steps[:, start : start + frames] for start in starts], 1)
        flat = windows.reshape(clips * count, -1, bands)
        at_once = min(_WINDOWS_AT_ONCE, len(flat))
        rows = np.arange(-(-len(flat) // at_once) * at_once) % len(flat)
        batches = flat[rows].reshape(-1, at_once, *flat.shape[1:])

        def of_batch(batch: Any) -> Any:
            x = standardised(batch.astype(jnp.float32) * scale["step_db"], scale)
            answer = network.model.stateless_call(weights, others, x[..., None], training=False)
            return answer[0].astype(jnp.float32)

        found = jax.lax.map(of_batch, batches).reshape(len(rows), -1)[: len(flat)]
        return found.reshape(clips, count, -1).mean(axis=1)

    return jax.jit(logits)


class Sweep:
    """Trains runs and writes what they reach.

    Args:
        sets: The sets of clips.
        out: Folder of the results.
    """

    def __init__(self, sets: ClipSets, out: Path):
        self.sets = sets
        self.out = out
        self.results = out / "runs.jsonl"

    def done(self) -> set[str]:
        """Return the names of the runs that are finished."""
        if not self.results.is_file():
            return set()
        lines = self.results.read_text(encoding="utf-8").splitlines()
        return {json.loads(line)["run"] for line in lines}

    def train_runs(self, runs: Sequence[Run], deadline: float) -> None:
        """Train the runs that are not finished; begin none after the deadline.

        Args:
            runs: The runs.
            deadline: A time of `time.monotonic`.
        """
        self.out.mkdir(parents=True, exist_ok=True)
        done = self.done()
        for _, group in itertools.groupby(runs, lambda run: run.compiled):
            functions: dict[str, Any] = {}
            for run in group:
                if run.name in done:
                    continue
                if time.monotonic() > deadline:
                    say(f"{run.name}: no time was left")
                    return
                self._train(run, functions)
            jax.clear_caches()

    def _train(self, run: Run, functions: dict[str, Any]) -> None:
        condition, begun = run.condition, time.monotonic()
        everything = training_clips(
            self.sets.clips(condition.train, condition.tags), condition, run.seed
        )
        train = everything.first(condition.clips or len(everything))
        network = Network(
            condition.model,
            train.scale.label_names,
            "bfloat16",
            run.seed,
            **{"initialization": "he", **condition.network_options(run.rho)},
        )
        network.set_first_logits(first_logits(train.labels, train.mask, MULTI_LABEL))
        # All clips of the set, so that one compiled function fits every number.
        data = {
            "steps": self.sets.steps(condition.train),
            "labels": jnp.asarray(everything.labels, jnp.float32),
            "mask": jnp.asarray(everything.mask, jnp.float32),
            "clips": jnp.int32(len(train)),
            "step_db": jnp.float32(train.scale.step_db),
            **self.sets.bands(condition.train, len(train)),
        }
        if not functions:
            functions["chunk"] = network.chunk_function(
                condition.chunk,
                condition.batch,
                condition.excerpt_frames,
                Augmentation((0.0, 0.0), 0.0, condition.mix, MIX_LEVEL_DB),
                condition.weight_decay,
                AVERAGING,
            )
            functions["scores"] = scores_function(network, condition.excerpt_frames)
        state, key = network.new_state(), jax.random.key(run.seed)
        settings = Settings(learning_rate=condition.learning_rate, warm_up=0.05)
        curve: list[dict[str, float]] = []
        for point in range(POINTS):
            progress = point / POINTS + np.arange(condition.chunk) / condition.chunk / POINTS
            state, loss = functions["chunk"](
                state, data, key, jnp.asarray(rates(progress, settings))
            )
            logits = self._logits(run, state, data, functions["scores"])
            figures = {"step": (point + 1) * condition.chunk, "loss": float(loss)}
            for name, found in logits.items():
                clips = train if name == "train" else self.sets.clips(name, condition.tags)
                figures[name] = mean_average_precision(
                    found[: len(clips)], clips.labels, clips.mask
                )
            curve.append(figures)
        write_npz(
            self.out / f"{run.name}.npz",
            {name: found.astype(np.float16) for name, found in logits.items()},
        )
        if run.seed == condition.seeds[0]:
            write_npz(self.out / "weights" / f"{run.name}.npz", network.averaged_arrays(state))
        self._record(run, network.n_weights, len(train), time.monotonic() - begun, curve)

    def _logits(
        self, run: Run, state: Any, data: dict[str, Any], scores: Callable[..., Any]
    ) -> dict[str, Any]:
        """Return the logits of the averaged weights on the training and all test clips."""
        condition = run.condition
        scale = {name: data[name] for name in ("step_db", "mean", "deviation")}
        sets = {"train": self.sets.steps(condition.train)}
        for name in condition.tests:
            self.sets.clips(name, condition.tags)
            sets[name] = self.sets.steps(name)
        return {
            name: np.asarray(scores(state["mean_weights"], state["mean_others"], scale, steps))
            for name, steps in sets.items()
        }

    def _record(
        self, run: Run, parameters: int, clips: int, seconds: float, curve: list[Any]
    ) -> None:
        row = {
            "run": run.name,
            "condition": run.condition.name,
            "rho": rho_text(run.rho),
            "seed": run.seed,
            "parameters": parameters,
            "clips": clips,
            "seconds": round(seconds, 2),
            "device": str(jax.devices()[0].device_kind),
            "curve": curve,
        }
        with self.results.open("a", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # other processes write here, too
            file.write(json.dumps(row) + "\n")
        figures = ", ".join(f"{name} {value:.4g}" for name, value in curve[-1].items())
        say(f"{run.name}: {seconds:.1f} s, {figures}")


def main(argv: Sequence[str] | None = None) -> int:
    """Train the runs of a plan; 2 if it is wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("plan", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="folder of the clips")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--share", default="0/1", help="part of the runs, such as 0/4")
    parser.add_argument(
        "--seconds", type=float, default=float("inf"), help="begin no run later"
    )
    parser.add_argument("--compile-cache", help="folder that keeps compiled functions")
    given = parser.parse_args(argv)
    deadline = time.monotonic() + given.seconds
    try:
        if given.compile_cache:
            jax.config.update("jax_compilation_cache_dir", given.compile_cache)
            jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
        runs = share_of(read_plan(given.plan), given.share)
        Sweep(ClipSets(given.data), given.out).train_runs(runs, deadline)
    except RFKerasError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
