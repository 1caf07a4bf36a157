"""Train many small networks on JAX to the end, and score them on several test sets.

`python -m tools.sweep_on_jax PLAN.json --data DIR --out OUT`

The plan has a list of conditions (`tools.sweep_plan`); DIR has the clips of every set that it
names, in files NAME-000.npz, NAME-001.npz and so on (`tools.experiment_clips`). Networks of one
architecture are compiled once. Runs that are in OUT/runs.jsonl are skipped, so an interrupted
sweep resumes. Several processes can work on one OUT: each takes the next run that no other has
taken.

OUT/runs.jsonl has a line for each run: what it was, and loss and mAP on its training clips and
all test sets at ten points of the training. OUT/RUN.npz has the logits of every clip at the
end, and OUT/weights/RUN.npz the weights of the first seed.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

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
from tools.sweep_plan import POINTS, Condition, Run, read_plan, rho_text
from tools.train_on_jax import say, statistics

AVERAGING = 0.99
MIX_LEVEL_DB = 6.0
_CLIPS_AT_ONCE = 50


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
    """Return a function of (weights, others, scale, steps) to the logits of clips.

    The logits of a clip are the mean over windows, which overlap as little as possible. The
    compiled part has a fixed number of clips, so that it fits sets of all sizes.

    Args:
        network: The network.
        frames: Frames of a window.
    """

    @jax.jit
    def some_logits(weights: Any, others: Any, scale: dict[str, Any], steps: Any) -> Any:
        clips, total, bands = steps.shape
        count = -(-total // frames)
        starts = np.linspace(0, max(0, total - frames), count).astype(int)
        windows = jnp.stack([steps[:, start : start + frames] for start in starts], 1)
        flat = windows.reshape(clips * count, -1, bands).astype(jnp.float32)
        x = standardised(flat * scale["step_db"], scale)[..., None]
        answer, _ = network.model.stateless_call(weights, others, x, training=False)
        return answer.astype(jnp.float32).reshape(clips, count, -1).mean(axis=1)

    def logits(weights: Any, others: Any, scale: dict[str, Any], steps: Any) -> Any:
        clips = len(steps)
        found = [
            some_logits(
                weights,
                others,
                scale,
                steps[jnp.arange(first, first + _CLIPS_AT_ONCE) % clips],
            )
            for first in range(0, clips, _CLIPS_AT_ONCE)
        ]
        return jnp.concatenate(found)[:clips]

    return logits


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
        functions: dict[str, dict[str, Any]] = {}
        while (taken := self._take(runs, functions)) is not None:
            run, lock = taken
            with lock:
                if time.monotonic() > deadline:
                    say(f"{run.name}: no time was left")
                    return
                self._train(run, functions.setdefault(run.compiled, {}))

    def _take(
        self, runs: Sequence[Run], functions: Collection[str]
    ) -> tuple[Run, IO[str]] | None:
        """Return the next run that is neither finished nor taken, and its lock.

        Within a condition, runs whose functions are compiled come first.

        Args:
            runs: The runs.
            functions: What is compiled.
        """
        done = self.done()
        open_runs = [run for run in runs if run.name not in done]
        place = {run.condition.name: n for n, run in enumerate(reversed(open_runs))}
        open_runs.sort(key=lambda r: (-place[r.condition.name], r.compiled not in functions))
        for run in open_runs:
            lock = self._lock(run.name)
            if lock is None:
                continue
            if run.name not in self.done():  # finished by another process since
                return run, lock
            lock.close()
        return None

    def compile_runs(self, runs: Sequence[Run]) -> None:
        """Compile the functions of all runs, for the cache of compiled functions.

        Several processes can share the work.

        Args:
            runs: The runs.
        """
        first: dict[str, Run] = {}
        for run in runs:
            first.setdefault(run.compiled, run)
        with contextlib.ExitStack() as locks:  # released at the end: no process follows another
            for compiled, run in first.items():
                text = hashlib.sha256(compiled.encode()).hexdigest()[:12]
                lock = self._lock(f"compile-{text}")
                if lock is None:
                    continue
                locks.enter_context(lock)
                begun = time.monotonic()
                functions: dict[str, Any] = {}
                network, _, data = self._prepare(run, functions)
                no_rates = jnp.zeros(run.condition.call)
                state, _ = functions["chunk"](
                    network.new_state(), data, jax.random.key(0), no_rates
                )
                self._logits(run, state, data, functions["scores"])
                say(f"{run.name}: compiled in {time.monotonic() - begun:.0f} s")

    def _lock(self, name: str) -> IO[str] | None:
        """Lock a name until the file is closed or the process ends; None if it is locked."""
        (self.out / "locks").mkdir(parents=True, exist_ok=True)
        lock = (self.out / "locks" / name).open("w", encoding="utf-8")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            return None
        return lock

    def _prepare(
        self, run: Run, functions: dict[str, Any]
    ) -> tuple[Network, Features, dict[str, Any]]:
        """Return the network, the training clips and the data on the device.

        Args:
            run: The run.
            functions: Gets "chunk" and "scores" if it is empty.
        """
        condition = run.condition
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
                condition.call,
                condition.batch,
                condition.excerpt_frames,
                Augmentation((0.0, 0.0), 0.0, condition.mix, MIX_LEVEL_DB),
                condition.weight_decay,
                AVERAGING,
            )
            functions["scores"] = scores_function(network, condition.excerpt_frames)
        return network, train, data

    def _train(self, run: Run, functions: dict[str, Any]) -> None:
        condition, begun = run.condition, time.monotonic()
        network, train, data = self._prepare(run, functions)
        state, key = network.new_state(), jax.random.key(run.seed)
        settings = Settings(learning_rate=condition.learning_rate, warm_up=0.05)
        curve: list[dict[str, float]] = []
        for point in range(POINTS):
            progress = point / POINTS + np.arange(condition.chunk) / condition.chunk / POINTS
            losses = []
            for part in np.split(rates(progress, settings), condition.chunk // condition.call):
                state, loss = functions["chunk"](state, data, key, jnp.asarray(part))
                losses.append(loss)
            logits = self._logits(run, state, data, functions["scores"])
            figures = {"step": (point + 1) * condition.chunk, "loss": float(np.mean(losses))}
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
    parser.add_argument(
        "--seconds", type=float, default=float("inf"), help="begin no run later"
    )
    parser.add_argument("--compile-cache", help="folder that keeps compiled functions")
    parser.add_argument(
        "--compile-only", action="store_true", help="fill the compile cache; do not train"
    )
    given = parser.parse_args(argv)
    deadline = time.monotonic() + given.seconds
    try:
        if given.compile_cache:
            jax.config.update("jax_compilation_cache_dir", given.compile_cache)
            jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
        runs, sweep = read_plan(given.plan), Sweep(ClipSets(given.data), given.out)
        if given.compile_only:
            sweep.compile_runs(runs)
        else:
            sweep.train_runs(runs, deadline)
    except RFKerasError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
